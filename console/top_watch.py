"""What `optimizer top` hears and reads, each source by itself, so that one that is away holds up no other."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from broker.away import StateAway
from broker.opening import open_redis
from broker.standings import ClosedPart, LimitStanding, Standings
from console.event_monitor import EventTail
from console.figures import span
from console.readings import live_workers, measure, queue_names, status_of, unacknowledged, unreachable
from console.top_picture import RATES, Picture, WorkerSeen, agents, elsewhere, lanes
from console.top_traffic import Traffic
from console.watching_tables import LiveWorker, QueueDepth, Status
from producer_sdk.connecting import AWAY, connected
from producer_sdk.roster import Roster
from producer_sdk.settings import REDIS_URL
from topology import names
from topology.events import EventType
from topology.fleet import Fleet
from topology.loading import ConfigurationError
from workers.ending import end_all

LISTEN_S: Final = 2.0
"""Heartbeats come each second: after this all that live have been heard, and some of what happens."""
_ANSWER_S: Final = 5.0
_COUNTED_EVERY_S: Final = 5.0
"""How often RabbitMQ counts what is unacknowledged."""
_GENTLE: Final = 10
"""Looking pauses for so many times as long as it took: with thousands of limits it looks less often."""
_PATIENCE_S: Final = 3.0
_GONE_FOR_S: Final = 60.0


@dataclass(frozen=True)
class Sources:
    """Where it is read.

    Attributes:
        redis_url: None: it is not known, and what stands there is not shown.
        management_url: RabbitMQ's management API.
        fleet: Reads the configuration; None: there is no file, and only what workers say is known.
    """

    amqp_url: str
    redis_url: str | None
    management_url: str
    fleet: Callable[[], Fleet | None]


@asynccontextmanager
async def watching(sources: Sources, interval_s: float, prefix: str = "") -> AsyncIterator["Watch"]:
    """Watches for as long as it is open, with a queue for events that goes with it.

    Raises:
        ConfigurationError: The configuration cannot be used. Later on, that is a line in the picture.
    """
    watch = Watch(sources, interval_s, prefix)
    async with watch.tail, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(watch.hear(), name="hear events"),
            group.create_task(watch.ask_redis(), name="ask Redis"),
            group.create_task(watch.measure_queues(), name="measure queues"),
            group.create_task(watch.ask_management(), name="ask for what is unacknowledged"),
        ]
        try:
            yield watch
        finally:
            await end_all(tasks)


class Watch:
    """What is known at present. `watching` opens it and runs its four tasks."""

    def __init__(self, sources: Sources, interval_s: float, prefix: str) -> None:
        self._sources = sources
        self._interval_s = interval_s
        self._prefix = prefix
        self._fleet = sources.fleet()
        self._began = time.monotonic()
        self._ahead_s = time.time() - self._began
        self._traffic = Traffic()
        self._roster = Roster("top")
        self._seen: dict[str, tuple[LiveWorker, float]] = {}
        self._configs: set[str | None] = set()
        self._queues: tuple[QueueDepth, ...] = ()
        self._unacked: Mapping[str, int] | None = None
        self._limits: list[LimitStanding] = []
        self._closed: list[ClosedPart] = []
        self._waiting: Mapping[str, int] = {}
        self._away: dict[str, str] = {}
        self._due: dict[str, float] = {}
        self._asked = {source: asyncio.Event() for source in ("Redis", "RabbitMQ", "management")}
        self.tail = EventTail(sources.amqp_url, name="optimizer top")

    async def wait_until_ready(self) -> None:
        """Waits until every source has answered and events were heard for `LISTEN_S`, or does not answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTEN_S + _ANSWER_S):
                await self.tail.wait_until_up()
                await asyncio.sleep(LISTEN_S)
                for asked in self._asked.values():
                    await asked.wait()

    def picture(self) -> Picture:
        """All that is known now."""
        now, since = self._now(), self._began + self._ahead_s
        self._traffic.forget(now)
        reports, away = self._roster.workers(), self._who_is_away()
        status = status_of(reports, self._queues, self._fleet)
        rates = {what: self._traffic.rate(what, now, since) for what in RATES}
        started = self._traffic.started_per_s(now, since)
        return Picture(
            at=now,
            watched_s=now - since,
            rates=rates,
            lanes=lanes(
                status, self._fleet, unacked=self._unacked, started=started, came_in=rates["requests"].mean
            ),
            elsewhere=elsewhere(self._queues),
            limits=tuple(self._limits),
            closed=tuple(self._closed),
            agents=agents(self._traffic.agents(now, since), self._waiting),
            workers=self._workers(status.workers),
            wrong=tuple(self._wrong(status, away)),
            notes=tuple(status.notes),
            away=tuple(away.values()),
        )

    async def hear(self) -> None:
        """Takes in events and heartbeats, until cancelled."""
        async for event in self.tail:
            self._traffic.hear(event, self._now())
            if event.type == EventType.WORKER_HEALTH:
                self._roster.hear(event)
                self._read_again(event.model_dump().get("config"))

    async def ask_redis(self) -> None:
        """Reads limits, what is closed and who waits, until cancelled."""
        url = self._sources.redis_url
        while url is not None:
            try:
                async with open_redis(url, _ANSWER_S, tries=2, name="optimizer-top") as redis:
                    while True:
                        await self._look(Standings(redis, self._prefix))
            except (StateAway, ValueError) as error:
                self._away["Redis"] = unreachable("Redis", url, error)
            self._asked["Redis"].set()
            await asyncio.sleep(self._interval_s)
        self._away["Redis"] = f"where is Redis? Give --redis-url, or set {REDIS_URL}"
        self._asked["Redis"].set()

    async def measure_queues(self) -> None:
        """Asks RabbitMQ how deep its queues are, until cancelled."""
        url = self._sources.amqp_url
        while True:
            try:
                async with connected(url, _ANSWER_S) as connection:
                    while True:
                        began = time.monotonic()
                        self._queues = await measure(connection, self._queue_names())
                        await asyncio.sleep(self._answered("RabbitMQ", began))
            except AWAY as error:
                self._away["RabbitMQ"] = unreachable("RabbitMQ", url, error)
            self._asked["RabbitMQ"].set()
            await asyncio.sleep(self._interval_s)

    async def ask_management(self) -> None:
        """Asks RabbitMQ's management API, as often as it counts, until cancelled."""
        while True:
            self._unacked = await unacknowledged(self._sources.amqp_url, self._sources.management_url)
            self._asked["management"].set()
            await asyncio.sleep(max(self._interval_s, _COUNTED_EVERY_S))

    async def _look(self, standings: Standings) -> None:
        began = time.monotonic()
        self._ahead_s = await standings.now() - began
        if self._fleet is not None:
            self._limits = await standings.limits(self._fleet)
            self._closed = await standings.closed(self._fleet)
        self._waiting = await standings.waiting(self._job_queues())
        await asyncio.sleep(self._answered("Redis", began))

    def _answered(self, source: str, began: float) -> float:
        """A look that began then has ended well; returns in how many seconds it is time for the next."""
        now = time.monotonic()
        pause_s = max(began + self._interval_s - now, (now - began) * _GENTLE)
        self._due[source] = now + pause_s + _PATIENCE_S
        self._away.pop(source, None)
        self._asked[source].set()
        return pause_s

    def _now(self) -> float:
        return time.monotonic() + self._ahead_s

    def _read_again(self, config: str | None) -> None:
        """The configuration, when a worker works by one that was not heard of before."""
        if config in self._configs:
            return
        self._configs.add(config)
        try:
            self._fleet = self._sources.fleet()
            self._away.pop("configuration", None)
        except ConfigurationError as error:
            self._away["configuration"] = f"limits are those of the configuration before: {error}"

    def _job_queues(self) -> dict[str, int]:
        """Each with how many stand beside it."""
        workers = live_workers(self._roster.workers())
        sides: dict[str, int] = {}
        for worker in workers:
            for queue, number in worker.sides.items():
                sides[queue] = max(number, sides.get(queue, 0))
        return {
            queue: sides.get(queue, 0)
            for queue in queue_names(workers, self._fleet)
            if names.is_jobs_queue(queue)
        }

    def _queue_names(self) -> list[str]:
        beside = self._job_queues()
        return [
            name
            for queue in queue_names(live_workers(self._roster.workers()), self._fleet)
            for name in (queue, *(names.side_queue(queue, n + 1) for n in range(beside.get(queue, 0))))
        ]

    def _workers(self, living: Sequence[LiveWorker]) -> tuple[WorkerSeen, ...]:
        """Those that live, and for a while those that did."""
        now, ages = time.monotonic(), self._roster.ages()
        for worker in living:
            self._seen[worker.id] = worker, now - ages.get(worker.id, 0.0)
        for name in [name for name, (_, at) in self._seen.items() if now - at > _GONE_FOR_S]:
            del self._seen[name]
        ids = {worker.id for worker in living}
        return tuple(
            WorkerSeen(worker, now - at, gone=worker.id not in ids)
            for worker, at in sorted(self._seen.values(), key=lambda seen: seen[0].id)
        )

    def _wrong(self, status: Status, away: Mapping[str, str]) -> list[str]:
        """What `optimizer health` would say, as far as it can be told without asking anybody."""
        if "RabbitMQ" in away or time.monotonic() - self._began < LISTEN_S:
            return []  # who is not heard now may live
        if not status.workers:
            return ["no worker is heard: none lives, or RabbitMQ takes no messages; run: optimizer health"]
        return status.unhealthy

    def _who_is_away(self) -> dict[str, str]:
        """A sentence for each source that does not answer."""
        now = time.monotonic()
        silent = {source: now - due + _PATIENCE_S for source, due in self._due.items() if due < now}
        away = {
            source: f"{source} has not answered for {span(s)}" for source, s in silent.items()
        } | self._away
        if not self.tail.is_up and now - self._began > LISTEN_S:
            away["RabbitMQ"] = f"{self.tail.why_down()}; waiting for it"
        return away
