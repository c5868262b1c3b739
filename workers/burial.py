"""What the broker says of a message in `dead`: where it was, and why it is there no more."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from producer_sdk.transport import Delivery
from topology import names

_WHY: Final = {
    "delivery_limit": "it was handed out as often as the queue's delivery limit allows, without an end",
    "expired": "its time to live ran out there",
    "rejected": "a worker rejected it there",
    "maxlen": "the queue was full",
}


@dataclass(frozen=True)
class Death:
    """How a message came to `dead`.

    Attributes:
        queue: Where it was, or was to go.
        exchange: Where it was published.
        cause: RabbitMQ's word for why; empty where the queue was missing.
        deaths: How often a queue has given it up, as far as the message tells.
        at: Epoch seconds of the last time; None: not told.
    """

    queue: str
    exchange: str
    cause: str
    deaths: int
    at: float | None

    @property
    def is_from_inside(self) -> bool:
        """Whether it was published on `optimizer.jobs`, where agents are not to publish.

        A sender can put an `x-death` of its own into a message, and RabbitMQ adds to that, so what it says
        is not enough: the routing key must be the queue's name, which no agent may publish with.
        """
        return self.exchange == names.JOBS

    def __str__(self) -> str:
        if not self.cause:
            return f"{self.queue or '(no name)'}: there is no such queue"
        when = f", {_instant(self.at)}" if self.at is not None else ""
        return f"{self.queue}: {_WHY.get(self.cause, self.cause)}{when}"


def death_of(delivery: Delivery) -> Death | None:
    """Reads it; None where nothing that can be believed says where the message was."""
    entries = (delivery.properties.headers or {}).get("x-death")
    listed = entries if isinstance(entries, list) else []
    told = [entry for entry in listed if isinstance(entry, dict)]
    deaths = sum(count for entry in told if isinstance(count := entry.get("count"), int) and count > 0)
    if delivery.exchange == names.JOBS:  # by way of its alternate exchange
        return Death(delivery.routing_key, names.JOBS, "", deaths, None)
    if delivery.exchange != names.DEAD or not told:
        return None
    last = told[0]
    queue, exchange, cause = (_text(last, name) for name in ("queue", "exchange", "reason"))
    if not queue or not cause:
        return None
    if exchange == names.JOBS and delivery.routing_key != queue:
        exchange = ""
    return Death(queue, exchange, cause, deaths, _epoch(last.get("time")))


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def _epoch(value: Any) -> float | None:
    timestamp = getattr(value, "timestamp", None)
    return float(timestamp()) if callable(timestamp) else None


def _instant(epoch_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch_s))
