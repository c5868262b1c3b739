"""What an error body says, whatever its shape.

OpenAI's `{"error": {"message", "type", "code"}}` is the common one. Cerebras and Mistral send it flat,
Ollama and xAI as a text, Gemini in a list of one, DeepInfra and Mistral under `detail` (as FastAPI does).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

_LONGEST_TEXT: Final = 4000
_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LIKE_A_KEY: Final = re.compile(
    r"^(?:sk|gsk|csk|xai|rk|pk|ak|hf|tgp|org|key)[-_]|^AIza|(?=[A-Za-z]*\d)[A-Za-z0-9]{16,}", re.IGNORECASE
)

UPSTREAM: Final = "@upstream"
"""OpenRouter passes on what one of its own providers answered."""
MODERATED: Final = "@moderated"
"""OpenRouter names why it flagged the request."""


@dataclass(frozen=True)
class ErrorBody:
    """An error as the body tells it.

    Attributes:
        message: What it says to people; it can quote the request and even the key.
        text: The message and what stands beside it, for rules to look into; at most 4,000 characters.
        words: Its codes, types and reasons, in lower case.
        code: The word among them that is fit for events and logs.
        error: The error object itself.
    """

    message: str
    text: str
    words: frozenset[str]
    code: str | None
    error: Mapping[str, Any]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What OpenRouter puts beside the message."""
        return _mapping(self.error.get("metadata"))

    @property
    def details(self) -> list[Mapping[str, Any]]:
        """What Google puts beside the message (google.rpc.Status)."""
        found = self.error.get("details")
        return [d for d in found if isinstance(d, dict)] if isinstance(found, list) else []


def parsed(content: bytes) -> Any:
    """The JSON in it, or None."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def error_in(body: Any, content: bytes = b"") -> ErrorBody:
    """Reads a parsed body; of one that is no JSON, the `content` is looked into but never quoted."""
    if isinstance(body, list) and body:
        body = body[0]
    outer = _mapping(body)
    error = outer.get("error")
    inner = error if isinstance(error, dict) else {**outer, "message": error or outer.get("message")}
    if not inner.get("message"):
        inner = {**inner, "message": outer.get("detail")}
    message = _sentence(inner.get("message"))
    raw = _sentence(_mapping(inner.get("metadata")).get("raw"))
    text = f"{message} {raw}" if raw else message
    if body is None:
        text = content[:_LONGEST_TEXT].decode("utf-8", "replace")
    return ErrorBody(message, text[:_LONGEST_TEXT], frozenset(_words(inner)), _code(inner), inner)


def _sentence(value: Any, depth: int = 0) -> str:
    """The text in a value that may be a text, an object or a list of either."""
    if isinstance(value, str):
        return value
    if depth < 4 and isinstance(value, list) and value:
        return _sentence(value[0], depth + 1)
    if depth < 4 and isinstance(value, dict):
        for name in ("message", "msg", "error", "detail", "data"):
            found = _sentence(value.get(name), depth + 1)
            if found:
                return found
    return ""


def _words(error: Mapping[str, Any]) -> Iterator[str]:
    metadata = _mapping(error.get("metadata"))
    details = error.get("details")
    places = [error, metadata, *map(_mapping, details if isinstance(details, list) else [])]
    for place in places:
        for name in ("code", "type", "status", "reason", "error_type", "limit_source"):
            word = place.get(name)
            if isinstance(word, str | int) and _WORD.fullmatch(str(word)):
                yield str(word).lower()
    if metadata.get("reasons") or metadata.get("flagged_input"):
        yield MODERATED
    elif metadata.get("provider_name"):
        yield UPSTREAM


def _code(error: Mapping[str, Any]) -> str | None:
    """The error's own word, if it is a word, no sentence and no key; one of letters before a number."""
    told = [str(error.get(name) or "") for name in ("code", "type", "status")]
    fit = [word for word in told if _CODE.fullmatch(word) and not _LIKE_A_KEY.search(word)]
    return next((word for word in fit if not word.isdigit()), fit[0] if fit else None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
