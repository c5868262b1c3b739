"""A call that takes long is made at a second provider besides, where wanted; the first answer counts."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from producer_sdk import AsyncOptimizer
from sandbox.simulator import SimulatorProcess
from tests.support.fleets import provider
from tests.support.house import House
from tests.support.waiting import until
from topology.fleet import Fleet
from topology.messages import CacheMode, Candidate, Event, Job, Reply, Request, Waiter
from topology.names import Priority
from workers.latencies import Latencies
from workers.offering import may_be_asked_twice

_WARM = 20
_SLOW = 3


async def asked(agent: AsyncOptimizer, *numbers: int) -> list[Reply]:
    prompts = [f"Prompt {number}" for number in numbers]
    return await asyncio.gather(
        *(agent.chat(p, model="sim-small", priority="high", timeout=60) for p in prompts)
    )


def of(events: list[Event], type_: str) -> list[dict[str, Any]]:
    return [event.model_dump() for event in events if event.type == f"optimizer.{type_}"]


async def test_a_share_of_the_calls_that_take_long_is_made_twice_and_the_slow_one_is_cut(
    house: House, simulator: SimulatorProcess
) -> None:
    with SimulatorProcess() as spare:
        providers = provider("first", simulator, price=0.1) + provider("spare", spare, price=0.9)
        fleet = house.fleet(f"[hedging]\nshare = {1 / _WARM}\n{providers}")
        async with (
            house.workers(fleet, ["front"], ["backend:first"], ["backend:spare"]),
            house.agent() as agent,
            house.events() as events,
        ):
            await asked(agent, *range(_WARM))
            simulator.change(latency={"median_s": 2.0})
            replies = await asked(agent, *range(_WARM, _WARM + _SLOW))
            await until(lambda: bool(of(events, "spend.doubtful")))
        [second] = spare.ledger()

    # One of twenty may be, and was; of the three that took as long, no second one.
    assert Counter(reply.provider for reply in replies) == {"spare": 1, "first": _SLOW - 1}
    [fast] = [reply for reply in replies if reply.provider == "spare"]
    outcomes = Counter(entry.outcome for entry in simulator.ledger())
    assert outcomes == {"ok": _WARM + _SLOW - 1, "client_gone": 1}
    [hedge] = of(events, "hedge")
    [doubtful] = of(events, "spend.doubtful")
    assert (hedge["provider"], hedge["call"], hedge["beside"]) == ("spare", second.call_id, doubtful["call"])
    assert (doubtful["reason"], doubtful["called_for"]) == ("answered", fast.id)
    [paid] = [call for call in of(events, "call.completed") if call["provider"] == "spare"]
    assert (paid["call"], paid["agent"], paid["request_id"]) == (second.call_id, "tester", fast.id)
    assert fast.attempts == 2
    assert paid["cost_usd"] == fast.cost_usd != 0


async def test_a_second_call_that_fails_or_is_slower_changes_nothing_for_the_first(
    house: House, simulator: SimulatorProcess
) -> None:
    with SimulatorProcess() as spare:
        providers = provider("first", simulator, price=0.1) + provider("spare", spare, price=0.9)
        fleet = house.fleet(f"[hedging]\nshare = 0.2\n{providers}")
        async with (
            house.workers(fleet, ["front"], ["backend:all"]),
            house.agent() as agent,
            house.events() as events,
        ):
            await asked(agent, *range(_WARM))
            simulator.change(latency={"median_s": 1.0})
            spare.change(faults={"server_error": 1.0})
            [beside_a_failure] = await asked(agent, _WARM)
            spare.change(faults={}, latency={"median_s": 600.0})
            [beside_a_slower] = await asked(agent, _WARM + 1)
            await until(lambda: bool(of(events, "spend.doubtful")))
        failed, cut = spare.ledger()

    assert (beside_a_failure.provider, beside_a_slower.provider) == ("first", "first")
    assert (failed.outcome, cut.outcome) == ("server_error", "client_gone")
    assert {entry.outcome for entry in simulator.ledger()} == {"ok"}
    assert [hedge["call"] for hedge in of(events, "hedge")] == [failed.call_id, cut.call_id]
    [doubtful] = of(events, "spend.doubtful")
    assert (doubtful["call"], doubtful["reason"]) == (cut.call_id, "answered")
    assert {call["call"]: call["kind"] for call in of(events, "call.failed")} == {
        failed.call_id: "capacity",
        cut.call_id: "cancelled",
    }
    assert not of(events, "failover")


async def test_none_is_made_twice_where_nobody_said_so(house: House, simulator: SimulatorProcess) -> None:
    with SimulatorProcess() as spare:
        fleet = house.fleet(provider("first", simulator, price=0.1) + provider("spare", spare, price=0.9))
        async with house.workers(fleet, ["front"], ["backend:all"]), house.agent() as agent:
            await asked(agent, *range(_WARM))
            simulator.change(latency={"median_s": 1.0})
            [slow] = await asked(agent, _WARM)

        assert (slow.provider, slow.attempts, spare.ledger()) == ("first", 1, [])


def job(priority: Priority = Priority.HIGH, cache: CacheMode = CacheMode.USE, **params: Any) -> Job:
    request = Request(id="r1", agent="quality", params={"messages": [], **params}, cache=cache)
    waiter = Waiter(agent="quality", id="r1", reply_to=None, priority=priority, deadline=1.0, queued_at=0.0)
    return Job(fingerprint="f1", request=request, waiter=waiter, route=(Candidate(provider="p", model="m"),))


@pytest.mark.parametrize(
    ("asked_for", "may_be"),
    [
        (job(), True),
        (job(temperature=1.0, tools=[]), True),
        (job(cache=CacheMode.REFRESH), True),
        (job(Priority.NORMAL), False),
        (job(Priority.BATCH), False),
        (job(cache=CacheMode.OFF), False),
        (job(tools=[{"type": "function"}]), False),
        (job(functions=[{"name": "pay"}]), False),
        (job(web_search_options={"search_context_size": "low"}), False),
    ],
)
def test_asked_twice_is_only_what_is_urgent_shared_and_without_effects(asked_for: Job, may_be: bool) -> None:
    assert may_be_asked_twice(asked_for) is may_be


def test_what_takes_long_is_known_by_the_last_calls_of_a_model() -> None:
    latencies = Latencies()
    for tenth in range(1, 20):
        latencies.note("m", tenth / 10)
    assert latencies.most_s("m") is None

    latencies.note("m", 60.0)

    assert latencies.most_s("m") == 1.9
    assert latencies.most_s("another") is None
    for _ in range(200):
        latencies.note("m", 5.0)
    assert latencies.most_s("m") == 5.0


@pytest.mark.parametrize("share", [-0.01, 0.21])
def test_a_share_that_would_double_the_bill_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"hedging\.share"):
        Fleet(hedging={"share": share})
