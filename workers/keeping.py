"""Copies for people, in `dead.kept`: what came to no good end, from where, and why."""

import hashlib
import time
from contextlib import suppress
from typing import Any, Final

from producer_sdk.transport import Delivery, Outgoing
from topology import names
from topology.messages import Waiter
from topology.wire import MAX_MESSAGE_BYTES

_LONGEST: Final = 1000
"""Characters of a header: they all must fit into one frame."""
_ID_DIGITS: Final = 12


def kept(
    queue: str,
    body: bytes,
    reason: str,
    *,
    delivery: Delivery | None = None,
    waiter: Waiter | None = None,
    deaths: int = 0,
) -> Outgoing:
    """A copy for people of what came from `queue`, with the reason and all that leads back there.

    Its id is made from the message: a copy that is made twice, since its maker died in between, has one id.

    Args:
        queue: Where it was to be worked on.
        body: Cut to what a message may hold.
        reason: A sentence for people.
        delivery: Whose properties say who sent it; None: they are not at hand.
        waiter: Whose request it is, where the body told; it outweighs the properties.
        deaths: How often a queue gave it up.
    """
    headers: dict[str, Any] = {
        "x-id": _id_of(queue, body, delivery),
        "x-reason": reason,
        "x-queue": queue,
        "x-kept-at": int(time.time()),  # AMQP clients write a float in four bytes: minutes would be lost
    }
    if deaths:
        headers["x-deaths"] = deaths
    if delivery is not None:
        headers |= _said(delivery)
    if waiter is not None:
        headers |= {"x-agent": waiter.agent, "x-request-id": waiter.id}
    fit = {name: _fit(value) if isinstance(value, str) else value for name, value in headers.items()}
    return Outgoing("", names.DEAD_KEPT_QUEUE, body[:MAX_MESSAGE_BYTES], headers=fit)


def _said(delivery: Delivery) -> dict[str, Any]:
    """What its sender said beside the body, so that it can be sent again."""
    properties = delivery.properties
    said = {
        "x-routing-key": delivery.routing_key,
        "x-request-id": properties.correlation_id,
        "x-reply-to": properties.reply_to,
        "x-type": properties.message_type,
    }
    with suppress(ValueError):  # then it is no agent's routing key
        said["x-agent"] = names.speaker_of(delivery.routing_key)[1]
    return {name: value for name, value in said.items() if value}


def _fit(text: str) -> str:
    return text[:_LONGEST].encode("utf-8", "replace").decode("utf-8")


def _id_of(queue: str, body: bytes, delivery: Delivery | None) -> str:
    about: tuple[Any, ...] = (queue,)
    if delivery is not None:
        properties = delivery.properties
        # Not the headers that tell how often it was handed out: those grow each time.
        about += (delivery.routing_key, properties.message_id, (properties.headers or {}).get("x-death"))
    return hashlib.sha256(ascii(about).encode() + body).hexdigest()[:_ID_DIGITS]
