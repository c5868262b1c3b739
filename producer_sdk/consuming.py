"""Consuming from RabbitMQ: any number of queues on one supervised connection."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import aiormq
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from producer_sdk.channel import LeanChannel
from producer_sdk.connecting import ANSWER_S, AWAY
from producer_sdk.supervision import Supervised
from topology import names

log = logging.getLogger("optimizer.transport")

DECLARE_TIMEOUT_S: Final = 10.0
_CANNOT_STAND: Final = (
    aiormq.exceptions.ChannelNotFoundEntity,
    aiormq.exceptions.ChannelLockedResource,
    aiormq.exceptions.ChannelPreconditionFailed,
    TimeoutError,
)
"""Its node is down, a dead connection still has it, or it stands otherwise; or its node is cut off, which
the others may take a minute to notice: until then nobody answers for it."""


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
        on_renamed: Called with the queue's next name where the broker does not let it stand under the one
            it has: a classic queue lives on one node, and nobody can have it while that node is down.
            None: it keeps its name.
        tag: The consumer's tag on the present channel; None while there is none.
    """

    queue: str
    prefetch: int
    on_delivery: Callable[[Delivery], None]
    declare: Callable[[Channel], Awaitable[object]] | None = None
    on_renamed: Callable[[str], None] | None = None
    tag: str | None = field(default=None, init=False)
    _first_name: str = field(default="", init=False)
    _renamed: int = field(default=0, init=False)

    def rename(self) -> None:
        """Gives the queue its next name, if it may have one."""
        if self.on_renamed is not None:
            self._first_name = self._first_name or self.queue
            self._renamed += 1
            self.queue = names.renamed(self._first_name, self._renamed)
            log.warning("queue renamed", extra={"queue": self.queue})
            self.on_renamed(self.queue)


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
            with self._or_the_next_channel(self._channel):
                await self._start(self._channel, subscription)

    async def drop(self, subscription: Subscription) -> None:
        """Stops consuming; what was delivered stays held until it is acknowledged."""
        self._subscriptions = [s for s in self._subscriptions if s is not subscription]
        tag, subscription.tag = subscription.tag, None
        if tag is not None and self._channel is not None:
            with self._or_the_next_channel(self._channel):
                await self._stop(self._channel, tag)

    @contextmanager
    def _or_the_next_channel(self, channel: LeanChannel) -> Iterator[None]:
        """What does not succeed on this channel is up to the next one: this one is gone, or is given up.

        A node that was cut off from the others, and is back, has been seen to owe an answer for ever, on a
        line that was well.
        """
        try:
            yield
        except TimeoutError:
            if channel is self._channel:
                log.warning("no answer, connecting anew", extra={"connection": self.name})
                self._give_up()
        except AWAY:
            pass

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
                await self._declare(channel, subscription.declare)
            async with asyncio.timeout(ANSWER_S):
                await channel.basic_qos(prefetch_count=subscription.prefetch)
                subscription.tag = await channel.listen(subscription.queue, take)
        if subscription not in self._subscriptions and subscription.tag is not None:
            await self._stop(channel, subscription.tag)  # dropped while it was being started

    async def _stop(self, channel: LeanChannel, tag: str) -> None:
        async with asyncio.timeout(ANSWER_S):
            await channel.stop_listening(tag)

    async def _declare(self, channel: LeanChannel, declare: Callable[[Channel], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(DECLARE_TIMEOUT_S):
                await declare(channel)
        except _CANNOT_STAND as error:
            if "no exchange" not in str(error):
                for own in self._subscriptions:  # they were declared together, so they are on one node
                    own.rename()
            raise

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
