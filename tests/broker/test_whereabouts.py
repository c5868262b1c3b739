"""Where a request stands: in its line, in a tier, at a provider, at the entrance."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.answers import Lead, Run
from broker.flights import Admission
from broker.permits import Permits
from broker.whereabouts import Tracer, Whereabouts
from tests.broker.test_flights import Desk
from topology.fleet import Fleet
from topology.loading import load_fleet
from topology.names import Priority

_QUEUE = "jobs.groq.any.normal"
_FLEET = """
[providers.groq]
base_url = "http://groq.test/v1"
api_keys = ["env:KEY"]
concurrency = 50
limits = [{ requests = 2, window_s = 60 }]
models = [{ id = "llama" }]
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    path = tmp_path / "fleet.toml"
    path.write_text(_FLEET, "utf-8")
    return load_fleet(path, {"KEY": "sk"})


def tracer(desk: Desk, fleet: Fleet) -> Tracer:
    return Tracer(desk.redis, fleet, desk.flights.prefix.removesuffix("o1:"))


async def ask(desk: Desk, name: str, agent: str = "quality", **changes: Any) -> None:
    waiter = desk.waiter(name, agent, left_s=600.0)
    admission = Admission(f"f-{name}", waiter, 600.0, 600.0, queue=_QUEUE)
    [answer] = await desk.flights.admit([replace(admission, **changes)])
    assert isinstance(answer, Lead)


async def call(desk: Desk, fleet: Fleet, name: str) -> str:
    provider = fleet.providers["groq"]
    shared, accounts = Permits(fleet, provider, desk.flights.prefix, "w1").limits_of_lane(
        "any", Priority.NORMAL
    )
    priced = tuple({**limit, "cost": 1.0} if "cost" in limit else limit for limit in shared)
    terms = desk.terms(limits=priced, accounts=(desk.account(next(iter(accounts))),))
    run = await desk.flights.claim(f"f-{name}", desk.waiter(name, left_s=600.0), terms)
    assert isinstance(run, Run)
    return terms.token


async def one(desk: Desk, fleet: Fleet, name: str) -> Whereabouts:
    [found] = await tracer(desk, fleet).of(name)
    return found


async def test_what_waits_has_a_place_and_an_expected_start(desk: Desk, fleet: Fleet) -> None:
    for n in range(5):
        await ask(desk, f"r{n}")
    await call(desk, fleet, "r0")
    await call(desk, fleet, "r1")

    found = [await one(desk, fleet, f"r{n}") for n in (2, 3, 4)]

    assert [(w.state, w.provider, w.lane, w.position) for w in found] == [
        ("queued", "groq", "any", n) for n in range(3)
    ]
    waits = [round((w.starts_at or 0) - time.time(), -1) for w in found]
    assert waits == [60, 60, 120]


async def test_who_comes_later_with_less_waiting_is_placed_before_the_rest(desk: Desk, fleet: Fleet) -> None:
    for n in range(5):
        await ask(desk, f"hog-{n}", "hog")
    await ask(desk, "small", "writer")

    assert (await one(desk, fleet, "small")).position == 1
    assert (await one(desk, fleet, "hog-4")).position == 5


async def test_more_urgent_classes_are_reckoned_with(desk: Desk, fleet: Fleet) -> None:
    await ask(desk, "first")
    before = (await one(desk, fleet, "first")).starts_at
    for n in range(6):
        waiter = desk.waiter(f"h{n}", "other", left_s=600.0, priority=Priority.HIGH)
        await desk.flights.admit([Admission(f"h{n}", waiter, 0.0, 0.0, queue="jobs.groq.any.high")])

    after = (await one(desk, fleet, "first")).starts_at

    assert before is not None
    assert after is not None
    assert after - before > 50  # two of the six go in this minute, and its own share is three in eleven


async def test_what_runs_says_where_and_since_when(desk: Desk, fleet: Fleet) -> None:
    await ask(desk, "r1")
    await call(desk, fleet, "r1")

    found = await one(desk, fleet, "r1")

    assert (found.state, found.provider, found.model, found.worker) == ("running", "groq", "m", "w1")
    assert found.attempts == 1


async def test_what_is_parked_says_until_when(desk: Desk, fleet: Fleet) -> None:
    await ask(desk, "r1")
    token = await call(desk, fleet, "r1")
    await desk.flights.release("f-r1", token, parked_until=desk.start + 300)

    found = await one(desk, fleet, "r1")

    assert found.state == "parked"
    assert found.until == pytest.approx(desk.start + 300)


async def test_a_rate_at_the_entrance_is_named(desk: Desk, fleet: Fleet) -> None:
    limit = {"key": desk.key("rate:agent:quality"), "amount": 1, "window_s": 60.0, "name": "agent's rate"}
    await ask(desk, "r1", limits=(limit,))
    waiter = desk.waiter("r2", left_s=600.0)
    await desk.flights.admit([Admission("f-r2", waiter, 600.0, 600.0, (limit,), _QUEUE)])

    found = await one(desk, fleet, "r2")

    assert found.state == "limited"
    assert found.until == pytest.approx(desk.start + 60, abs=5)


async def test_nobody_who_never_asked_is_found(desk: Desk, fleet: Fleet) -> None:
    assert await tracer(desk, fleet).of("nobody") == []
