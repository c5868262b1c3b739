"""A durable request whose own job waits for a call of the same worker, for another request."""

import asyncio

from redis import Redis

from sandbox.simulator import Latency, SimulatorProcess
from tests.support.house import House, echo_of
from tests.support.waiting import until


def waiters(redis: Redis) -> int:
    """Of the one flight there is."""
    return sum(int(redis.hlen(key)) for key in redis.scan_iter("*waiters:*"))


async def test_it_is_answered_though_redis_is_emptied_during_the_call(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    simulator.change(latency=Latency(median_s=3.0).model_dump())
    async with (
        house.workers(house.simulated(simulator.base_url)),
        house.agent("first") as first,
        house.agent("second") as second,
    ):
        asked = asyncio.create_task(first.chat("The same", timeout=60))
        await until(lambda: len(simulator.ledger()) == 1)
        job = await second.submit("The same")
        with Redis.from_url(house.redis_url) as redis:
            await until(lambda: waiters(redis) == 2)
            redis.flushdb()

        replies = [await asked, await second.result(job, timeout=60)]

    assert {reply.text[:21] for reply in replies} == {echo_of("The same")}
