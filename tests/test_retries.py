"""A provider that fails some of its calls: it is asked again within its budget, and everybody is answered."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from broker.flights import Flights
from broker.permits import retries_key
from sandbox.simulator import Faults, SimulatorProcess
from tests.support.fleets import provider
from tests.support.house import House
from tests.support.waiting import until

_ASKED = 30
_AT_HAND, _SHARE, _EACH_S = 10, 0.2, 5.0
_PAUSE_S = 1.5


@pytest.fixture
def spare() -> Iterator[SimulatorProcess]:
    """Another provider, dearer than the first."""
    with SimulatorProcess() as process:
        yield process


async def test_retries_that_fail_stay_within_the_budget_and_all_are_answered_once_it_heals(
    house: House, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topology.pauses._TIMES_ITS_MEAN", 0.0)  # all pauses are the shortest
    # One in three is answered, and one call follows the other, so that no circuit opens.
    in_trouble = ["server_error", "server_error", "slow"] * 200
    simulator.change(faults=Faults(slow_s=0).model_dump(), script=in_trouble)
    fleet = house.simulated(simulator.base_url, concurrency=1)
    began = time.monotonic()

    async with house.workers(fleet), house.events("optimizer.retry") as events, house.agent() as optimizer:
        asked = [asyncio.create_task(optimizer.chat(f"Question {n}", timeout=60)) for n in range(_ASKED)]
        await until(lambda: "simulated retry budget" in [event.model_dump()["why"] for event in events])
        assert not all(task.done() for task in asked)
        simulator.change(script=[])
        fresh = [optimizer.chat(f"New question {n}", timeout=60) for n in range(5)]
        replies = await asyncio.gather(*asked, *fresh)

    assert {reply.status for reply in replies} == {"ok"}
    ledger = simulator.ledger()
    failed = Counter(call.request_id for call in ledger if call.outcome == "server_error")
    good = _ASKED + len(fresh)
    budget = _AT_HAND + _SHARE * good + (time.monotonic() - began) / _EACH_S
    assert len(ledger) == good + failed.total()
    assert failed.total() - len(failed) <= budget


async def test_with_its_budget_used_up_whoever_may_be_asked_again_is_once_the_pause_is_over(
    house: House, simulator: SimulatorProcess, spare: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.failing.jittered", lambda *_: _PAUSE_S)  # of two tiers of a second
    for one in (simulator, spare):
        one.change(script=["server_error"])
    fleet = house.fleet(provider("first", simulator, price=0.1) + provider("spare", spare, price=0.9))
    async with Redis.from_url(house.redis_url) as redis:
        flights = Flights(redis, house.prefix)
        await redis.set(retries_key(flights.prefix, "first"), await flights.now() + 3600.0)

    async with house.workers(fleet), house.events("optimizer.failover") as events, house.agent() as optimizer:
        reply = await optimizer.chat("Try both", model="sim-small", timeout=60)
        await until(lambda: len(events) >= 2)

    assert (reply.provider, reply.attempts) == ("spare", 3)
    [failed, answered] = spare.ledger()
    assert answered.arrived_at - failed.arrived_at >= _PAUSE_S
    assert len(simulator.ledger()) == 1
    assert [event.model_dump()["why"] for event in events] == ["capacity", "first retry budget"]
