"""How messages travel: msgpack, schema version 1, within bounds on size and depth.

Readers ignore fields they do not know, so that an older worker can run beside a newer agent; a field
is never given another meaning under the same version.
"""

from typing import Any, ClassVar, Final, Self

import msgpack
from pydantic import BaseModel, ConfigDict, ValidationError

from topology.errors import ErrorType, Refused

VERSION: Final = 1
CONTENT_TYPE: Final = "application/msgpack"
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""The largest request, and the largest answer."""

MAX_MESSAGE_BYTES: Final = MAX_BODY_BYTES + 256 * 1024
"""The largest message: a request or an answer with what the house puts around it."""

_MAX_DEPTH: Final = 64
"""How deep params may nest; deeper input is refused before anything recurses into it."""

_UNICODE: Final = "surrogatepass"
"""JSON can carry half an emoji (`\\ud83d`), and models send some: an answer is not lost over it."""


class WireMessage(BaseModel):
    """The base of all that is published: to bytes and back, with the version checked."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    kind: ClassVar[str] = "message"
    max_bytes: ClassVar[int] = MAX_MESSAGE_BYTES
    v: int = VERSION

    def to_bytes(self) -> bytes:
        """The body as it is published.

        Raises:
            Refused: The body is larger than `max_bytes`, or holds what cannot be sent.
        """
        try:
            body: bytes = msgpack.packb(self.model_dump(mode="python"), unicode_errors=_UNICODE)
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
        return cls.from_value(unpack(body, cls.kind))

    @classmethod
    def from_value(cls, value: dict[str, Any]) -> Self:
        """Reads an unpacked body; errors as for `from_bytes`."""
        if value.get("v", VERSION) != VERSION:
            raise Refused(
                ErrorType.INVALID_REQUEST,
                f"{cls.kind}: version v={value.get('v')!r} is not {VERSION}; use an SDK of this release",
            )
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or cls.kind
            raise Refused(ErrorType.INVALID_REQUEST, f"{cls.kind}: {field}: {first['msg']}") from None


def unpack(body: bytes, kind: str = "message") -> dict[str, Any]:
    """A msgpack body as a dictionary, within bounds on size and depth.

    Raises:
        Refused: It is not a msgpack map within those bounds.
    """
    _check_size(body, kind, MAX_MESSAGE_BYTES)
    try:
        value = msgpack.unpackb(body, raw=False, strict_map_key=False, unicode_errors=_UNICODE)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Refused(
            ErrorType.INVALID_REQUEST, f"{kind}: the body is not msgpack ({type(error).__name__})"
        ) from None
    if not isinstance(value, dict):
        raise Refused(ErrorType.INVALID_REQUEST, f"{kind}: the body is no map but {type(value).__name__}")
    if _deeper_than(value, _MAX_DEPTH):
        raise Refused(ErrorType.INVALID_REQUEST, f"{kind}: nested deeper than {_MAX_DEPTH} levels")
    return value


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
