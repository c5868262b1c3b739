"""The seams of the workers, wrapped from outside so that each point is passed by name.

The production code has no hooks: what is wrapped are its doors to Redis, to RabbitMQ and to the provider.
Which role passes is known from the task: `run` of each role is wrapped too, and its tasks inherit the word.
What a connection's own task does (a front settles when a confirm has come) counts as the first role's.

Who dies at a point has sent the acknowledgements that it made before: they are waited for. Else one that was
made too early would die with it, and the mistake would not show.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final

import httpx

from broker.answers import Run
from broker.flights import Flights
from hub.store.ledger import Ledger
from producer_sdk.channel import LeanChannel
from producer_sdk.transport import Outgoing, Published, Publisher
from tests.faults.orders import Orders
from topology import names
from topology.events import EventType
from topology.names import RetryTier
from workers.backend import Pool
from workers.calling import ProviderClient
from workers.front import Front
from workers.recorder import Recorder
from workers.undertaker import Undertaker

Wrapped = Callable[..., Any]

_WRITTEN: Final = "http11.send_request_body.complete"
_TURNS: Final = 5
_TIERS: Final = frozenset(tier.exchange for tier in RetryTier)


def wrap_seams(orders: Orders, first_role: str, in_call_s: float) -> None:
    """Wraps all seams of this process, once.

    Args:
        orders: Asked at each point.
        first_role: What counts where no role is known.
        in_call_s: How long after the request was written `backend.in_call` lies, in seconds.
    """
    seams = _Seams(orders, first_role, in_call_s)
    for role in (Front, Pool, Undertaker, Recorder):
        _wrap(role, "run", seams.run)
    for name in ("admit", "claim", "attend", "commit", "release", "settle"):
        _wrap(Flights, name, getattr(seams, name))
    _wrap(Ledger, "record", seams.record)
    _wrap(Flights, "attend", seams.claim)
    _wrap(LeanChannel, "acknowledge", seams.acknowledge)
    _wrap(Publisher, "publish", seams.publish)
    _wrap(Publisher, "send", seams.send)
    _wrap(ProviderClient, "call", seams.call)
    _wrap(ProviderClient, "__init__", seams.client)


def _wrap(owner: type, name: str, around: Callable[[Wrapped], Wrapped]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, wraps(original)(around(original)))


class _Seams:
    """Each method takes what it wraps and gives what takes its place."""

    def __init__(self, orders: Orders, first_role: str, in_call_s: float) -> None:
        self._orders = orders
        self._role: ContextVar[str] = ContextVar("role", default=first_role)
        self._in_call_s = in_call_s
        self._acknowledging: LeanChannel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def _pass(self, step: str, flight: str | None = None) -> None:
        self._orders.passing(f"{self._role.get()}.{step}", flight)

    def _is_armed(self, step: str) -> bool:
        return self._orders.is_armed(f"{self._role.get()}.{step}")

    async def _reach(self, step: str, flight: str | None = None) -> None:
        """As `_pass`, once what was acknowledged has left."""
        if self._is_armed(step):
            await self._acknowledged()
        self._pass(step, flight)

    def _reach_in_thread(self, step: str) -> None:
        """As `_reach`, in a thread beside the event loop."""
        if self._is_armed(step) and self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._acknowledged(), self._loop).result()
        self._pass(step)

    async def _acknowledged(self) -> None:
        if self._acknowledging is not None:
            await _written(self._acknowledging)

    def acknowledge(self, original: Wrapped) -> Wrapped:
        def acknowledge(self_: LeanChannel, tag: int) -> None:
            original(self_, tag)
            self._acknowledging = self_

        return acknowledge

    def run(self, original: Wrapped) -> Wrapped:
        async def run(self_: Any) -> None:
            self._loop = asyncio.get_running_loop()
            name = type(self_).__name__.lower()
            self._role.set("backend" if name == "pool" else name)
            await original(self_)

        return run

    def admit(self, original: Wrapped) -> Wrapped:
        async def admit(self_: Any, admissions: Any) -> Any:
            flight = admissions[0].fingerprint if admissions else None
            await self._reach("before_admit", flight)
            answers = await original(self_, admissions)
            await self._reach("after_admit", flight)
            return answers

        return admit

    def claim(self, original: Wrapped) -> Wrapped:
        async def claim(self_: Any, flight: str, *rest: Any, **named: Any) -> Any:
            await self._reach("before_claim", flight)
            claimed = await original(self_, flight, *rest, **named)
            if isinstance(claimed, Run):
                await self._reach("after_claim", flight)
            return claimed

        return claim

    def attend(self, original: Wrapped) -> Wrapped:
        return self._around(original, "before_claim", "after_claim")

    def commit(self, original: Wrapped) -> Wrapped:
        return self._around(original, None, "after_commit")

    def release(self, original: Wrapped) -> Wrapped:
        return self._around(original, None, "after_release")

    def settle(self, original: Wrapped) -> Wrapped:
        return self._around(original, "after_replies", "after_settle")

    def _around(self, original: Wrapped, before: str | None, after: str) -> Wrapped:
        async def asked(self_: Any, flight: str, *rest: Any, **named: Any) -> Any:
            if before is not None:
                await self._reach(before, flight)
            answer = await original(self_, flight, *rest, **named)
            await self._reach(after, flight)
            return answer

        return asked

    def record(self, original: Wrapped) -> Wrapped:
        """Called in a thread, which has the word of the task that calls it."""

        def record(self_: Any, entries: Any) -> None:
            self._reach_in_thread("before_insert")
            original(self_, entries)
            self._reach_in_thread("after_insert")

        return record

    def publish(self, original: Wrapped) -> Wrapped:
        async def publish(self_: Publisher, message: Outgoing, *rest: Any, **named: Any) -> Published:
            if message.exchange == names.JOBS:
                await self._reach("before_publish")
            publishing: Awaitable[Published] = original(self_, message, *rest, **named)
            if message.exchange == names.JOBS and self._is_armed("after_publish"):
                publishing = asyncio.ensure_future(publishing)
                await asyncio.sleep(0)  # it begins
                if self_._channel is not None:
                    await _written(self_._channel)
                await self._reach("after_publish")
            outcome = await publishing
            if outcome is Published.CONFIRMED and (step := self._confirmed(message)):
                await self._reach(step)
            return outcome

        return publish

    def _confirmed(self, message: Outgoing) -> str | None:
        """The step that a confirmed publish completes."""
        match message.exchange, message.routing_key:
            case names.JOBS, _:
                return "after_confirm" if self._role.get() == "front" else "handed_on"
            case exchange, _ if exchange in _TIERS:
                return "parked"
            case "", names.DEAD_KEPT_QUEUE:
                return "kept"
            case names.EVENTS, EventType.CALL_STARTED:
                return "after_started"
            case names.EVENTS, EventType.CALL_COMPLETED:
                return "after_event"
            case _:
                return None

    def send(self, original: Wrapped) -> Wrapped:
        """Replies go out by it. Of a front's it tells that each arrived; of a backend's, `settle` tells."""

        def send(self_: Publisher, message: Outgoing, told: Any, *rest: Any, **named: Any) -> None:
            if not message.routing_key.startswith("reply."):
                original(self_, message, told, *rest, **named)
                return
            told = self._told_by_us(told) if self._role.get() == "front" else told
            if not self._is_armed("before_reply"):
                original(self_, message, told, *rest, **named)
                return

            async def send_later() -> None:
                await self._reach("before_reply")
                original(self_, message, told, *rest, **named)

            task = asyncio.create_task(send_later(), name="reply")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

        return send

    def _told_by_us(self, told: Wrapped) -> Wrapped:
        def told_by_us(outcome: Published) -> None:
            if outcome is Published.CONFIRMED:
                self._pass("after_reply")
            told(outcome)

        return told_by_us

    def call(self, original: Wrapped) -> Wrapped:
        async def call(self_: Any, job: Any, *rest: Any) -> Any:
            ended = await original(self_, job, *rest)
            await self._reach("after_call", job.fingerprint)
            return ended

        return call

    def client(self, original: Wrapped) -> Wrapped:
        """`backend.in_call` lies a moment after httpx has written the request."""

        async def follow(request: httpx.Request) -> None:
            theirs = request.extensions["trace"]

            async def trace(event: str, info: object) -> None:
                await theirs(event, info)
                if event == _WRITTEN:
                    asyncio.get_running_loop().call_later(self._in_call_s, self._pass, "in_call")

            request.extensions["trace"] = trace

        def init(self_: Any, *rest: Any) -> None:
            original(self_, *rest)
            self_._http.event_hooks = {"request": [follow], "response": []}

        return init


async def _written(channel: LeanChannel) -> None:
    """Waits until what was sent is out of our hands: with the connection's writer, then with the system."""
    await channel.flush()
    for _ in range(_TURNS):
        await asyncio.sleep(0)
