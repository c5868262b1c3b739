"""The asyncio driver: carries what the core decides, for any number of calls and agents at once."""

import asyncio
import logging
import math
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from aiormq import Channel

from producer_sdk.asking import cancel_message, request_message
from producer_sdk.core import (
    FIRST_SILENCE_S,
    REFUSED_AGAIN_S,
    Answered,
    Core,
    Effect,
    Failed,
    OnWait,
    Transmit,
    Waits,
    Withdraw,
)
from producer_sdk.errors import InvalidRequest
from producer_sdk.transport import Delivery, Outgoing, Published, Publisher, Subscriber, Subscription
from topology.declaration import REPLY_QUEUE_ARGUMENTS
from topology.messages import Reply, Request, Waiting
from topology.names import Priority

log = logging.getLogger("optimizer.sdk")

_PREFETCH: Final = 500


@dataclass(eq=False)
class _Call:
    message: Outgoing
    future: asyncio.Future[Reply]
    on_wait: OnWait | None
    on_the_way: bool = False


class AsyncCalls:
    """Publishes requests and waits for their replies on one callback queue.

    Entering starts the connections without waiting for them. Leaving cancels the calls that still wait:
    what was published is done all the same, and its answer is there for the next who asks.

    Args:
        url: RabbitMQ's URL.
        name: Names the connections, for RabbitMQ's own pages.
        reply_to: The callback queue, of a name that is this client's alone; declared here.
    """

    def __init__(self, url: str, name: str, reply_to: str) -> None:
        self.reply_to = reply_to
        self.publisher = Publisher(url, name, self._on_reconnect)
        self.subscriber = Subscriber(url, name, on_reconnect=self._on_reconnect)
        self._name = name
        self._core = Core()
        self._calls: dict[str, _Call] = {}
        self._changed = asyncio.Event()
        self._wakes_at = math.inf
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise RuntimeError("this client is open already; make a second one instead")
        async with AsyncExitStack() as stack:
            await self.subscriber.add(
                Subscription(self.reply_to, _PREFETCH, self._on_delivery, self._declare_replies)
            )
            await stack.enter_async_context(self.publisher)
            await stack.enter_async_context(self.subscriber)
            timer = asyncio.create_task(self._watch_deadlines(), name=f"deadlines {self._name}")
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
        for call in self._calls.values():
            call.future.cancel()
        if stack is not None:
            await stack.aclose()

    def __len__(self) -> int:
        """How many calls wait for their answers."""
        return len(self._calls)

    async def call(
        self, request: Request, priority: Priority, timeout: float, on_wait: OnWait | None = None
    ) -> Reply:
        """Publishes the request and waits for its reply.

        A caller that is cancelled withdraws the request: what nobody else waits for is not bought.

        Raises:
            OptimizerError: What became of it instead.
            RuntimeError: The client is not open.
        """
        if self._stack is None:
            raise RuntimeError("open the client first: async with AsyncOptimizer(...) as optimizer:")
        if request.id in self._calls:
            raise InvalidRequest(f"request_id: {request.id!r} waits for an answer already; take another one")
        loop = asyncio.get_running_loop()
        message = request_message(request, priority, self.reply_to)
        call = self._calls[request.id] = _Call(message, loop.create_future(), on_wait)
        try:
            self._carry_out(self._core.begin(request.id, loop.time(), timeout))
            self._nudge(loop.time() + min(timeout, FIRST_SILENCE_S))
            return await call.future
        finally:
            self._carry_out(self._core.forget(request.id))
            del self._calls[request.id]

    def cancel(self, request_id: str) -> bool:
        """Ends a call in `Cancelled`; False when none of that id waits."""
        effects = self._core.cancel(request_id)
        self._carry_out(effects)
        return bool(effects)

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            call = self._calls.get(effect.id)
            if call is None:
                continue
            match effect:
                case Transmit(id=id_):
                    self._transmit(id_, call)
                case Withdraw():
                    self._withdraw(call)
                case Answered() | Failed() if call.future.done():
                    pass  # its caller was cancelled meanwhile
                case Answered(reply=reply):
                    call.future.set_result(reply)
                case Failed(error=error):
                    call.future.set_exception(error)
                case Waits(waiting=waiting):
                    tell_waiting(call.on_wait, waiting)

    def _transmit(self, id_: str, call: _Call) -> None:
        """Publishes, unless that is still under way, or the callback queue does not stand yet.

        In the latter case the reconnection transmits.
        """
        if call.on_the_way:
            return
        if not (self.subscriber.is_up and self.publisher.is_up):
            if self.publisher.last_error or self.subscriber.last_error:  # else it is only just opening
                now = asyncio.get_running_loop().time()
                self._carry_out(self._core.not_taken(id_, now, self._obstacle() or "reconnecting"))
            return
        call.on_the_way = True
        self.publisher.send(call.message, lambda outcome: self._published(id_, call, outcome))

    def _published(self, id_: str, call: _Call, outcome: Published) -> None:
        call.on_the_way = False
        now = asyncio.get_running_loop().time()
        match outcome:
            case Published.CONFIRMED:
                self._carry_out(self._core.confirmed(id_))
            case Published.RETURNED | Published.NOWHERE:
                self._carry_out(self._core.unroutable(id_))
            case Published.REFUSED:
                self._carry_out(self._core.not_taken(id_, now, "RabbitMQ refused the request"))
                self._nudge(now + REFUSED_AGAIN_S)
            case Published.LOST:
                self._carry_out(self._core.not_taken(id_, now, self.publisher.why_down()))
                self._nudge(now + REFUSED_AGAIN_S)

    def _withdraw(self, call: _Call) -> None:
        if self._stack is not None and self.publisher.is_up:
            self.publisher.send(cancel_message(call.message), lambda _: None)

    def _on_delivery(self, delivery: Delivery) -> None:
        self._carry_out(self._core.received(delivery.body))
        delivery.ack()

    def _on_reconnect(self) -> None:
        if self.publisher.is_up and self.subscriber.is_up:
            now = asyncio.get_running_loop().time()
            self._carry_out(self._core.reconnected(now))

    async def _declare_replies(self, channel: Channel) -> None:
        await channel.queue_declare(self.reply_to, durable=True, arguments=dict(REPLY_QUEUE_ARGUMENTS))

    def _nudge(self, due: float) -> None:
        """Something is due then; only what is due before anything else wakes the watch."""
        if due < self._wakes_at:
            self._changed.set()

    async def _watch_deadlines(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            due = self._core.next_due()
            self._wakes_at = math.inf if due is None else due
            try:
                pause_s = None if due is None else max(0.0, due - loop.time())
                await asyncio.wait_for(self._changed.wait(), pause_s)
            except TimeoutError:
                self._carry_out(self._core.due(loop.time(), self._obstacle()))

    def _obstacle(self) -> str | None:
        for connection in (self.publisher, self.subscriber):
            if not connection.is_up:
                return connection.why_down()
        return None


def tell_waiting(on_wait: OnWait | None, waiting: Waiting) -> None:
    """Tells a caller that wants to know; what its own code raises is logged, and the call goes on."""
    if on_wait is None:
        return
    try:
        on_wait(waiting)
    except Exception:
        log.exception("on_wait failed")
