"""AMQP properties that cannot be read are no reason to lose the connection.

pamqp raises where a short string is no UTF-8, a timestamp lies beyond the year 9999 (one in nanoseconds
does), or a table nests too deep. aiormq then closes the connection; the broker delivers the same message
again, with all others that were held, until their delivery limit is reached. RabbitMQ passes such
properties on as they are, so any client could do that to a worker, or to an agent.

With decoders that are total, text that is no UTF-8 gets replacement characters, and another value that
cannot be read counts as absent. What could be read before is read as before.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from pamqp import decode

_TIMESTAMP_BYTES: Final = 8
_LENGTH_BYTES: Final = 4

_Decoder = Callable[[bytes], tuple[int, Any]]


def make_decoding_total() -> None:
    """Has pamqp read every property, in this process; doing it again changes nothing."""
    decode.METHODS.update(_TOTAL)


def _short_str(value: bytes) -> tuple[int, str]:
    end = 1 + value[0]
    return end, value[1:end].decode("utf-8", "replace")


def _timestamp(value: bytes) -> tuple[int, datetime | None]:
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return _TIMESTAMP_BYTES, None


def _table(value: bytes) -> tuple[int, Any]:
    try:
        return decode.field_table(value)
    except (ValueError, OverflowError, OSError, RecursionError):
        return _LENGTH_BYTES + int.from_bytes(value[:_LENGTH_BYTES], "big"), None


_TOTAL: Final[dict[str, _Decoder]] = {"shortstr": _short_str, "timestamp": _timestamp, "table": _table}
