"""What people are told of limits, of what is closed and of who waits; the claims behind it are real."""

from pathlib import Path

import pytest

from broker.answers import Run
from broker.keys import Keys
from broker.permits import Permits
from broker.standings import Standings
from tests.broker.test_flights import FLIGHT, Desk
from tests.broker.test_lines import sides
from topology.fleet import Fleet
from topology.loading import load_fleet
from topology.messages import Candidate, Job, Request

FLEET = """
[fleet]
concurrency = 9
[providers.one]
base_url = "http://127.0.0.1:9/v1"
concurrency = 4
requests_per_day = 50
[[providers.one.accounts]]
name = "main"
api_keys = ["env:KEY_1", "env:KEY_2"]
limits = [{ requests = 6, window_s = 60 }, { requests = 10, window_s = 100, counting = "bucket", burst = 5 }]
[[providers.one.models]]
id = "small"
requests_per_minute = 3
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET, "utf-8")
    return load_fleet(path, {}, secrets=False)


def standings(desk: Desk) -> Standings:
    return Standings(desk.redis, prefix_of(desk))


def prefix_of(desk: Desk) -> str:
    return desk.flights.prefix.removesuffix("o1:")


async def call(desk: Desk, fleet: Fleet) -> None:
    [provider] = fleet.providers.values()
    [model] = provider.models
    request = Request(id="r1", agent="quality", model="one/small", params={}, deadline=desk.start + 60)
    job = Job(
        fingerprint=FLIGHT,
        request=request,
        waiter=desk.waiter(),
        route=(Candidate(provider="one", model="small"),),
    )
    terms = Permits(fleet, provider, desk.flights.prefix, "w1").terms(job, model)
    assert isinstance(await desk.claim(job.waiter, terms), Run)


async def test_a_call_shows_in_every_limit_that_it_took_a_permit_of(desk: Desk, fleet: Fleet) -> None:
    assert {limit.used for limit in await standings(desk).limits(fleet)} == {0}
    await call(desk, fleet)

    found = await standings(desk).limits(fleet)

    assert [(one.provider, one.account, one.model, one.name, one.amount, one.most) for one in found] == [
        (None, None, None, "concurrency", 9, 9),
        ("one", None, None, "concurrency", 4, 4),
        ("one", None, None, "requests-86400s", 50, 50),
        ("one", "main", None, "requests-60s", 6, 6),
        ("one", "main", None, "requests-100s", 10, 5),
        ("one", "main", "small", "requests-60s", 3, 3),
    ]
    assert [round(one.used) for one in found] == [1] * 6


async def test_it_is_told_when_some_of_a_limit_comes_back(desk: Desk, fleet: Fleet) -> None:
    assert {limit.back_at for limit in await standings(desk).limits(fleet)} == {None}
    await call(desk, fleet)

    now = await standings(desk).now()
    in_s = {
        (one.account, one.model, one.name): one.back_at and one.back_at - now
        for one in await standings(desk).limits(fleet)
    }

    assert in_s[None, None, "concurrency"] is None
    assert 0 < (in_s[None, None, "requests-86400s"] or 0) <= 86400
    assert in_s["main", None, "requests-60s"] == pytest.approx(60.6, abs=5)
    assert in_s["main", None, "requests-100s"] == pytest.approx(10, abs=5)


async def test_what_is_closed_is_told_with_why_and_until_when(desk: Desk, fleet: Fleet) -> None:
    [provider] = fleet.providers.values()
    closed_key = Permits(fleet, provider, desk.flights.prefix, "").closed_key
    await Keys(desk.redis, fleet, prefix_of(desk)).disable(provider, "env:KEY_2")
    await desk.redis.set(closed_key("main", "small"), desk.start + 500)
    await desk.redis.set(closed_key("main", "small") + "|fails", 5)
    await desk.redis.set(closed_key(), desk.start - 1)

    found = await standings(desk).closed(fleet)

    assert [(one.account, one.model, one.key, one.state, one.circuit, one.until) for one in found] == [
        (None, None, None, "half open", False, None),
        ("main", "small", None, "closed", True, desk.start + 500),
        ("main", None, "env:KEY_2", "disabled", False, None),
    ]


async def test_an_agents_flights_are_counted_in_the_queue_and_beside_it(desk: Desk) -> None:
    await sides(desk, "crawler", 11)
    await sides(desk, "writer", 2)

    queue = "jobs.groq.any.batch"

    assert await standings(desk).waiting({queue: 1}) == {"crawler": 11, "writer": 2}
    assert await standings(desk).waiting({queue: 0}) == {"crawler": 8, "writer": 2}
