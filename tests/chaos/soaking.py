"""A soak: the same load for minutes, nobody dies, and what every process holds is looked at all the while."""

import asyncio
import json
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from redis.asyncio import Redis

from tests.chaos.account import Figure, Terms, account
from tests.chaos.books import Books
from tests.chaos.brokers import Place
from tests.chaos.fleet import Fleet, fleet_of
from tests.chaos.load import make_load
from tests.chaos.printing import Progress
from tests.chaos.records import disagreements, read_records, witness
from tests.chaos.running import MAX_SPENDS, REST_S, calls_of, rest
from tests.chaos.slopes import slope_of
from tests.chaos.watched import EVERY_S
from tests.support.house import House, test_environ
from tests.support.processes import ROOT

_WORKERS: Final = ("front", "front", "backend:all", "backend:all", "backend:all", "undertaker", "recorder")
_TIMEOUT_S: Final = 30.0
_TTL_S: Final = 20.0
WARM_UP_S: Final = 150.0
"""Records live until 60 s after the deadline: from then on as many end as begin, and caches are full."""
_TICK_S: Final = 0.05
_SAMPLES: Final = 10

_MAY_GROW: Final = {
    "memory_mib": (0.03, 2.0), "blocks": (0.03, 5000.0), "tasks": (0.0, 3.0), "open files": (0.0, 3.0),
    "connections": (0.0, 2.0), "channels": (0.0, 2.0), "queues": (0.0, 5.0), "keys": (0.05, 100.0),
}  # fmt: skip
"""How much each may rise from the warm-up to the end: a share of its mean, and so much besides."""

Samples = list[tuple[float, float]]


@dataclass
class Held:
    """What was seen: samples by whose they are and what."""

    samples: dict[tuple[str, str], Samples] = field(default_factory=lambda: defaultdict(list))

    def add(self, whose: str, values: dict[str, float]) -> None:
        """Writes a reading down."""
        for what, value in values.items():
            self.samples[whose, what].append((time.monotonic(), value))


async def soak(place: Place, seed: int, requests: int, minutes: float, progress: Progress) -> list[Figure]:
    """Asks evenly for so long; returns the account and the slopes."""
    books, held = Books(), Held()
    seconds = minutes * 60.0
    await place.house.declare(place.fleet(MAX_SPENDS, _TTL_S, limited=False, slots=24))
    async with AsyncExitStack() as stack:
        watching = await stack.enter_async_context(witness(place.house))
        await stack.enter_async_context(_workers(place.house, held))
        fleet = await stack.enter_async_context(fleet_of(place.house, books, place.house.folder))
        looking = asyncio.create_task(_look(place, held), name="look")
        began = time.monotonic()
        await _ask_evenly(fleet, seed, requests, seconds, books, progress)
        looking.cancel()
        ended = time.monotonic()
        await fleet.finish(_TIMEOUT_S + 30.0)
        await rest(place, books, REST_S)
        events = await watching.all()
    books.records = read_records(place.database, events)
    books.wrongs += disagreements(books.records, events)
    books.calls = calls_of(place.provider) + calls_of(place.cutting)
    terms = Terms(requests=requests, quotas={}, kills=0, max_spends=MAX_SPENDS)
    # What was forgotten after its time may be bought again: how often is the cache's affair.
    figures = [figure for figure in account(books, terms) if figure.name != "calls for a flight"]
    return figures + slopes(held, began + min(WARM_UP_S, seconds / 2), ended, books.ended / (ended - began))


async def _ask_evenly(
    fleet: Fleet, seed: int, requests: int, seconds: float, books: Books, progress: Progress
) -> None:
    load = make_load(seed, _TIMEOUT_S, durable=False)
    began, asked = time.monotonic(), 0
    while asked < requests or time.monotonic() - began < seconds:
        due = int(requests * min(1.0, (time.monotonic() - began) / seconds)) - asked
        for _ in range(min(due, fleet.room)):
            await fleet.ask(next(load))
            asked += 1
        progress.tell(
            f"{books.ended} of {requests} answered, {fleet.in_flight} in flight, {books.errors} errors"
        )
        await asyncio.sleep(_TICK_S)


@asynccontextmanager
async def _workers(house: House, held: Held) -> AsyncIterator[None]:
    """One process for each of the roles; drained at the end, which must succeed."""
    processes: list[asyncio.subprocess.Process] = []
    readers: list[asyncio.Task[None]] = []
    for number, role in enumerate(_WORKERS):
        name = f"{role.partition(':')[0]} {number}"
        process = await _start(house, role, house.folder / f"{name.replace(' ', '-')}.log")
        processes.append(process)
        readers.append(asyncio.create_task(_read(process, name, held), name=name))
    try:
        yield
        for process in processes:
            process.send_signal(signal.SIGTERM)
        codes = [await asyncio.wait_for(process.wait(), 60) for process in processes]
        assert not any(codes), codes
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*readers)


async def _start(house: House, role: str, log: Path) -> asyncio.subprocess.Process:
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.watched", role, "--config", str(house.folder / "fleet.toml"),
            cwd=ROOT, env=test_environ(house), stdout=asyncio.subprocess.PIPE, stderr=sink,
        )  # fmt: skip
    assert process.stdout is not None
    while line := await asyncio.wait_for(process.stdout.readline(), 60):
        if "ready" in json.loads(line):
            return process
    raise AssertionError(f"a worker ended before it was ready: {log}")


async def _read(process: asyncio.subprocess.Process, name: str, held: Held) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        held.add(name, json.loads(line))


async def _look(place: Place, held: Held) -> None:
    """What the brokers hold, until cancelled."""
    url = place.house.management_url
    async with (
        httpx.AsyncClient(base_url=url, timeout=30) as http,
        Redis.from_url(place.house.redis_url) as redis,
    ):
        while True:
            totals = (await http.get("/api/overview")).raise_for_status().json()["object_totals"]
            held.add("RabbitMQ", {what: totals[what] for what in ("connections", "channels", "queues")})
            held.add("Redis", {"keys": await redis.dbsize()})
            await asyncio.sleep(EVERY_S)


def slopes(held: Held, since: float, until: float, requests_per_s: float) -> list[Figure]:
    """A figure for each thing that was watched: what it rises in a minute and in 10,000 requests."""
    return [
        _slope(whose, what, [(at, value) for at, value in samples if since <= at <= until], requests_per_s)
        for (whose, what), samples in sorted(held.samples.items())
    ]


def _slope(whose: str, what: str, samples: Sequence[tuple[float, float]], requests_per_s: float) -> Figure:
    name = f"{whose}: {what}"
    if len(samples) < _SAMPLES:
        return Figure(name, f"{len(samples)} samples", "flat", (f"{name}: too few samples to tell",))
    slope = slope_of(samples)
    share, besides = _MAY_GROW[what]
    most = share * slope.mean + besides
    per_10_000 = slope.per_s / requests_per_s * 10_000
    found = f"{slope.mean:.1f}; {slope.per_s * 60:+.3f} a minute, {per_10_000:+.3f} in 10,000 requests"
    wrongs = (f"{name} grew by {slope.growth:.1f}",) if slope.rises(most) else ()
    return Figure(name, found, f"rise < {most:.1f}", wrongs)
