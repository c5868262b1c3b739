"""A run: agents ask, workers die, brokers fail; and when all is over, the books."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from sandbox.simulator import SimulatorProcess
from tests.chaos.account import Terms
from tests.chaos.books import Books, Call
from tests.chaos.breaking import Breaking, Lines, lines_to
from tests.chaos.brokers import Place
from tests.chaos.fleet import Fleet, Pace, fleet_of
from tests.chaos.load import make_load
from tests.chaos.printing import Progress
from tests.chaos.provoking import Provoking
from tests.chaos.records import disagreements, has_running, read_records, witness, workers_of
from tests.chaos.schedule import Schedule
from tests.chaos.striking import SEATS, Striking
from tests.faults.nursery import Nursery, nursery
from tests.support.resting import unrest
from tests.support.waiting import until
from topology import names

MAX_SPENDS: Final = 2
REAL_LEASE_S: Final = 15.0
_TICK_S: Final = 0.1
_LOOK_S: Final = 0.5
_TRICKLE: Final = 2
"""Requests in each tick, at least: points are passed by traffic alone."""
REST_S: Final = 120.0


@dataclass(frozen=True)
class Plan:
    """A run as it was asked for.

    Attributes:
        requests: How many are asked, at least.
        lease_s: How long a claim is believed; None: as in production.
        timeout_s: The deadline of each request.
        least_served: The share of requests that must end in a result.
    """

    seed: int
    schedule: Schedule
    requests: int
    lease_s: float | None = 5.0
    timeout_s: float = 400.0
    least_served: float = 0.99

    @property
    def terms(self) -> Terms:
        """What the account holds it to."""
        return Terms(
            requests=self.requests,
            quotas=self.schedule.quotas,
            kills=self.schedule.kills,
            max_spends=MAX_SPENDS,
            least_served=self.least_served,
            provider_fails="provider" in self.schedule.faults,
        )


async def run(place: Place, plan: Plan, progress: Progress) -> Books:
    """Runs the plan in this place, and returns what was seen."""
    books = Books()
    await place.house.declare(place.fleet(MAX_SPENDS))
    async with AsyncExitStack() as stack:
        lines = await stack.enter_async_context(lines_to(place, plan.schedule.faults))
        watching = await stack.enter_async_context(witness(place.house))
        workers = await stack.enter_async_context(nursery(lines.house))
        fleet = await stack.enter_async_context(fleet_of(lines.house, books, place.house.folder))
        await _work(place, plan, progress, books, _Cast(lines, workers, fleet))
        await fleet.finish(plan.timeout_s + 30.0)
        progress.note("every request has its end; waiting for rest")
        await rest(place, books, REST_S)
        alive = [worker.pid for worker in workers.workers if worker.status is None]
        books.survivors = workers_of(place.database, alive)
        books.frozen = workers_of(place.database, books.frozen_pids)
        events = await watching.all()
        books.records = read_records(place.database, events)
        books.wrongs += disagreements(books.records, events)
        books.calls = calls_of(place.provider) + calls_of(place.cutting)
    return books


@dataclass(frozen=True)
class _Cast:
    lines: Lines
    nursery: Nursery
    fleet: Fleet


async def _work(place: Place, plan: Plan, progress: Progress, books: Books, cast: _Cast) -> None:
    """Until every strike and every fault is over, and as many requests are asked as were wanted."""
    provoking = Provoking(place.house, cast.fleet, cast.nursery, plan.timeout_s)
    striking = Striking(
        cast.nursery, plan.schedule, books, plan.lease_s, plan.requests, provoking.provoke, progress.note
    )
    breaking = Breaking(place, cast.lines, striking, books, plan.lease_s or REAL_LEASE_S, plan.seed)
    await striking.fill()
    pace = Pace(make_load(plan.seed, plan.timeout_s), cast.fleet, plan.requests)
    async with asyncio.TaskGroup() as group:
        seats = [
            group.create_task(striking.hold(role, f"{role}-{n}"), name=f"seat {role}-{n}")
            for role, count in SEATS.items()
            for n in range(count)
        ]
        tell = partial(_tell, progress, plan, books, cast.fleet)
        group.create_task(_break(plan, striking, breaking, progress), name="faults")
        while not all(seat.done() for seat in seats):
            await pace.keep(striking.done / max(1, plan.schedule.kills), _TRICKLE)
            tell()
            await asyncio.sleep(_TICK_S)
    while pace.asked < plan.requests:
        await pace.keep(1.0, 0)
        tell()
        await asyncio.sleep(_TICK_S)
    await provoking.close()


async def _break(plan: Plan, striking: Striking, breaking: Breaking, progress: Progress) -> None:
    """The faults, evenly over the strikes."""
    faults, kills = plan.schedule.faults, plan.schedule.kills
    for n, fault in enumerate(faults, 1):
        due = kills * n // (len(faults) + 1)
        await until(lambda due=due: striking.done >= due, timeout_s=86_400.0)  # type: ignore[misc]
        progress.note(f"fault: {fault}")
        await breaking.carry_out(fault)
        progress.note(f"mended: {fault}")


def _tell(progress: Progress, plan: Plan, books: Books, fleet: Fleet) -> None:
    kinds = Counter(kill.point.partition(".")[0] if kill.point else "outside" for kill in books.kills)
    by_kind = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    progress.tell(
        f"{len(books.kills)} of {plan.schedule.kills} kills ({by_kind or 'none yet'}); "
        f"{books.ended} of {len(books.asked)} answered, {fleet.in_flight} in flight, {books.errors} errors"
    )


async def rest(place: Place, books: Books, patience_s: float) -> None:
    """Nothing moves any more, the recorder has written everything, and every call's time is over."""
    until_ = time.monotonic() + patience_s
    while left := await unrest(place.house) or await _unrecorded(place):
        if time.monotonic() > until_:
            books.left += left
            return
        await asyncio.sleep(_LOOK_S)


async def _unrecorded(place: Place) -> list[str]:
    """What the recorder has not written down yet, and calls that it still takes for running."""
    waiting = await place.house.depth(names.RECORDER_QUEUE)
    found = [f"{waiting} in {names.RECORDER_QUEUE}"] if waiting else []
    return found + (["a call is recorded as running"] if has_running(place.database) else [])


def calls_of(provider: SimulatorProcess) -> list[Call]:
    """The provider's ledger."""
    return [Call(entry.call_id, entry.request_id, entry.outcome) for entry in provider.ledger()]
