"""A short run in the suite; `make fuzz` has the long one."""

from sandbox.simulator import SimulatorProcess
from tests.fuzz.malformed import KINDS
from tests.fuzz.running import run
from tests.support.house import House

COUNT = 2000


async def test_two_thousand_malformed_messages_each_have_one_end_and_stop_no_worker(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    fleet = own_redis.simulated(simulator.base_url)

    report = await run(own_redis, fleet, seed=1, count=COUNT, say=lambda _: None)

    assert report.wrongs == []
    assert report.served_in_between == COUNT // 1000 + 1
    assert len(KINDS) < COUNT
