"""A pool is gone, its queue too, or a job is handed out too often: somebody else answers."""

from urllib.parse import quote

import httpx
import pytest

from sandbox.simulator import SimulatorProcess
from tests.crash.scene import JOBS, POOL, scene
from tests.support.fleets import provider
from tests.support.house import House, echo_of
from tests.support.waiting import until
from topology.events import EventType
from topology.names import DEAD_KEPT_QUEUE


@pytest.mark.parametrize("gone", ["the pool", "the queue"])
async def test_what_waits_for_a_pool_or_a_queue_that_is_gone_is_answered_by_another(
    house: House, simulator: SimulatorProcess, gone: str
) -> None:
    dearer = provider("dearer", simulator, price=9.0)
    async with scene(house, simulator, more=dearer) as s, house.agent("next") as other:
        await s.nursery.start("front", backoff_s=0.1)
        asked = s.ask("Elsewhere", model="sim-small")

        async def the_job_waits() -> bool:
            return await house.depth(JOBS) == 1

        await until(the_job_waits)
        if gone == "the queue":
            await delete_queue(house, JOBS)
        await s.nursery.start("backend:dearer")
        await until(lambda: len(s.beats("backend:dearer")) >= 2)  # the front has heard of it, too
        reply = await other.chat("Elsewhere", model="sim-small", timeout=30)
        assert (reply.provider, reply.text[:21]) == ("dearer", echo_of("Elsewhere"))
        assert (await asked).text == reply.text
        if gone == "the pool":
            await s.nursery.start(POOL)  # it comes back to a job that is done
        await s.ends_with(calls=1)


async def test_a_job_handed_out_too_often_is_answered_by_the_undertaker(
    house: House, simulator: SimulatorProcess
) -> None:
    async with scene(house, simulator) as s:
        await limit_deliveries(house, to=2)
        await s.nursery.start("front", "undertaker")
        asked = s.ask("Handed out and out")
        while not s.of(EventType.DEAD):
            await s.nursery.start(POOL, armed="backend.before_claim")
            await until(lambda: s.nursery.workers[-1].status is not None or bool(s.of(EventType.DEAD)))
        victim = s.nursery.workers[-1]
        victim.kill()
        await victim.ended()
        await s.nursery.start(POOL)
        assert (await asked).text.startswith(echo_of("Handed out and out"))
        assert await house.depth(DEAD_KEPT_QUEUE) == 1
        await s.ends_with(calls=1)


async def delete_queue(house: House, queue: str) -> None:
    async with httpx.AsyncClient(base_url=house.management_url, timeout=30) as client:
        (await client.delete(f"/api/queues/{quote(house.vhost, safe='')}/{queue}")).raise_for_status()


async def limit_deliveries(house: House, to: int) -> None:
    """The policy of the queues that work waits in, with another limit."""
    async with httpx.AsyncClient(base_url=house.management_url, timeout=30) as client:
        path = f"/api/policies/{quote(house.vhost, safe='')}/optimizer-work"
        policy = (await client.get(path)).raise_for_status().json()
        policy["definition"]["delivery-limit"] = to
        (await client.put(path, json=policy)).raise_for_status()
