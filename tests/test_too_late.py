"""Waiting cannot help where a limit opens after the deadline: the caller hears so at once, and until when."""

import asyncio
import time

import pytest

from producer_sdk import AsyncOptimizer, RateLimited
from sandbox.simulator import SimulatorProcess
from tests.support.fleets import provider
from tests.support.house import House
from tests.support.waiting import until

_TWO_A_DAY = 'limits = [{ requests = 2, window_s = 86400, counting = "fixed" }]'


async def use_up(optimizer: AsyncOptimizer) -> None:
    for n in range(2):
        await optimizer.chat(f"Use {n}", timeout=60)


def is_soon_midnight() -> bool:
    """Two windows count near their border."""
    return 86400 - time.time() % 86400 < 300


@pytest.mark.skipif(is_soon_midnight(), reason="the quota opens within the test")
async def test_a_spent_quota_is_told_with_the_instant_at_which_it_opens(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, provider=_TWO_A_DAY)

    async with house.workers(fleet), house.agent() as optimizer:
        await use_up(optimizer)
        told_why: list[object] = []
        with pytest.raises(
            RateLimited, match=r"simulated requests-86400s .* 00:00:05 UTC, after its"
        ) as told:
            await optimizer.chat("One more", timeout=250)
        assert told.value.retryable

        waiting = asyncio.create_task(optimizer.chat("Patient", timeout=90_000, on_wait=told_why.append))
        await until(lambda: bool(told_why))
        with pytest.raises(RateLimited, match="after its deadline"):
            await optimizer.chat("Another", timeout=250)
        assert not waiting.done()
        waiting.cancel()

    assert len(simulator.ledger()) == 2


@pytest.mark.skipif(is_soon_midnight(), reason="the quota opens within the test")
async def test_another_candidate_is_better_than_waiting(house: House, simulator: SimulatorProcess) -> None:
    with SimulatorProcess() as spare:
        first = provider("first", simulator, price=0.1).replace(
            "concurrency", _TWO_A_DAY + "\nconcurrency", 1
        )
        fleet = house.fleet(first + provider("spare", spare, price=0.9))
        async with house.workers(fleet), house.agent() as optimizer:
            await use_up(optimizer)

            replies = [await optimizer.chat(f"More {n}", timeout=250) for n in range(4)]

    assert [reply.provider for reply in replies] == ["spare"] * 4
