"""A backend dies with a job in hand: what may have been billed is reported, and bounded."""

import asyncio

import pytest

from producer_sdk import ProviderError
from sandbox.simulator import SimulatorProcess
from tests.crash.scene import LEASE_S, POOL, scene
from tests.support.house import House, echo_of
from topology.events import EventType


async def test_a_backend_that_dies_before_its_claim_costs_nothing(
    house: House, simulator: SimulatorProcess
) -> None:
    async with scene(house, simulator) as s:
        await s.nursery.start("front")
        victim = await s.nursery.start(POOL)
        await victim.arm("backend.before_claim")
        asked = s.ask("Unclaimed")
        await s.dies_at(victim)
        await s.nursery.start(POOL)
        assert (await asked).text.startswith(echo_of("Unclaimed"))
        await s.ends_with(calls=1)


@pytest.mark.parametrize(
    ("point", "calls"),
    [
        ("backend.after_claim", 1),
        ("backend.after_started", 1),
        ("backend.in_call", 2),
        ("backend.after_call", 2),
    ],
)
async def test_a_backend_that_dies_with_a_claim_leaves_one_doubt_and_the_next_one_runs(
    house: House, simulator: SimulatorProcess, point: str, calls: int
) -> None:
    async with scene(house, simulator, latency_s=0.3) as s:
        await s.nursery.start("front")
        victim = await s.nursery.start(POOL, lease_s=LEASE_S)
        in_call = point == "backend.in_call"
        await victim.arm(point, do="stop" if in_call else "kill")
        asked = [s.ask("In doubt"), s.ask("In doubt")]
        await (s.dies_in_call(victim, 0) if in_call else s.dies_at(victim))
        await s.nursery.start(POOL)
        replies = await asyncio.gather(*asked)
        assert sorted(str(reply.source) for reply in replies) == ["dedupe", "provider"]
        assert len({reply.text for reply in replies}) == 1
        await s.ends_with(calls=calls, doubtful=1)


@pytest.mark.parametrize(
    "point",
    ["backend.after_commit", "backend.after_event", "backend.after_replies", "backend.after_settle"],
)
async def test_a_backend_that_dies_after_its_commit_leaves_only_the_telling_to_the_next(
    house: House, simulator: SimulatorProcess, point: str
) -> None:
    async with scene(house, simulator) as s:
        await s.nursery.start("front")
        victim = await s.nursery.start(POOL)
        await victim.arm(point)
        asked = [s.ask("Stored"), s.ask("Stored")]
        await s.dies_at(victim)
        await s.nursery.start(POOL)
        replies = await asyncio.gather(*asked)
        assert {reply.text[:21] for reply in replies} == {echo_of("Stored")}
        await s.ends_with(calls=1)
        assert len(s.of(EventType.CALL_COMPLETED)) == 1


@pytest.mark.parametrize("point", ["backend.after_release", "backend.parked"])
async def test_a_backend_that_dies_between_two_tries_leaves_the_next_try_to_the_next(
    house: House, simulator: SimulatorProcess, point: str
) -> None:
    async with scene(house, simulator) as s:
        simulator.change(script=["server_error"])
        await s.nursery.start("front")
        victim = await s.nursery.start(POOL)
        await victim.arm(point)
        asked = s.ask("Again")
        await s.dies_at(victim)
        await s.nursery.start(POOL)
        assert (await asked).text.startswith(echo_of("Again"))
        await s.ends_with(calls=2)


@pytest.mark.parametrize("fault", ["timeout", "cut"])
async def test_a_provider_that_times_out_or_cuts_after_it_began_is_doubtful_and_asked_again(
    house: House, simulator: SimulatorProcess, fault: str
) -> None:
    async with scene(house, simulator, timeout_s=1.0) as s:
        simulator.change(script=[fault])
        await s.nursery.start("front", POOL)
        assert (await s.ask("Cut off")).text.startswith(echo_of("Cut off"))
        await s.ends_with(calls=2, doubtful=1)


async def test_doubts_are_bounded_by_max_spends_whoever_is_to_blame(
    house: House, simulator: SimulatorProcess
) -> None:
    async with scene(house, simulator) as s:
        simulator.change(script=["cut"] * 5)
        await s.nursery.start("front", POOL)
        with pytest.raises(ProviderError, match="max_spends"):
            await s.ask("Never whole")
        await s.ends_with(calls=2, doubtful=2)


async def test_a_job_that_kills_its_workers_ends_in_an_error_for_all_who_wait(
    house: House, simulator: SimulatorProcess
) -> None:
    async with scene(house, simulator, latency_s=0.3) as s:
        await s.nursery.start("front")
        asked = [s.ask("Poison"), s.ask("Poison")]
        for _ in range(2):  # max_spends
            bought = len(s.calls())
            victim = await s.nursery.start(POOL, armed="backend.in_call", do="stop", lease_s=LEASE_S)
            await s.dies_in_call(victim, bought)
        await s.nursery.start(POOL)
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in errors] == [ProviderError] * 2
        assert all("2 calls ended without a known result" in str(error) for error in errors)
        await s.ends_with(calls=2, doubtful=2)
