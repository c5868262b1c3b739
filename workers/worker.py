"""What every worker process has: its connections, the shared state, its events, its heartbeat."""

import asyncio
import logging
import math
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from broker.alert_state import AlertState
from broker.controls import Controls, PauseMode
from broker.flights import RENEW_EVERY_S, Flights, StateAway
from broker.lessons import Lessons
from broker.opening import open_redis
from broker.outlook import Outlook
from producer_sdk.roster import BEAT_S, Roster
from producer_sdk.transport import Publisher, Subscriber
from topology.events import EventType
from topology.fleet import Fleet
from workers.books import Books
from workers.events import Clock, Events
from workers.learning import Learning
from workers.notices import Notices
from workers.sides import Sides
from workers.underway import Underway

log = logging.getLogger("optimizer.worker")

_REDIS_TIMEOUT_S: Final = 4.0
"""Two of them and the pause between renewals are less than a lease: lines that fall silent cost no claim."""
_REDIS_SLOW_S: Final = 2.0


@dataclass
class Worker:
    """One worker process, whatever its roles.

    Attributes:
        id: Roles, host and a random part; new for each process, so that no successor is mistaken for its
            predecessor. Its connections carry it as their name.
        fleet: The configuration. A reload puts another one here: what is to see it reads it here each time.
        alert_state: What is remembered of alerts.
        roles: What it is now.
        learning: What models lack, as far as this worker has heard.
        paused: The providers that operators have paused, as far as this worker has heard.
        underway: The calls of all its pools.
        outlook: Where waiting requests stand, by the limits of this configuration.
        notices: What callers are told of their waiting.
        sides: The queues beside those of jobs.
        books: The entries that the ledger of calls rests on.
        on_lost: Called when deliveries that are held are ours no longer.
        on_roster: Called when a worker of the fleet appears or leaves.
        on_control: Called when `paused` or `fleet` has changed.
        on_opened: Called when an operator has opened what was closed.
        reports: What each role adds to the heartbeat.
    """

    id: str
    fleet: Fleet
    publisher: Publisher
    subscriber: Subscriber
    flights: Flights
    controls: Controls
    outlook: Callable[[Fleet], Outlook]
    alert_state: AlertState
    clock: Clock
    events: Events
    learning: Learning
    roster: Roster
    roles: tuple[str, ...]
    paused: Mapping[str, PauseMode] = field(default_factory=dict)
    underway: Underway = field(default_factory=Underway)
    on_lost: list[Callable[[], None]] = field(default_factory=list)
    on_roster: list[Callable[[], None]] = field(default_factory=list)
    on_control: list[Callable[[], None]] = field(default_factory=list)
    on_opened: list[Callable[[], None]] = field(default_factory=list)
    reports: list[Callable[[], Mapping[str, Any]]] = field(default_factory=list)
    sides: Sides = field(init=False)
    notices: Notices = field(init=False)
    books: Books = field(init=False)
    _redis_back_at: float | None = field(default=-math.inf, init=False)
    _redis_error: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.sides = Sides(self.publisher, self.subscriber, self.roster)
        self.reports.append(self.sides.report)
        self.notices = Notices(self.publisher, self.clock)
        self.books = Books(self.events)

    def redis_failed(self) -> None:
        """Redis did not answer."""
        self._redis_back_at = None

    def may_claim(self) -> bool:
        """Whether Redis has been back for long enough that whoever runs a call has renewed its lease."""
        now = asyncio.get_running_loop().time()
        return self._redis_back_at is not None and now - self._redis_back_at > RENEW_EVERY_S

    async def beat(self) -> None:
        """Says each second that this worker lives, and keeps its clock by Redis's; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_redis(), name="watch Redis")
            while True:
                self.report(redis=self._redis_error or "up")
                await asyncio.sleep(BEAT_S)

    async def _watch_redis(self) -> None:
        """Apart from the heartbeat: a worker whose Redis hangs lives."""
        loop = asyncio.get_running_loop()
        while True:
            slow = loop.call_later(_REDIS_SLOW_S, self._note_redis, f"no answer within {_REDIS_SLOW_S:g} s")
            try:
                self.clock.set(await self.flights.now())
                self._redis_error = None
                if self._redis_back_at is None:
                    self._redis_back_at = loop.time()
            except StateAway as error:
                self._note_redis(str(error))
                self.redis_failed()
            finally:
                slow.cancel()
            await asyncio.sleep(BEAT_S)

    def _note_redis(self, error: str) -> None:
        self._redis_error = error

    def report(self, **fields: Any) -> None:
        """One heartbeat, with what each role adds."""
        pools: dict[str, Any] = {}
        for report in self.reports:
            facts = dict(report())
            for provider, pool in facts.pop("providers", {}).items():
                pools[provider] = _together(pools[provider], pool) if provider in pools else pool
            fields |= facts
        self.events.emit(
            EventType.WORKER_HEALTH,
            worker=self.id,
            roles=list(self.roles),
            host=socket.gethostname(),
            pid=os.getpid(),
            providers=pools,
            **fields,
        )


def _together(one: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    """Two pools for one provider, while the calls of the one that was replaced still run."""
    return {
        **one,
        **{name: one[name] + other[name] for name in ("running", "slots", "waiting")},
        "lanes": sorted({*one["lanes"], *other["lanes"]}),
        "closed": {**one["closed"], **other["closed"]},
        "drained": one["drained"] and other["drained"],
    }


@asynccontextmanager
async def open_worker(
    fleet: Fleet,
    amqp_url: str,
    redis_url: str,
    roles: tuple[str, ...],
    prefix: str = "",
) -> AsyncIterator[Worker]:
    """Opens what a worker needs and closes it again, last opened first.

    Waits until Redis has told the time; RabbitMQ may still be away.
    """
    id_ = _new_id(roles)
    on_lost: list[Callable[[], None]] = []
    on_roster: list[Callable[[], None]] = []
    async with AsyncExitStack() as stack:
        # A connection that died while idle deserves one more try; whoever asked decides about others.
        redis = await stack.enter_async_context(open_redis(redis_url, _REDIS_TIMEOUT_S, tries=2, name=id_))
        flights = Flights(redis, prefix)
        clock = Clock()
        await _until_answered(lambda: _set(clock, flights))
        publisher = await stack.enter_async_context(Publisher(amqp_url, id_))
        subscriber = await stack.enter_async_context(
            Subscriber(amqp_url, id_, on_lost=lambda: _call_all(on_lost))
        )
        events = Events(publisher, clock)
        roster = Roster(id_, lambda: _call_all(on_roster))
        await roster.listen(subscriber)
        yield Worker(
            id=id_, fleet=fleet, publisher=publisher, subscriber=subscriber, flights=flights,
            controls=Controls(redis, flights.prefix), outlook=partial(Outlook, redis, prefix=prefix),
            clock=clock, events=events,
            learning=Learning(Lessons(redis, flights.prefix), clock, events), roster=roster, roles=roles,
            alert_state=AlertState(redis, flights.prefix, id_), on_lost=on_lost, on_roster=on_roster,
        )  # fmt: skip


def _new_id(roles: tuple[str, ...]) -> str:
    """Tells people which replica it is: a container's host name is what `docker ps` shows."""
    what = "-".join(role.replace(":", "-") for role in roles)[:40]
    host = socket.gethostname().partition(".")[0][:32]
    return f"{what}-{host}-{secrets.token_hex(4)}"


async def _set(clock: Clock, flights: Flights) -> None:
    clock.set(await flights.now())


async def _until_answered(ask: Callable[[], Awaitable[None]], pause_s: float = 0.5) -> None:
    """Asks again until Redis answers; says so once."""
    said = False
    while True:
        try:
            return await ask()
        except StateAway as error:
            if not said:
                log.warning("Redis is away, waiting for it", extra={"error": str(error)})
                said = True
            await asyncio.sleep(pause_s)


def _call_all(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()
