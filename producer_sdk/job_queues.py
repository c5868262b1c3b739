"""The queues of durable requests' replies, on channels of their own: the broker may close those."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiormq import Channel
from aiormq.exceptions import ChannelNotFoundEntity

from producer_sdk.connecting import ANSWER_S, AWAY
from producer_sdk.core import REFUSED_AGAIN_S
from producer_sdk.durable import Taking
from producer_sdk.errors import OptimizerError
from producer_sdk.transport import Subscriber
from topology.declaration import JOB_REPLY_QUEUE_ARGUMENTS
from topology.messages import Reply

if TYPE_CHECKING:
    from aiormq.abc import DeliveredMessage

T = TypeVar("T")

_TAG: Final = "result"


class JobQueues:
    """Declares them and takes replies from them, on a subscriber's connection. Owns its tasks."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._tasks: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        """Ends what is under way; whoever waits for it is cancelled."""
        for task in self._tasks:
            task.cancel()

    def declare(self, queue: str, told: Callable[[str | None], None]) -> None:
        """Has the queue stand; `told` is given why it does not, or None, once."""

        async def declare() -> None:
            try:
                async with asyncio.timeout(ANSWER_S), self._subscriber.another_channel() as channel:
                    await channel.queue_declare(
                        queue, durable=True, arguments=dict(JOB_REPLY_QUEUE_ARGUMENTS)
                    )
            except AWAY as error:
                told(_why(error))
            else:
                told(None)

        self._own(declare(), f"declare {queue}")

    async def take(self, taking: Taking, *, keep: bool) -> Reply:
        """Takes the reply out of its queue, which goes with it; with `keep` both stay.

        Raises:
            OptimizerError: The reply is one, or there is none.
        """
        outcome = await self._own(self._look_until_it_ends(taking, keep), f"result {taking.id}")
        if isinstance(outcome, OptimizerError):
            raise outcome
        return outcome

    def _own(self, work: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look_until_it_ends(self, taking: Taking, keep: bool) -> Reply | OptimizerError:
        loop = asyncio.get_running_loop()
        while True:
            ended = None
            try:
                async with asyncio.timeout_at(taking.until) as limit:
                    await self._subscriber.wait_until_up()
                    async with self._subscriber.another_channel() as channel:
                        ended = await self._look(channel, taking, keep, limit)
            except ChannelNotFoundEntity as error:
                ended = taking.missing(str(error))
            except AWAY as error:
                if not self._subscriber.is_up:
                    taking.met(self._subscriber.why_down())
                elif not limit.expired():
                    taking.met(_why(error))
            if ended is None and taking.until <= loop.time():
                ended = taking.given_up(loop.time())
            if ended is not None:
                return ended
            await asyncio.sleep(min(REFUSED_AGAIN_S, max(0.0, taking.until - loop.time())))

    async def _look(
        self, channel: Channel, taking: Taking, keep: bool, limit: asyncio.Timeout
    ) -> Reply | OptimizerError | None:
        """One look on one channel; None when it has to be repeated on another."""
        async with asyncio.timeout(ANSWER_S):
            declared = await channel.queue_declare(taking.queue, passive=True)
            if ended := taking.found(declared.message_count or 0, asyncio.get_running_loop().time()):
                return ended
            limit.reschedule(taking.until)
            deliveries = await _consume(channel, taking.queue)
        while (delivery := await deliveries.get()) is not None:
            if not taking.read(bytes(delivery.body)):
                await channel.basic_ack(delivery.delivery_tag or 0)
                continue
            if not keep:
                async with asyncio.timeout(ANSWER_S):
                    await channel.basic_cancel(_TAG)
                    # Nothing before this takes it: whoever dies here leaves it to the next who asks.
                    await channel.queue_delete(taking.queue)
            return taking.taken()
        return None


async def _consume(channel: Channel, queue: str) -> "asyncio.Queue[DeliveredMessage | None]":
    """What is delivered, one at a time; then None, when nothing more can come."""
    deliveries: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()

    async def over(_: object) -> None:
        deliveries.put_nowait(None)

    channel.closing.add_done_callback(lambda _: deliveries.put_nowait(None))
    channel.on_consumer_cancel_callbacks.add(over)  # another process took the reply, and the queue with it
    await channel.basic_qos(prefetch_count=1)
    await channel.basic_consume(queue, deliveries.put, consumer_tag=_TAG)
    return deliveries


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
