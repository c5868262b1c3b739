"""The supervised connections to RabbitMQ: one that publishes, confirmed, and one that consumes.

Publishing and consuming have connections of their own, since a broker under an alarm stops reading from
connections that publish, and acknowledgements would stall with them. Each reconnects by itself, for
ever, with growing back-off. Nothing is replayed behind the caller's back: a publish whose confirm never
came is reported as `LOST`, and whoever published decides.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import aiormq
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from producer_sdk.channel import Confirmed, LeanChannel
from producer_sdk.outgoing import Outgoing
from producer_sdk.supervision import AWAY, Supervised
from topology.wire import MAX_MESSAGE_BYTES

__all__ = ["Delivery", "OnPublished", "Outgoing", "Published", "Publisher", "Subscriber", "Subscription"]

log = logging.getLogger("optimizer.transport")

PUBLISH_TIMEOUT_S: Final = 30.0
_SWEEP_S: Final = 1.0


class Published(Enum):
    """What became of a publish."""

    CONFIRMED = auto()
    """The broker has taken responsibility for it."""
    RETURNED = auto()
    """No queue takes this routing key."""
    REFUSED = auto()
    """The broker said no."""
    NOWHERE = auto()
    """The channel was closed since an exchange is missing; perhaps not the one of this message."""
    LOST = auto()
    """Nobody knows: the connection was lost, or no confirm came in time."""


OnPublished = Callable[[Published], None]


class Publisher(Supervised):
    """Publishes with confirms, pipelined: any number of publishes may wait for theirs at once."""

    confirms = True

    def __init__(self, url: str, name: str, on_reconnect: Callable[[], None] | None = None) -> None:
        super().__init__(url, f"{name} publishing")
        self._on_reconnect = on_reconnect
        self._waiting: dict[int, tuple[float, OnPublished]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def _opened(self, channel: LeanChannel) -> None:
        if self._on_reconnect is not None:
            asyncio.get_running_loop().call_soon(self._on_reconnect)

    def send(self, message: Outgoing, told: OnPublished, timeout: float = PUBLISH_TIMEOUT_S) -> None:
        """Publishes once on the connection at hand, and tells what became of it, once, later.

        Args:
            message: What to publish.
            told: Called with the outcome; `LOST` where there is no connection.
            timeout: Seconds after which a broker that has not answered counts as lost.

        Raises:
            ValueError: The body is larger than any message may be; it would close the channel for everybody.
        """
        if len(message.body) > MAX_MESSAGE_BYTES:
            raise ValueError(f"{len(message.body)} bytes are more than the limit of {MAX_MESSAGE_BYTES}")
        channel, loop = self._channel, asyncio.get_running_loop()
        if channel is None or channel.is_closed or not self._up.is_set():
            loop.call_soon(told, Published.LOST)
            return

        def on_confirmed(word: Confirmed) -> None:
            if self._waiting.pop(tag, None):
                told(_WORDS[word])

        tag = channel.send(message, on_confirmed)
        self._waiting[tag] = (loop.time() + timeout, told)
        if self._timer is None:
            self._timer = loop.call_later(_SWEEP_S, self._sweep)

    async def publish(self, message: Outgoing, timeout: float = PUBLISH_TIMEOUT_S) -> Published:
        """Publishes once and waits for the broker's word, at most `timeout` seconds; as `send` otherwise."""
        if not self._up.is_set() and not await self.wait_until_up(timeout):
            return Published.LOST
        outcome: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self.send(message, lambda word: None if outcome.done() else outcome.set_result(word), timeout)
        return await outcome

    def _sweep(self) -> None:
        """Ends the wait for confirms that are overdue, however long the connection lives."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for tag, (until, told) in list(self._waiting.items()):
            if until <= now:
                del self._waiting[tag]
                if self._channel is not None:
                    self._channel.forget(tag)
                told(Published.LOST)
        if self._waiting:
            self._timer = loop.call_later(_SWEEP_S, self._sweep)

    def _lost(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        missing = isinstance(self._closed_by, aiormq.exceptions.ChannelNotFoundEntity)
        lost_as = Published.NOWHERE if missing else Published.LOST
        for _, told in waiting.values():
            told(lost_as)


_WORDS: Final = {
    Confirmed.ACK: Published.CONFIRMED,
    Confirmed.NACK: Published.REFUSED,
    Confirmed.RETURNED: Published.RETURNED,
}


@dataclass(eq=False)
class Delivery:
    """A message that was handed to us and must be acknowledged.

    After its channel is lost it is only a copy: the broker hands the message out again, and acknowledging
    does nothing.
    """

    body: bytes
    exchange: str
    routing_key: str
    queue: str
    redelivered: bool
    properties: Basic.Properties
    _tag: int
    _channel: LeanChannel = field(repr=False)
    _settled: bool = field(default=False, init=False)

    @property
    def is_held(self) -> bool:
        """Whether the broker still counts it as ours."""
        return not self._settled and not self._channel.is_closed

    def ack(self) -> None:
        """Done with; the broker forgets it. A second word on the same delivery is not sent."""
        if self.is_held:
            self._settled = True
            self._channel.acknowledge(self._tag)

    def give_back(self) -> None:
        """Not started; the broker hands it out again."""
        if self.is_held:
            self._settled = True
            self._channel.give_back(self._tag)


@dataclass(eq=False)
class Subscription:
    """A consumer of one queue, started again on every new channel until it is dropped.

    Attributes:
        prefetch: The most deliveries held unacknowledged.
        on_delivery: Called in order of arrival; must not wait.
        declare: Called with the channel before consuming, for a queue of the consumer's own.
        tag: The consumer's tag on the present channel; None while there is none.
    """

    queue: str
    prefetch: int
    on_delivery: Callable[[Delivery], None]
    declare: Callable[[Channel], Awaitable[object]] | None = None
    tag: str | None = field(default=None, init=False)


class Subscriber(Supervised):
    """Consumes any number of queues, each with a prefetch of its own, with manual acknowledgement."""

    def __init__(
        self,
        url: str,
        name: str,
        on_lost: Callable[[], None] | None = None,
        on_reconnect: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(url, f"{name} consuming")
        self._on_lost = on_lost
        self._on_reconnect = on_reconnect
        self._subscriptions: list[Subscription] = []
        self._lock = asyncio.Lock()

    async def add(self, subscription: Subscription) -> None:
        """Consumes from now on; on the channel at hand, if there is one."""
        self._subscriptions.append(subscription)
        if self._channel is not None and self.is_up:
            with suppress(*AWAY):  # the channel is gone: the next one starts it
                await self._start(self._channel, subscription)

    async def drop(self, subscription: Subscription) -> None:
        """Stops consuming; what was delivered stays held until it is acknowledged."""
        self._subscriptions = [s for s in self._subscriptions if s is not subscription]
        tag, subscription.tag = subscription.tag, None
        if tag is not None and self._channel is not None:
            with suppress(*AWAY):
                await self._channel.stop_listening(tag)

    async def _opened(self, channel: LeanChannel) -> None:
        channel.on_consumer_cancel_callbacks.add(self._cancelled_by_broker)
        while waiting := [s for s in self._subscriptions if s.tag is None]:
            await self._start(channel, waiting[0])  # others may be added or dropped meanwhile
        if self._on_reconnect is not None:
            asyncio.get_running_loop().call_soon(self._on_reconnect)

    async def _start(self, channel: LeanChannel, subscription: Subscription) -> None:
        def take(message: DeliveredMessage) -> None:
            subscription.on_delivery(_delivery(message, subscription.queue, channel))

        async with self._lock:  # prefetch holds for the consumers that are started after it
            if subscription.declare is not None:
                await subscription.declare(channel)
            await channel.basic_qos(prefetch_count=subscription.prefetch)
            subscription.tag = await channel.listen(subscription.queue, take)
        if subscription not in self._subscriptions and subscription.tag is not None:
            await channel.stop_listening(subscription.tag)  # dropped while it was being started

    async def _cancelled_by_broker(self, _: object) -> None:
        # A queue was deleted, or a consumer timed out: counted as a lost channel, so that
        # everything starts again from what the broker says.
        if self._channel is not None:
            asyncio.get_running_loop().create_task(self._channel.close(), name="close cancelled channel")

    def _lost(self) -> None:
        for subscription in self._subscriptions:
            subscription.tag = None
        if self._on_lost is not None:
            self._on_lost()


def _delivery(message: DeliveredMessage, queue: str, channel: LeanChannel) -> Delivery:
    tag = message.delivery_tag
    assert tag is not None, "a delivery has a tag"  # noqa: S101 - for the type checker; AMQP says so
    return Delivery(
        body=bytes(message.body),
        exchange=message.exchange or "",
        routing_key=message.routing_key or "",
        queue=queue,
        redelivered=bool(message.redelivered),
        properties=message.header.properties,
        _tag=tag,
        _channel=channel,
    )
