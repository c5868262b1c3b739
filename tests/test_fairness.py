"""Agents take turns: one that has a lot waiting does not hold up the others."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

from producer_sdk import AsyncOptimizer
from sandbox.simulator import Entry, SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until
from topology import names
from topology.names import Priority

_JOBS = names.jobs_queue("simulated", "any", Priority.BATCH)
_MANY, _OTHERS, _EACH = 200, 24, 5
_SLOW = "limits = [{ requests = 10, window_s = 1 }]"


async def agent(stack: AsyncExitStack, house: House, name: str) -> AsyncOptimizer:
    return await stack.enter_async_context(house.agent(name))


def ask(optimizer: AsyncOptimizer, name: str, count: int) -> list["asyncio.Task[object]"]:
    return [
        asyncio.create_task(
            optimizer.chat(f"{name} {n}", priority="batch", request_id=f"{name}.{n}", timeout=300)
        )
        for n in range(count)
    ]


def starts(ledger: list[Entry]) -> list[str]:
    return [(call.request_id or "").partition(".")[0] for call in ledger]


async def test_each_agent_gets_its_share_of_the_next_calls(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url, concurrency=4, provider=_SLOW)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(house.workers(fleet, ["front"], ["backend:all"], ["backend:all"]))
        tasks = ask(await agent(stack, house, "hog"), "hog", _MANY)
        beside = names.side_queue(_JOBS, 1)
        await until(lambda: simulator.ledger() != [])
        await until(lambda: _holds(house, beside, _MANY // 2))
        others = [await agent(stack, house, f"agent-{n}") for n in range(_OTHERS)]
        for n, other in enumerate(others):
            tasks += ask(other, f"agent-{n}", _EACH)
        await until(lambda: _holds(house, _JOBS, _OTHERS * _EACH * 3 // 4))
        before = len(simulator.ledger())
        count = (_OTHERS - 2) * _EACH  # to the end there is something that waits of nearly all of them
        await until(lambda: len(simulator.ledger()) >= before + count, timeout_s=120)
        counts = Counter(starts(simulator.ledger()[before : before + count]))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert counts["hog"] <= 4 * _EACH  # of 110; its share is 5, and it had eight in the common queue before


async def _holds(house: House, queue: str, count: int) -> bool:
    try:
        return await house.depth(queue) >= count
    except Exception:  # noqa: BLE001 - it does not stand yet
        return False


async def test_what_waits_beside_is_answered_by_workers_that_come_later(
    house: House, simulator: SimulatorProcess
) -> None:
    """Nobody is left who could tell them of that queue."""
    fleet = house.simulated(simulator.base_url)
    async with house.agent("hog") as optimizer:
        async with house.workers(fleet, ["front"]):
            tasks = ask(optimizer, "hog", 40)
            await until(lambda: _holds(house, names.side_queue(_JOBS, 1), 32))
        async with house.workers(fleet, ["backend:all"]):
            replies = await asyncio.gather(*tasks)

    assert len(replies) == 40
    assert Counter(starts(simulator.ledger())) == {"hog": 40}


async def test_who_would_be_too_late_in_its_turn_goes_before_it(
    house: House, simulator: SimulatorProcess
) -> None:
    """Eight others were there first, a permit is granted each 1.4 s; the ninth would be too late."""
    fleet = house.simulated(simulator.base_url, provider="limits = [{ requests = 1, window_s = 1.2 }]")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(house.workers(fleet, ["front"], ["backend:all"]))
        tasks = []
        for n in range(8):
            tasks += ask(await agent(stack, house, f"agent-{n}"), f"agent-{n}", 1)
        await until(lambda: simulator.ledger() != [])
        late = await agent(stack, house, "late")
        await late.chat("now or never", priority="batch", request_id="late.0", timeout=10)
        order = starts(simulator.ledger())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert order.index("late") < 8
