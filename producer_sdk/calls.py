"""The asyncio driver: carries what the core decides, for any number of calls and agents at once."""

import asyncio
import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from aiormq import Channel

from producer_sdk.asking import Asked, request_message
from producer_sdk.carrying import Carrier, tell_waiting
from producer_sdk.core import FIRST_SILENCE_S, Answered, Failed, HandedOver, OnWait, Waits
from producer_sdk.durable import Submitted, Taking
from producer_sdk.errors import InvalidRequest
from producer_sdk.job_queues import JobQueues
from producer_sdk.transport import Delivery, Outgoing, Publisher, Subscriber, Subscription
from topology.declaration import REPLY_QUEUE_ARGUMENTS
from topology.messages import Reply, Request
from topology.names import Priority

_PREFETCH: Final = 500


@dataclass(eq=False)
class _Call:
    message: Outgoing
    durable: bool
    future: asyncio.Future[Answered | HandedOver]
    on_wait: OnWait | None
    on_the_way: bool = False


class AsyncCalls:
    """Publishes requests and waits for their replies on one callback queue.

    Entering starts the connections without waiting for them. Leaving cancels the calls that still wait:
    what was published is done all the same, and its answer is there for the next who asks.

    Args:
        url: RabbitMQ's URL.
        name: Names the connections, for RabbitMQ's own pages.
        reply_to: The callback queue, of a name that is this client's alone; declared here. It has another
            name once its node in a cluster is down.
    """

    def __init__(self, url: str, name: str, reply_to: str) -> None:
        self.reply_to = reply_to
        self.publisher = Publisher(url, name, self._on_reconnect)
        self.subscriber = Subscriber(url, name, on_reconnect=self._on_reconnect)
        self._name = name
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise RuntimeError("this client is open already; make a second one instead")
        self._carrier = _Carrier(self.publisher, self.subscriber, self.reply_to)
        async with AsyncExitStack() as stack:
            await self.subscriber.add(
                Subscription(
                    self.reply_to, _PREFETCH, self._on_delivery, self._declare_replies, self._on_renamed
                )
            )
            await stack.enter_async_context(self.publisher)
            await stack.enter_async_context(self.subscriber)
            timer = asyncio.create_task(self._carrier.watch_deadlines(), name=f"deadlines {self._name}")
            stack.callback(timer.cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            self._carrier.close()
            await stack.aclose()

    def __len__(self) -> int:
        """How many calls wait for their answers."""
        return len(self._carrier.calls) if self._stack is not None else 0

    async def call(
        self, request: Request, priority: Priority, timeout: float, on_wait: OnWait | None = None
    ) -> Reply:
        """Publishes the request and waits for its reply.

        A caller that is cancelled withdraws the request: what nobody else waits for is not bought.

        Raises:
            OptimizerError: What became of it instead.
            RuntimeError: The client is not open.
        """
        ended = await self._ended(request, priority, timeout, on_wait)
        assert isinstance(ended, Answered), "only a durable request ends otherwise"  # noqa: S101 - as it says
        return ended.reply

    async def submit(self, asked: Asked) -> None:
        """Hands a durable request over; errors as for `call`.

        A caller that is cancelled does not withdraw it.
        """
        await self._ended(asked.request, asked.priority, asked.patience_s, None)

    async def result(self, taking: Taking, *, keep: bool) -> Reply:
        """Takes the reply of a durable request; with `keep` it stays for the next who asks.

        Raises:
            OptimizerError: The reply is one, or there is none.
            RuntimeError: The client is not open.
        """
        return await self._opened().job_queues.take(taking, keep=keep)

    def withdraw_job(self, job: Submitted) -> bool:
        """Says that nobody wants a durable request any more; False: that has to wait for a connection."""
        return self._opened().withdraw_job(job)

    def _opened(self) -> "_Carrier":
        if self._stack is None:
            raise RuntimeError("open the client first: async with AsyncOptimizer(...) as optimizer:")
        return self._carrier

    async def _ended(
        self, request: Request, priority: Priority, timeout: float, on_wait: OnWait | None
    ) -> Answered | HandedOver:
        carrier, loop = self._opened(), asyncio.get_running_loop()
        if request.id in carrier.calls:
            raise InvalidRequest(f"request_id: {request.id!r} waits for an answer already; take another one")
        message = request_message(request, priority, self.reply_to)
        call = carrier.calls[request.id] = _Call(message, request.durable, loop.create_future(), on_wait)
        try:
            carrier.carry_out(carrier.core.begin(request.id, loop.time(), timeout, durable=request.durable))
            carrier.nudge(loop.time() + min(timeout, FIRST_SILENCE_S))
            return await call.future
        finally:
            carrier.carry_out(carrier.core.forget(request.id))
            del carrier.calls[request.id]

    def cancel(self, request_id: str) -> bool:
        """Ends a call in `Cancelled`; False when none of that id waits."""
        if self._stack is None:
            return False
        effects = self._carrier.core.cancel(request_id)
        self._carrier.carry_out(effects)
        return bool(effects)

    def _on_delivery(self, delivery: Delivery) -> None:
        self._carrier.carry_out(self._carrier.core.received(delivery.body))
        delivery.ack()

    def _on_reconnect(self) -> None:
        self._carrier.reconnected()

    def _on_renamed(self, queue: str) -> None:
        self.reply_to = queue
        self._carrier.move(queue)

    async def _declare_replies(self, channel: Channel) -> None:
        await channel.queue_declare(self.reply_to, durable=True, arguments=dict(REPLY_QUEUE_ARGUMENTS))


class _Carrier(Carrier[_Call]):
    """Carries on the event loop that runs when it is made."""

    def __init__(self, publisher: Publisher, subscriber: Subscriber, reply_to: str) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(self._loop.time, reply_to)
        self.publisher = publisher
        self.subscriber = subscriber
        self.job_queues = JobQueues(subscriber)
        self._changed = asyncio.Event()
        self._wakes_at = math.inf
        self._closed = False

    def close(self) -> None:
        """Cancels what still waits; what was published is not withdrawn."""
        self._closed = True
        self.job_queues.close()
        for call in self.calls.values():
            call.future.cancel()

    def tell(self, call: _Call, effect: Answered | HandedOver | Failed | Waits) -> None:
        """Ends the caller's wait, or tells it what it waits for."""
        match effect:
            case Waits(waiting=waiting):
                tell_waiting(call.on_wait, waiting)
            case _ if call.future.done():
                pass  # its caller was cancelled meanwhile
            case Answered() | HandedOver():
                call.future.set_result(effect)
            case Failed(error=error):
                call.future.set_exception(error)

    def declare_job_queue(self, queue: str, told: Callable[[str | None], None]) -> None:
        """Declares it on a channel of its own."""
        self.job_queues.declare(queue, told)

    def withdraw(self, call: _Call) -> None:
        """Says that nobody waits any more, unless it is the client that goes."""
        if not self._closed:
            super().withdraw(call)

    def nudge(self, due: float) -> None:
        """Something is due then; only what is due before anything else wakes the watch."""
        if due < self._wakes_at:
            self._changed.set()

    async def watch_deadlines(self) -> None:
        """Wakes the core when something is due, until cancelled."""
        while True:
            self._changed.clear()
            due = self.core.next_due()
            self._wakes_at = math.inf if due is None else due
            try:
                # Not `wait_for`: up to Python 3.11 it can lose the cancellation that ends this.
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            except TimeoutError:
                self.carry_out(self.core.due(self._loop.time(), self.obstacle()))
