"""A call that leaves late: its permit was good for another moment."""

import asyncio

from sandbox.simulator import Limit, SimulatorProcess
from tests.faults.nursery import FaultyWorker, nursery
from tests.support.house import House
from tests.support.waiting import until
from topology.messages import Event

_POINT = "backend.after_started"
_FAR = 1000
_LIMIT = "limits = [{ requests = 1, window_s = 2 }]"


async def test_a_worker_that_was_frozen_with_a_permit_takes_another_before_it_calls(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(limits=[Limit(requests=1, window_s=2).model_dump()])
    fleet = house.simulated(simulator.base_url, provider=_LIMIT, concurrency=2)
    await house.declare(fleet)

    async with nursery(house) as workers, house.agent() as optimizer, house.events() as events:
        await workers.start("front")
        pools = [await workers.start("backend:simulated") for _ in range(2)]
        # Each takes one job and no more: what is handed to the frozen one is of no use to the other.
        await until(lambda: _sharing(events) == len(pools))
        for pool in pools:
            await pool.arm(_POINT, do="stop")
        first = asyncio.create_task(optimizer.chat("One", timeout=60))
        frozen, other = await _who_fired(*pools)
        await other.arm(_POINT, nth=_FAR, do="stop")
        second = asyncio.create_task(optimizer.chat("Two", timeout=60))
        # The first one's window is over, and the other has the permit of the next.
        await until(lambda: bool(simulator.ledger()))
        frozen.cont()
        await asyncio.gather(first, second)

    assert [call.outcome for call in simulator.ledger()] == ["ok", "ok"]


def _sharing(events: list[Event]) -> int:
    """How many pools have heard that they are two."""
    reports = [e.model_dump() for e in events if e.type == "optimizer.worker.health"]
    return len({r["worker"] for r in reports if r["providers"].get("simulated", {}).get("slots") == 1})


async def _who_fired(*pools: FaultyWorker) -> tuple[FaultyWorker, FaultyWorker]:
    waiting = {asyncio.create_task(pool.fired()): pool for pool in pools}
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    (one,) = (waiting[task] for task in done)
    (other,) = (waiting[task] for task in pending)
    return one, other
