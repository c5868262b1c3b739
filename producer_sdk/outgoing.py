"""A message to publish, and its form in AMQP 0-9-1.

The frames are written here and not by pamqp: publishing is the hot path of every process, and the general
way takes five times as long. The form is that of the specification, sections 2.3.5 and 4.2:
https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pamqp import encode

from topology.wire import CONTENT_TYPE

_END: Final = b"\xce"
_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME: Final = struct.Struct(">BHI")
_PUBLISH: Final = struct.pack(">HHH", 60, 40, 0)  # class basic, method publish, a reserved field
_CONTENT: Final = struct.Struct(">HHQH")
_SHORTEST_TOO_LONG: Final = 256

# The bits that say which properties are there; they follow in this order.
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 13, 1 << 12
_CORRELATION_ID, _REPLY_TO, _MESSAGE_ID, _TYPE, _APP_ID = 1 << 10, 1 << 9, 1 << 7, 1 << 5, 1 << 3


@dataclass(frozen=True)
class Outgoing:
    """A message to publish.

    Attributes:
        correlation_id: The request's id, stable over retransmissions.
        mandatory: Whether a message that no queue takes is returned.
        type: What kind of message it is, where a queue holds several.
    """

    exchange: str
    routing_key: str
    body: bytes
    correlation_id: str | None = None
    reply_to: str | None = None
    app_id: str | None = None
    persistent: bool = True
    mandatory: bool = True
    headers: Mapping[str, Any] | None = None
    type: str | None = None

    def frames(self, channel: int, message_id: str, largest_bytes: int) -> bytes:
        """All frames that publish it.

        Args:
            channel: The channel's number.
            message_id: New for each transmission.
            largest_bytes: How much of the body fits into a frame.

        Raises:
            ValueError: A property is longer than 255 bytes, or cannot be sent.
        """
        method = b"%b%b%b%c" % (_PUBLISH, _short(self.exchange), _short(self.routing_key), self.mandatory)
        properties = self._properties(message_id)
        return b"".join(
            (
                _frame(_METHOD, channel, method),
                _frame(_HEADER, channel, properties),
                *(_frame(_BODY, channel, part) for part in self._parts(largest_bytes)),
            )
        )

    def _properties(self, message_id: str) -> bytes:
        flags = _CONTENT_TYPE | _DELIVERY_MODE | _MESSAGE_ID
        values = [_CONTENT_TYPE_BYTES]
        if self.headers:
            flags |= _HEADERS
            values.append(encode.field_table(dict(self.headers)))
        values.append(b"\x02" if self.persistent else b"\x01")
        for flag, value in (
            (_CORRELATION_ID, self.correlation_id),
            (_REPLY_TO, self.reply_to),
            (_MESSAGE_ID, message_id),
            (_TYPE, self.type),
            (_APP_ID, self.app_id),
        ):
            if value is not None:
                flags |= flag
                values.append(_short(value))
        return b"".join((_CONTENT.pack(60, 0, len(self.body), flags), *values))

    def _parts(self, largest_bytes: int) -> Iterator[bytes]:
        if len(self.body) <= largest_bytes:
            if self.body:
                yield self.body
            return
        for start in range(0, len(self.body), largest_bytes):
            yield self.body[start : start + largest_bytes]


def ack_frame(channel: int, tag: int) -> bytes:
    """The frame that acknowledges one delivery."""
    return _frame(_METHOD, channel, _ACK.pack(60, 80, tag, 0))


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%b%b%b" % (_FRAME.pack(kind, channel, len(payload)), payload, _END)


def _short(text: str) -> bytes:
    raw = text.encode("utf-8")
    if len(raw) >= _SHORTEST_TOO_LONG:
        raise ValueError(f"an AMQP property or name holds at most 255 bytes, not {len(raw)}")
    return b"%c%b" % (len(raw), raw)


_ACK: Final = struct.Struct(">HHQB")
_CONTENT_TYPE_BYTES: Final = _short(CONTENT_TYPE)
