"""Reading the body of a call."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

_NO_PART_OF_THE_PROMPT = frozenset({"stream", "stream_options", "user", "metadata"})


class InvalidBodyError(ValueError):
    """The body is no call that the provider understands.

    Args:
        message: What is wrong, for the caller.
        param: The field that is wrong, if one is.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A chat completion as asked for."""

    model: str
    sha256: str
    prompt_tokens: int
    max_tokens: int | None
    echo: str
    """First 16 hexadecimal digits of the SHA-256 of the last user message's text."""
    stream: bool
    include_usage: bool
    as_json: bool
    tool: str | None
    """The function that must be called, if one must."""
    params: frozenset[str]
    """Names of all that the body sets."""


@dataclass(frozen=True, slots=True)
class EmbeddingsPrompt:
    """Embeddings as asked for."""

    model: str
    sha256: str
    prompt_tokens: int
    inputs: tuple[str, ...]
    dimensions: int
    as_base64: bool
    params: frozenset[str]
    """Names of all that the body sets."""


Prompt = ChatPrompt | EmbeddingsPrompt


def read_chat(raw: bytes) -> ChatPrompt:
    """Read the body of POST /v1/chat/completions.

    Raises:
        InvalidBodyError: It cannot be read.
    """
    body = _json_object(raw)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidBodyError("'messages' must be a list with at least one message.", "messages")
    if not all(isinstance(message, dict) for message in messages):
        raise InvalidBodyError("Each of 'messages' must be an object.", "messages")
    asked = [_text(message) for message in messages if message.get("role") == "user"]
    options = body.get("stream_options")
    answer_format = body.get("response_format")
    return ChatPrompt(
        model=_model(body),
        sha256=_sha256_of(body),
        prompt_tokens=_tokens("".join(_text(message) for message in messages)),
        max_tokens=_max_tokens(body),
        echo=hashlib.sha256((asked[-1] if asked else "").encode("utf-8", "surrogatepass")).hexdigest()[:16],
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        as_json=isinstance(answer_format, dict) and answer_format.get("type", "text") != "text",
        tool=_required_tool(body),
        params=_params(body),
    )


def read_embeddings(raw: bytes) -> EmbeddingsPrompt:
    """Read the body of POST /v1/embeddings.

    Raises:
        InvalidBodyError: It cannot be read.
    """
    body = _json_object(raw)
    given = body.get("input")
    if given in (None, "", []):
        raise InvalidBodyError("'input' must be a text or a list with at least one text.", "input")
    # A list of numbers is one text, already in tokens.
    many = isinstance(given, list) and not isinstance(given[0], int)
    inputs = tuple(_input_text(one) for one in (given if many else [given]))
    dimensions = body.get("dimensions", 8)
    if not isinstance(dimensions, int) or not 1 <= dimensions <= 4096:
        raise InvalidBodyError("'dimensions' must be an integer from 1 to 4096.", "dimensions")
    return EmbeddingsPrompt(
        model=_model(body),
        sha256=_sha256_of(body),
        prompt_tokens=_tokens("".join(inputs)),
        inputs=inputs,
        dimensions=dimensions,
        as_base64=body.get("encoding_format") == "base64",
        params=_params(body),
    )


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError as exc:
        raise InvalidBodyError("We could not parse the JSON body of your request.") from exc
    if not isinstance(body, dict):
        raise InvalidBodyError("The body of your request must be a JSON object.")
    return body


def _model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidBodyError("you must provide a model parameter", "model")
    return model


def _params(body: dict[str, Any]) -> frozenset[str]:
    return frozenset(name for name, value in body.items() if value is not None)


def _max_tokens(body: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is not None:
            if not isinstance(value, int) or value < 1:
                raise InvalidBodyError(f"'{name}' must be an integer of at least 1.", name)
            return value
    return None


def _required_tool(body: dict[str, Any]) -> str | None:
    tools, choice = body.get("tools"), body.get("tool_choice")
    if not tools or choice in (None, "none", "auto"):
        return None
    chosen = choice if isinstance(choice, dict) else tools[0]
    try:
        return str(chosen["function"]["name"])
    except (TypeError, KeyError) as exc:
        raise InvalidBodyError("A tool must be {'function': {'name': ...}}.", "tools") from exc


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _input_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _tokens(text: str) -> int:
    return max(1, len(text) // 4)


def _sha256_of(body: dict[str, Any]) -> str:
    prompt = {name: value for name, value in body.items() if name not in _NO_PART_OF_THE_PROMPT}
    canonical = json.dumps(prompt, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()
