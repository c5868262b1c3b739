"""How many jobs a pool holds: what it can start soon, and no more."""

import asyncio

from sandbox.simulator import SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until
from topology import names
from topology.names import Priority

_JOBS = names.jobs_queue("simulated", "any", Priority.NORMAL)
_WAITING = 120


async def test_what_a_limit_keeps_waiting_stays_in_its_queue(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, provider="limits = [{ requests = 2, window_s = 1 }]")

    async def in_hand() -> int:
        return _WAITING - len(simulator.ledger()) - await house.depth(_JOBS)

    async def is_at_most(count: int) -> bool:
        return await in_hand() <= count

    async def is_at_least(count: int) -> bool:
        return await in_hand() >= count

    async with house.workers(fleet), house.agent() as optimizer:
        asked = [asyncio.create_task(optimizer.chat(f"Prompt {n}", timeout=120)) for n in range(_WAITING)]
        await until(lambda: len(simulator.ledger()) > 0)
        await until(lambda: is_at_least(20))  # as many as could be in flight
        await until(lambda: is_at_most(12), timeout_s=60)  # for one or two queues, twice what was in flight
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    assert "rate_limited" not in {call.outcome for call in simulator.ledger()}
