"""Agents go round across workers: what is rounds ahead waits for another agent's job in another hand."""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict
from itertools import count
from typing import Any, Final

import pytest

from broker.answers import Later, Run
from broker.scripting import pack
from broker.terms import ClaimTerms, Place
from tests.broker.test_flights import Desk
from tests.broker.test_turns import ask, give_back, limit, one_in
from tests.model.lua import LuaScripts, sources

AHEAD: Final = 3
QUEUE: Final = "jobs.groq.any.normal"


def place(agent: str, turn: float, following: tuple[float, str] | None = None) -> Place:
    return Place(QUEUE, turn, agent, AHEAD, following)


def lease(desk: Desk, amount: int = 1) -> Mapping[str, Any]:
    return {"kind": "lease", "key": desk.key("lease:r"), "amount": amount, "name": "r"}


def at(desk: Desk, worker: str, its: Place | None, *limits: Mapping[str, Any]) -> ClaimTerms:
    return desk.terms(worker, limits=limits or (lease(desk),), seat=worker, place=its)


async def refuse(desk: Desk, its: Place, amount: int = 1) -> list[ClaimTerms]:
    """The claim `first` of the worker w1, while all permits are taken; returns who holds them, `held-<n>`."""
    held = [at(desk, "w0", None, lease(desk, amount)) for _ in range(amount)]
    for n, one in enumerate(held):
        assert isinstance(await ask(desk, f"held-{n}", one), Run)
    assert isinstance(await ask(desk, "first", at(desk, "w1", its, lease(desk, amount))), Later)
    return held


async def free(desk: Desk, *held: ClaimTerms, first: int = 0) -> None:
    for n, one in enumerate(held, first):
        await give_back(desk, f"held-{n}", one)


async def test_what_is_rounds_ahead_leaves_the_permit_to_who_waits_elsewhere(desk: Desk) -> None:
    await free(desk, *await refuse(desk, place("writer", 2.0)))

    refused = await ask(desk, "second", at(desk, "w2", place("hog", 2.1 + AHEAD)))

    assert isinstance(refused, Later)
    assert refused.limit == "round"
    assert isinstance(await ask(desk, "first", at(desk, "w1", place("writer", 2.0))), Run)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (place("writer", 2.0), place("hog", 2.0 + AHEAD)),
        (place("hog", 2.0), place("hog", 200.0)),
        (place("writer", 0.0), place("hog", 200.0)),
        (place("writer", 2.0), place("hog", 0.0)),
        (place("writer", 2.0), None),
    ],
    ids=["a few rounds ahead", "the same agent", "waits without a turn", "has no turn", "nobody goes round"],
)
async def test_it_waits_for_nobody_else(desk: Desk, first: Place, second: Place | None) -> None:
    await free(desk, *await refuse(desk, first))

    assert isinstance(await ask(desk, "second", at(desk, "w2", second)), Run)


async def test_another_line_has_rounds_of_its_own(desk: Desk) -> None:
    await free(desk, *await refuse(desk, place("writer", 2.0)))

    other = Place("jobs.groq.any.batch", 200.0, "hog", AHEAD)
    assert isinstance(await ask(desk, "second", at(desk, "w2", other)), Run)


async def test_of_all_that_was_refused_at_a_worker_the_earliest_waits(desk: Desk) -> None:
    held = await refuse(desk, place("writer", 2.0))
    assert isinstance(await ask(desk, "other", at(desk, "w1", place("hog", 4.0))), Later)
    await free(desk, *held)

    assert isinstance(await ask(desk, "second", at(desk, "w2", place("hog", 2.1 + AHEAD))), Later)


async def test_who_does_not_come_is_waited_for_no_longer(desk: Desk) -> None:
    await free(desk, *await refuse(desk, place("writer", 2.0)))  # and its worker dies

    tries, second = 0, at(desk, "w2", place("hog", 200.0))
    while isinstance(refused := await ask(desk, "second", second), Later):
        tries += 1
        await asyncio.sleep(max(0.0, refused.until - await desk.flights.now()))

    assert isinstance(refused, Run)
    assert 1 <= tries < 30


