"""Several replicas wait for one permit: the more urgent request gets the next, wherever it waits."""

import asyncio

from producer_sdk import AsyncOptimizer
from sandbox.simulator import SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until
from topology.messages import Event

_POOLS = 4


async def test_an_urgent_request_gets_the_next_permit_of_all_replicas(
    house: House, simulator: SimulatorProcess
) -> None:
    """Each time there is one permit in a second, and one urgent request among many at all replicas."""
    fleet = house.simulated(simulator.base_url, provider="limits = [{ requests = 1, window_s = 1 }]")

    async with (
        house.workers(fleet, ["front"], *[["backend:all"]] * _POOLS),
        house.agent() as optimizer,
        house.events() as events,
    ):
        patient = [
            asyncio.create_task(optimizer.chat(f"Patient {n}", priority="batch", timeout=90))
            for n in range(60)
        ]
        await until(lambda: len(simulator.ledger()) >= 2)
        for n in range(4):
            assert await calls_before(f"urgent-{n}", optimizer, simulator, events) <= 1
        for task in patient:
            task.cancel()
        await asyncio.gather(*patient, return_exceptions=True)


async def calls_before(
    name: str, optimizer: AsyncOptimizer, simulator: SimulatorProcess, events: list[Event]
) -> int:
    """How many calls came after the urgent one was refused, and before it; one may have been on its way."""
    known = len(events)
    asked = asyncio.create_task(optimizer.chat(name, priority="high", request_id=name, timeout=60))
    await until(lambda: any(is_refusal(e) for e in events[known:]) or asked.done())
    refused = [e.at for e in events[known:] if is_refusal(e)]
    await asked
    calls = [call for call in simulator.ledger() if call.arrived_at > (refused or [0.0])[0]]
    return [call.request_id for call in calls].index(name) if refused else 0


def is_refusal(event: Event) -> bool:
    return event.type == "optimizer.rate_limit" and getattr(event, "priority", None) == "high"
