"""The asyncio client: publishes requests and waits for their replies."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Literal, Self

from aiormq import Channel

from producer_sdk.core import (
    FIRST_SILENCE_S,
    REFUSED_AGAIN_S,
    Answered,
    Core,
    Effect,
    Failed,
    Transmit,
)
from producer_sdk.errors import InvalidRequest
from producer_sdk.settings import find_amqp_url
from producer_sdk.transport import (
    Delivery,
    Outgoing,
    Published,
    Publisher,
    Subscriber,
    Subscription,
)
from topology import names
from topology.declaration import REPLY_QUEUE_EXPIRES_S
from topology.errors import Refused
from topology.messages import Constraints, Reply, Request, new_id
from topology.names import Priority

log = logging.getLogger("optimizer.sdk")

DEFAULT_TIMEOUT_S: Final = 600.0
_PREFETCH: Final = 500

Message = Mapping[str, Any]
PriorityName = Literal["high", "normal", "batch"]
CacheName = Literal["use", "refresh", "join", "off"]


class AsyncOptimizer:
    """An agent's door to the fleet's providers.

    Entering starts the connections without waiting for them; each call has its own timeout, which is
    never exceeded, whatever the brokers do. Safe to share among any number of tasks.

    Args:
        agent: Who asks: 1 to 64 of a-z, 0-9, `_`, `-`.
        agent_type: What kind of agent it is; for reports.
        url: RabbitMQ's URL; None: `OPTIMIZER_AMQP_URL`, then the nearest `.optimizer/env`.
        client: A name that tells this process's callback queue from others of the agent; None: the pid.

    Raises:
        InvalidRequest: The agent's name cannot be one.
        Overloaded: No URL is known.
    """

    def __init__(
        self,
        agent: str,
        *,
        agent_type: str | None = None,
        url: str | None = None,
        client: str | None = None,
    ) -> None:
        if not names.is_agent_name(agent):
            raise InvalidRequest(f"agent: {agent!r} is not 1 to 64 of a-z, 0-9, '_' and '-'")
        self.agent = agent
        self.agent_type = agent_type
        self.reply_to = names.reply_queue(agent, names.slug(client or f"p{os.getpid()}"), new_id()[-12:])
        amqp_url = find_amqp_url(url)
        self._core = Core()
        self._bodies: dict[str, Outgoing] = {}
        self._futures: dict[str, asyncio.Future[Reply]] = {}
        self._publisher = Publisher(amqp_url, f"agent {agent}", self._on_reconnect)
        self._subscriber = Subscriber(amqp_url, f"agent {agent}", on_reconnect=self._on_reconnect)
        self._on_the_way: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._wakes_at = math.inf
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise RuntimeError("this AsyncOptimizer is open already; make a second one instead")
        async with AsyncExitStack() as stack:
            await self._subscriber.add(
                Subscription(self.reply_to, _PREFETCH, self._on_delivery, self._declare_replies)
            )
            await stack.enter_async_context(self._publisher)
            await stack.enter_async_context(self._subscriber)
            timer = asyncio.create_task(self._watch_deadlines(), name=f"deadlines {self.agent}")
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
        for future in self._futures.values():
            future.cancel()
        for task in list(self._tasks):
            task.cancel()
        if stack is not None:
            await stack.aclose()

    async def chat(
        self,
        prompt: str | Sequence[Message],
        *,
        model: str = "auto",
        task: str | None = None,
        priority: PriorityName = "normal",
        timeout: float = DEFAULT_TIMEOUT_S,
        cache: CacheName = "use",
        cache_ttl_s: float | None = None,
        cache_scope: Literal["fleet", "agent"] = "fleet",
        constraints: Constraints | Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Reply:
        """Asks a model and waits for the answer.

        Identical requests are shared by default: the answer may come from the cache, or from the same
        call that another agent waits for; `reply.source` tells.

        Args:
            prompt: A text, or a list of OpenAI messages.
            model: `provider/model`, a bare model, or `auto`.
            task: What it is for (`code`, `reasoning`, `general`, ...); guides `auto`.
            priority: `high`, `normal` or `batch`.
            timeout: Seconds within which the call ends, in an answer or in an error.
            cache: `use`, `refresh` (a new answer), `join` (share running calls only), `off`.
            cache_ttl_s: How old an answer may be, in seconds; None: the fleet's setting.
            cache_scope: Share with the whole `fleet`, or only within this `agent`.
            constraints: Such as `{"required_capabilities": ["tools"]}`.
            params: The rest of the OpenAI body: `temperature`, `max_tokens`, `tools`, ...

        Raises:
            OptimizerError: Its subclasses say what happened and whether to try again.
        """
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        request = self._request(
            params={"messages": messages, **params},
            model=model,
            task=task,
            deadline=time.time() + timeout,
            cache=cache,
            cache_ttl_s=cache_ttl_s,
            cache_scope=cache_scope,
            constraints=constraints,
        )
        return await self._call(request, Priority(priority), timeout)

    def _request(self, **fields: Any) -> Request:
        fields["constraints"] = fields["constraints"] or Constraints()
        value = {"id": new_id(), "agent": self.agent, "agent_type": self.agent_type, **fields}
        try:
            return Request.from_value(value)
        except Refused as refused:
            raise InvalidRequest(refused.message) from None

    async def _call(self, request: Request, priority: Priority, timeout: float) -> Reply:
        if self._stack is None:
            raise RuntimeError("open the client first: async with AsyncOptimizer(...) as optimizer:")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        try:
            body = request.to_bytes()
        except Refused as refused:
            raise InvalidRequest(refused.message) from None
        self._bodies[request.id] = Outgoing(
            names.REQUESTS,
            names.request_key(priority, self.agent),
            body,
            correlation_id=request.id,
            reply_to=self.reply_to,
            app_id=self.agent,
        )
        self._futures[request.id] = future
        try:
            self._carry_out(self._core.begin(request.id, loop.time(), timeout))
            self._nudge(loop.time() + min(timeout, FIRST_SILENCE_S))
            return await future
        finally:
            self._core.forget(request.id)
            self._bodies.pop(request.id, None)
            self._futures.pop(request.id, None)

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Transmit(id=id_) if id_ not in self._on_the_way:
                    self._own(asyncio.create_task(self._transmit(id_), name=f"transmit {id_}"))
                case Transmit():
                    pass  # its publish has not ended yet; what it comes to decides
                case Answered(id=id_, reply=reply):
                    if (future := self._futures.get(id_)) and not future.done():
                        future.set_result(reply)
                case Failed(id=id_, error=error):
                    if (future := self._futures.get(id_)) and not future.done():
                        future.set_exception(error)

    async def _transmit(self, id_: str) -> None:
        self._on_the_way.add(id_)
        try:
            await self._publish(id_)
        finally:
            self._on_the_way.discard(id_)

    async def _publish(self, id_: str) -> None:
        # The callback queue must stand before a reply can be on its way.
        await self._subscriber.wait_until_up()
        message = self._bodies.get(id_)
        if message is None:
            return
        outcome = await self._publisher.publish(message)
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
                self._carry_out(self._core.not_taken(id_, now, self._publisher.why_down()))
                self._nudge(now + REFUSED_AGAIN_S)

    def _on_delivery(self, delivery: Delivery) -> None:
        self._carry_out(self._core.received(delivery.body))
        self._own(asyncio.create_task(delivery.ack(), name="ack reply"))

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_reconnect(self) -> None:
        if self._publisher.is_up and self._subscriber.is_up:
            now = asyncio.get_running_loop().time()
            self._carry_out(self._core.reconnected(now))

    async def _declare_replies(self, channel: Channel) -> None:
        await channel.queue_declare(
            self.reply_to,
            durable=True,
            arguments={
                "x-queue-type": "classic",
                "x-expires": int(REPLY_QUEUE_EXPIRES_S * 1000),
            },
        )

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
        for connection in (self._publisher, self._subscriber):
            if not connection.is_up:
                return connection.why_down()
        return None
