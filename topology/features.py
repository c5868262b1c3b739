"""Features: what a request asks of a model that one model has and another lacks.

A feature is a short text without blanks, fit for Redis, events and people:

- `model`: the model itself. Every request uses it.
- `tools`, `logprobs`: a parameter of the OpenAI body, whatever its value.
- `temperature=0.2`, `response_format=json_schema`: a parameter with this value, or of this type.
- `images`, `audio`, `video`, `files`: what messages hold beside text. `role=system` is a message's role,
  `messages.reasoning` a field that messages have beside the usual ones.
- `prompt_tokens>131072`, `max_tokens>4096`, `n>1`: more of something than this.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final

from topology.estimates import answer_bound, estimated_tokens
from topology.messages import Request

MODEL: Final = "model"

_NO_FEATURES: Final = frozenset(
    {"model", "messages", "input", "stream", "stream_options", "user", "metadata"}
)
"""What every request has, what is not sent, and what only says who asks."""
_VALUED: Final = frozenset(
    {
        "dimensions", "encoding_format", "frequency_penalty", "n", "parallel_tool_calls", "presence_penalty",
        "reasoning_effort", "response_format", "service_tier", "temperature", "tool_choice", "top_p",
        "verbosity",
    }
)  # fmt: skip
"""Of these a model may know some values and lack others. None of them holds a word of the prompt."""
_PARTS: Final = {"image_url": "images", "input_audio": "audio", "video_url": "video", "file": "files"}
_USUAL: Final = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_WORD: Final = re.compile(r"[A-Za-z0-9_.+-]{1,40}")
_SURELY: Final = 1.25
"""A prompt's length is an estimate: it counts as too long when it is by this factor longer than allowed."""


class Used:
    """The features that a request uses: `"tools" in Used(request)`. Each is found out once, when asked."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._sizes: dict[str, float] = {}

    def __contains__(self, feature: str) -> bool:
        """Whether the request uses it; what this release does not know is used by none."""
        name, more, most = feature.partition(">")
        if not more:
            return feature in self.named
        if name not in _MEASURES or not most.isdigit():
            return False
        if name not in self._sizes:
            self._sizes[name] = _MEASURES[name](self._request)
        return self._sizes[name] > int(most)

    @cached_property
    def named(self) -> frozenset[str]:
        """All of them, but for those with a `>`, which are without number."""
        params = self._request.params
        asked = {
            n: v for n, v in params.items() if n not in _NO_FEATURES and _NAME.fullmatch(n) and _is_set(v)
        }
        valued = {f"{name}={word}" for name, v in asked.items() if name in _VALUED and (word := _word(v))}
        messages = params.get("messages")
        said = {f for m in (messages if isinstance(messages, list | tuple) else ()) for f in _of_message(m)}
        return frozenset({MODEL, *asked, *valued, *said})

    def told(self, features: Iterable[str]) -> list[str]:
        """Of the features that an error is about those that the request uses.

        `temperature=` is about a value that the error does not name: it becomes the request's own.
        """
        return sorted(feature for feature in map(self._with_value, features) if feature in self)

    def _with_value(self, feature: str) -> str:
        name, is_value, value = feature.partition("=")
        return feature + _word(self._request.params.get(name)) if is_value and not value else feature


def _is_set(value: Any) -> bool:
    """Whether a parameter asks for anything: `false` and what is empty do not."""
    return value is not None and value is not False and value != [] and value != {} and value != ""


def _word(value: Any) -> str:
    """A parameter's value, or its type where it is an object; empty where it is no single word."""
    if isinstance(value, dict):
        value = value.get("type")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, str | int | float) else ""
    return text.lower() if _WORD.fullmatch(text) else ""


def _of_message(message: Any) -> Iterator[str]:
    if not isinstance(message, dict):
        return
    if role := _word(message.get("role")):
        yield f"role={role}"
    content = message.get("content")
    for part in content if isinstance(content, list | tuple) else ():
        if isinstance(part, dict) and (kind := _PARTS.get(str(part.get("type")))):
            yield kind
    for field, value in message.items():
        if field not in _USUAL and isinstance(field, str) and _NAME.fullmatch(field) and _is_set(value):
            yield f"messages.{field}"


def _choices(request: Request) -> float:
    n = request.params.get("n")
    return n if isinstance(n, int) else 1


_MEASURES: Final[Mapping[str, Callable[[Request], float]]] = {
    "prompt_tokens": lambda request: estimated_tokens(request)[0] / _SURELY,
    "max_tokens": lambda request: answer_bound(request) or 0,
    "n": _choices,
}
