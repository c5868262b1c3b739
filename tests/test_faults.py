"""The workers that die and freeze on order do so, and only then."""

import signal

from sandbox.simulator import SimulatorProcess
from tests.faults.nursery import nursery
from tests.support.house import House


async def test_a_worker_dies_at_the_point_and_the_time_it_was_told(
    house: House, simulator: SimulatorProcess
) -> None:
    await house.declare(house.simulated(simulator.base_url))

    async with nursery(house) as n, house.agent() as optimizer:
        backend = await n.start("backend:simulated")
        front = await n.start("front")
        await front.arm("front.after_confirm", nth=2)
        await optimizer.chat("First")
        second = optimizer.chat("Second")
        assert (await second).text
        fired = await front.fired()
        assert (fired.point, fired.pid) == ("front.after_confirm", front.pid)
        assert await front.ended() == -signal.SIGKILL
        assert backend.status is None
