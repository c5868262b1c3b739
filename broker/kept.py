"""The copies in `dead.kept`, to be looked at, and taken away one by one.

RabbitMQ has no way to look at a queue: what is shown is handed out and given back, in order, to its place.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import aiormq
from aiormq.abc import DeliveredMessage

from broker.declaring import BrokerAway, TopologyError
from producer_sdk.connecting import AWAY, CONNECT_TIMEOUT_S, connected
from producer_sdk.settings import masked
from topology import names

_IDLE_S: Final = 2.0
_POLL_S: Final = 0.002
_AT_ONCE: Final = 32
_MOST_HELD: Final = 65_535


@dataclass(frozen=True)
class Copy:
    """A copy for people.

    Attributes:
        id: Short; the same for copies of one message.
        queue: Where it was to be worked on.
        reason: Why it is here, and what was done about it.
        kept_at: Epoch seconds; None: not told.
        headers: All of them.
        body: Empty unless it was asked for.
        size_bytes: The body's.
        tag: By which RabbitMQ knows it as long as the queue is open here.
    """

    id: str
    queue: str
    reason: str
    kept_at: float | None
    agent: str | None
    request_id: str | None
    size_bytes: int
    headers: Mapping[str, Any]
    body: bytes
    tag: int


class KeptCopies:
    """The queue, open. Whatever was read and not removed is given back when it closes."""

    def __init__(self, channel: aiormq.Channel) -> None:
        self._channel = channel
        self._held: list[int] = []

    async def read(self, *, with_body: Callable[[Copy], bool] = lambda _: False) -> list[Copy]:
        """All copies, oldest first, but those that somebody else is looking at right now.

        All of them are taken: what comes back goes behind what came back before, so that a part of them
        would change places with the rest.

        Args:
            with_body: Asked of each; the others' bodies are forgotten at once.
        """
        wanted = min(await self._ready(), _MOST_HELD)
        if not wanted:
            return []
        copies: list[Copy] = []
        came = asyncio.Event()

        async def take(message: DeliveredMessage) -> None:
            copies.append(_copy_of(message, with_body))
            came.set()

        await self._channel.basic_qos(prefetch_count=wanted)
        consuming = await self._channel.basic_consume(names.DEAD_KEPT_QUEUE, take)
        with suppress(TimeoutError):  # somebody else is faster
            while len(copies) < wanted:
                came.clear()
                async with asyncio.timeout(_IDLE_S):
                    await came.wait()
        if consuming.consumer_tag is not None:
            await self._channel.basic_cancel(consuming.consumer_tag)
        copies.sort(key=lambda copy: copy.tag)
        self._held = [copy.tag for copy in copies]
        return copies

    async def remove(self, copy: Copy) -> None:
        """Takes one away for good."""
        await self._channel.basic_ack(copy.tag)
        self._held.remove(copy.tag)

    async def give_back(self) -> None:
        """Puts the others back in their places.

        A few at a time, each confirmed by the queue's depth: RabbitMQ 3.10 keeps those of one command in a
        map, and a map of more than 32 in no order.
        """
        held, self._held = self._held, []
        ready = await self._ready() if held else 0
        for start in range(0, len(held), _AT_ONCE):
            batch = held[start : start + _AT_ONCE]
            await self._channel.basic_nack(batch[-1], multiple=True, requeue=True)
            ready += len(batch)
            with suppress(TimeoutError):  # somebody else takes them
                async with asyncio.timeout(_IDLE_S):
                    while await self._ready() < ready:  # noqa: ASYNC110 - a queue tells its depth when asked
                        await asyncio.sleep(_POLL_S)

    async def _ready(self) -> int:
        declared = await self._channel.queue_declare(names.DEAD_KEPT_QUEUE, passive=True)
        return declared.message_count or 0


@asynccontextmanager
async def kept_copies(amqp_url: str) -> AsyncIterator[KeptCopies]:
    """Opens the queue.

    Raises:
        BrokerAway: RabbitMQ cannot be reached, or was lost; what was not removed is still there.
        TopologyError: There is no such queue.
    """
    try:
        async with connected(amqp_url, CONNECT_TIMEOUT_S) as connection:
            opened = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
            copies = KeptCopies(opened)  # type: ignore[arg-type]  # aio_pika's word for aiormq's class
            try:
                yield copies
            finally:
                await copies.give_back()
                await opened.close()
    except aiormq.exceptions.ChannelNotFoundEntity as error:
        raise TopologyError(f"{names.DEAD_KEPT_QUEUE}: missing; run: optimizer topology apply") from error
    except AWAY as error:
        why = f"{type(error).__name__}: {error}"
        raise BrokerAway(f"RabbitMQ at {masked(amqp_url)} cannot be reached ({why})") from error


def _copy_of(message: DeliveredMessage, with_body: Callable[[Copy], bool]) -> Copy:
    headers = dict(message.header.properties.headers or {})
    copy = Copy(
        id=_text(headers, "x-id") or hashlib.sha256(message.body).hexdigest()[:12],
        queue=_text(headers, "x-queue") or _text(headers, "x-first-death-queue") or "",
        reason=_text(headers, "x-reason") or "put here by RabbitMQ: it was handed out of dead too often",
        kept_at=_epoch(headers.get("x-kept-at")),
        agent=_text(headers, "x-agent"),
        request_id=_text(headers, "x-request-id"),
        size_bytes=len(message.body),
        headers=headers,
        body=bytes(message.body),
        tag=message.delivery_tag or 0,
    )
    return copy if with_body(copy) else replace(copy, body=b"")


def _text(headers: Mapping[str, Any], name: str) -> str | None:
    value = headers.get(name)
    return value if isinstance(value, str) else None


def _epoch(value: Any) -> float | None:
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, (int, float)) else None