async def test_who_can_go_no_sooner_is_not_waited_for(desk: Desk) -> None:
    hour = limit(desk)
    assert isinstance(await ask(desk, "held", at(desk, "w0", None, hour)), Run)
    assert isinstance(await ask(desk, "first", at(desk, "w1", place("writer", 2.0), hour)), Later)

    assert isinstance(await ask(desk, "second", at(desk, "w2", place("hog", 200.0))), Run)


@pytest.mark.parametrize(
    ("following", "waits"),
    [((3.0, "writer"), True), ((3.0, "hog"), False), ((0.0, "writer"), False), (None, False)],
)
async def test_where_one_was_granted_the_next_in_that_hand_waits(
    desk: Desk, following: tuple[float, str] | None, waits: bool
) -> None:
    two = lease(desk, 2)
    held = await refuse(desk, place("writer", 2.0), amount=2)
    await free(desk, *held)
    assert isinstance(await ask(desk, "first", at(desk, "w1", place("writer", 2.0, following), two)), Run)

    second = await ask(desk, "second", at(desk, "w2", place("hog", 3.1 + AHEAD), two))

    assert isinstance(second, Later if waits else Run)


async def test_who_is_short_of_no_permit_holds_up_nobody(desk: Desk) -> None:
    two = lease(desk, 2)
    assert isinstance(
        await ask(desk, "first", at(desk, "w1", place("writer", 2.0, (2.0, "writer")), two)), Run
    )

    assert isinstance(await ask(desk, "second", at(desk, "w2", place("hog", 200.0), two)), Run)


class Worker:
    """Holds the jobs of these agents by rounds; asks for one after the other, and when it was told to."""

    def __init__(self, seat: str, jobs: list[tuple[float, str]]) -> None:
        self.seat, self.jobs, self.at = seat, deque(jobs), 1.0

    def place(self) -> Place:
        turn, agent = self.jobs[0]
        return place(agent, turn, self.jobs[1] if len(self.jobs) > 1 else None)


def test_agents_go_round_where_one_worker_holds_the_jobs_of_all_but_one() -> None:
    scripts, started, numbers = LuaScripts(sources()), Counter[str](), count()
    others = [(turn + n / 10, f"agent-{n}") for turn in range(1, 11) for n in range(5)]
    hogs = [[(float(turn), "hog") for turn in range(first, 400, 4)] for first in range(1, 5)]
    workers = [Worker(f"w{n}", jobs) for n, jobs in enumerate([others, *hogs])]
    account = {"name": "main", "limits": [], "keys": [{"closed": []}], "closed": []}
    while workers[0].jobs:
        worker = min(workers, key=lambda one: one.at)
        scripts.now = worker.at
        token, its = f"t{next(numbers)}", worker.place()
        arguments = {
            "key": "a/r", "waiter": pack({"deadline": 1e9}), "deadline": 1e9, "worker": worker.seat,
            "token": token, "lease_s": 15.0, "max_spends": 2, "call": pack({}), "closed": [],
            "permit_key": f"permit:{token}", "paused": [], "accounts": [account], "used_key": "used",
            "rotation": "least_used", "notes_key": "", "limits": [{**one_in(1.0, "rate"), "amount": 5}],
            "rank": 0, "shares": [1.0], "seat": worker.seat, "budgets": [], "own_budgets": [],
            "lines": [], "retries": {},
            "place": {**asdict(its), "next": its.next or ()},
        }  # fmt: skip
        answer = scripts.evaluate("claim", token, pack(arguments))
        scripts.frozen = tuple(one for one in scripts.frozen if one[0].startswith(("rate", "o1:line")))
        if answer[0] == b"run":
            started[worker.jobs.popleft()[1]] += 1
            worker.at += 0.002
        else:
            worker.at = float(answer[1]) + 0.001

    assert started["hog"] <= 10 + AHEAD + 1
    assert {started[f"agent-{n}"] for n in range(5)} == {10}
