"""The entrance: the agents' and the fleet's own rates, large requests, and a fault of ours."""

import asyncio

import pytest

from producer_sdk import InvalidRequest, RateLimited
from sandbox.simulator import SimulatorProcess
from tests.support.house import House, echo_of
from topology.wire import MAX_BODY_BYTES


async def test_an_agent_over_its_rate_waits_its_turn_while_others_pass(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, fleet="agent_requests_per_minute = 2")

    async with house.workers(fleet), house.agent("busy") as busy, house.agent("calm") as calm:
        asked = [asyncio.create_task(busy.chat(f"Prompt {n}", timeout=300)) for n in range(3)]
        first = await asyncio.gather(*asked[:2])
        other = await calm.chat("Prompt of another", timeout=30)
        again = await busy.chat("Prompt 0", timeout=30)
        assert not asked[2].done()
        asked[2].cancel()

    assert {reply.source for reply in [*first, other]} == {"provider"}
    assert again.source == "cache"  # hits are free


@pytest.mark.parametrize("rate", ["1", "0.5"])
async def test_a_turn_that_comes_after_the_deadline_is_told_at_once(
    house: House, simulator: SimulatorProcess, rate: str
) -> None:
    fleet = house.simulated(simulator.base_url, fleet=f"requests_per_minute = {rate}")

    async with house.workers(fleet), house.agent() as optimizer:
        await optimizer.chat("First", timeout=30)
        with pytest.raises(RateLimited, match="fleet's rate lets this request pass in"):
            await optimizer.chat("Second", timeout=30)

    assert len(simulator.ledger()) == 1


async def test_the_largest_request_passes_and_a_larger_one_is_refused_before_it_is_sent(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    largest = "x" * (MAX_BODY_BYTES - 1000)

    async with house.workers(fleet), house.agent() as optimizer:
        reply = await optimizer.chat(largest, timeout=60, max_tokens=5)
        with pytest.raises(InvalidRequest, match="more than the limit"):
            await optimizer.chat(largest + "x" * 2000)

    assert reply.text.startswith(echo_of(largest)[:10])
    assert len(simulator.ledger()) == 1
