"""How messages travel: msgpack, schema version 1, within bounds on size and depth.

Readers ignore fields they do not know, so that an older worker can run beside a newer agent; a field
is never given another meaning under the same version.
"""

from collections.abc import Callable, Sized
from typing import Any, ClassVar, Final, Self, TypeVar

import msgpack
from pydantic import BaseModel, ConfigDict, ValidationError

from topology.errors import ErrorType, Refused

_C = TypeVar("_C", bound=Sized)

VERSION: Final = 1
CONTENT_TYPE: Final = "application/msgpack"
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""The largest request, and the largest answer."""

MAX_MESSAGE_BYTES: Final = MAX_BODY_BYTES + 256 * 1024
"""The largest message: a request or an answer with what the house puts around it."""

_MAX_DEPTH: Final = 64
"""How deep params may nest; deeper input is refused before anything recurses into it."""

_LONGEST_QUOTE: Final = 100
"""How much of what was sent an error repeats."""

_UNICODE: Final = "surrogatepass"
"""JSON can carry half an emoji (`\\ud83d`), and models send some: an answer is not lost over it."""


class WireMessage(BaseModel):
    """The base of all that is published: to bytes and back, with the version checked."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    kind: ClassVar[str] = "message"
    max_bytes: ClassVar[int] = MAX_MESSAGE_BYTES
    max_values: ClassVar[int | None] = None
    v: int = VERSION

    def to_bytes(self) -> bytes:
        """The body as it is published.

        Raises:
            Refused: The body is larger than `max_bytes`, or holds what cannot be sent.
        """
        try:
            body: bytes = msgpack.packb(self, default=_fields, unicode_errors=_UNICODE)
        except (TypeError, ValueError, OverflowError) as error:
            raise Refused(
                ErrorType.INVALID_REQUEST, f"{self.kind}: only what JSON can carry can be sent ({error})"
            ) from None
        _check_size(body, self.kind, self.max_bytes)
        return body

    @classmethod
    def from_bytes(cls, body: bytes) -> Self:
        """Reads a body.

        Raises:
            Refused: It is no msgpack, too large, of an unknown version or of a wrong shape; the text
                names the field and the remedy.
        """
        _check_size(body, cls.kind, cls.max_bytes)
        return cls.from_value(unpack(body, cls.kind, cls.max_values))

    @classmethod
    def from_value(cls, value: dict[str, Any]) -> Self:
        """Reads an unpacked body; errors as for `from_bytes`."""
        if value.get("v", VERSION) != VERSION:
            version = _quoted(repr(value.get("v")))
            raise Refused(
                ErrorType.INVALID_REQUEST,
                f"{cls.kind}: version v={version} is not {VERSION}; use an SDK of this release",
            )
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = _quoted(".".join(str(part) for part in first["loc"])) or cls.kind
            raise Refused(ErrorType.INVALID_REQUEST, f"{cls.kind}: {field}: {first['msg']}") from None


def unpack(body: bytes, kind: str = "message", max_values: int | None = None) -> dict[str, Any]:
    """A msgpack body as a dictionary, within bounds on size and depth, and on the number of values.

    Raises:
        Refused: It is not a msgpack map within those bounds.
    """
    _check_size(body, kind, MAX_MESSAGE_BYTES)
    count = _count_to(max_values, kind) if max_values is not None else None
    try:
        value = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=False,
            unicode_errors=_UNICODE,
            list_hook=count,
            object_hook=count,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Refused(
            ErrorType.INVALID_REQUEST, f"{kind}: the body is not msgpack ({type(error).__name__})"
        ) from None
    if not isinstance(value, dict):
        raise Refused(ErrorType.INVALID_REQUEST, f"{kind}: the body is no map but {type(value).__name__}")
    if _deeper_than(value, _MAX_DEPTH):
        raise Refused(ErrorType.INVALID_REQUEST, f"{kind}: nested deeper than {_MAX_DEPTH} levels")
    return value


def _fields(value: object) -> dict[str, Any]:
    """What msgpack does not know by itself: our messages, and the values in them."""
    if isinstance(value, BaseModel):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    raise TypeError(f"a {type(value).__name__} is none of them")


def _quoted(text: str) -> str:
    """As much of it as an error repeats, fit to be sent."""
    short = text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."
    return short.encode("utf-8", "replace").decode("utf-8")


def _count_to(limit: int, kind: str) -> Callable[[_C], _C]:
    """Counts lists, maps and what is in them while they are made, so that too many are never all made."""
    left = limit

    def count(container: _C) -> _C:
        nonlocal left
        left -= 1 + len(container)
        if left < 0:
            raise Refused(
                ErrorType.INVALID_REQUEST,
                f"{kind}: more than {limit} lists, maps and values; send fewer, or send several requests",
            )
        return container

    return count


def _check_size(body: bytes, kind: str, most_bytes: int) -> None:
    if len(body) > most_bytes:
        raise Refused(
            ErrorType.INVALID_REQUEST,
            f"{kind}: {len(body)} bytes are more than the limit of {most_bytes}; "
            "send less text, or put attachments behind a URL",
        )


def _deeper_than(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(v for v in item.values() if isinstance(v, (dict, list)))
            elif isinstance(item, list):
                inner.extend(v for v in item if isinstance(v, (dict, list)))
        if not inner:
            return False
        level = inner
    return True
