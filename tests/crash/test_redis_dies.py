"""Redis goes away, or comes back empty."""

import asyncio
from urllib.parse import urlsplit, urlunsplit

import pytest
from redis.asyncio import Redis

from sandbox.simulator import SimulatorProcess
from tests.crash.scene import JOBS, LEASE_S, POOL, scene
from tests.support.house import House, echo_of
from tests.support.proxy import proxy_to
from tests.support.waiting import until
from topology.events import EventType


async def flush(house: House) -> None:
    async with Redis.from_url(house.redis_url) as redis:
        await redis.flushdb()
        await redis.script_flush()


async def flights(house: House) -> int:
    async with Redis.from_url(house.redis_url) as redis:
        return len(await redis.keys(f"{house.prefix}o1:flight:*"))


async def test_with_redis_away_results_are_held_and_nothing_new_is_begun(
    house: House, simulator: SimulatorProcess
) -> None:
    redis = urlsplit(house.redis_url)
    async with (
        proxy_to(redis.hostname or "", redis.port or 6379) as proxy,
        scene(house, simulator, latency_s=1.0) as s,
    ):
        way = urlunsplit(redis._replace(netloc=f"127.0.0.1:{proxy.port}"))
        await s.nursery.start("front", POOL, environ={"OPTIMIZER_REDIS_URL": way})
        held = s.ask("Held")
        await until(lambda: len(s.calls()) == 1)
        proxy.cut()
        waiting = s.ask("Waiting")
        await until(lambda: s.calls()[0].finished_at is not None)
        assert not held.done()
        assert len(s.calls()) == 1
        proxy.restore()
        assert (await held).text.startswith(echo_of("Held"))
        assert (await waiting).text.startswith(echo_of("Waiting"))
        await s.ends_with(calls=2)


@pytest.mark.usefixtures("impatient")
async def test_redis_emptied_during_a_call_is_told_again_by_whoever_renews(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    async with scene(house, simulator, latency_s=3.0) as s, house.agent("joined") as other:
        await s.nursery.start("front")
        await s.nursery.start(POOL, lease_s=LEASE_S)
        asked = s.ask("Forgotten")
        await until(lambda: len(s.calls()) == 1)
        joined = asyncio.create_task(other.chat("Forgotten", timeout=30))
        await until(lambda: bool(s.of(EventType.DEDUPE_JOINED)))
        await flush(house)

        async def written_back() -> bool:
            return await flights(house) == 1

        await until(written_back)
        replies = await asyncio.gather(asked, joined)
        assert {reply.text[:21] for reply in replies} == {echo_of("Forgotten")}
        await s.ends_with(calls=1)


async def test_redis_emptied_during_a_call_costs_at_most_one_more_call_which_is_reported(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    async with scene(house, simulator, latency_s=1.5) as s, house.agent("next") as other:
        await s.nursery.start("front", POOL)
        asked = s.ask("Bought twice")
        await until(lambda: len(s.calls()) == 1)
        await flush(house)  # the lease is renewed in 5 s only
        again = asyncio.create_task(other.chat("Bought twice", timeout=30))
        await until(lambda: len(s.calls()) == 2)
        replies = await asyncio.gather(asked, again)
        assert {reply.text[:21] for reply in replies} == {echo_of("Bought twice")}
        await s.ends_with(calls=2, duplicate=1)


@pytest.mark.usefixtures("impatient")
async def test_redis_emptied_while_jobs_wait_loses_no_request(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    async with scene(house, simulator) as s, house.agent("joined") as other:
        await s.nursery.start("front")
        asked = s.ask("In the queue")

        async def the_job_waits() -> bool:
            return await house.depth(JOBS) == 1

        await until(the_job_waits)
        joined = asyncio.create_task(other.chat("In the queue", timeout=30))
        await until(lambda: bool(s.of(EventType.DEDUPE_JOINED)))
        await flush(house)
        await s.nursery.start(POOL)
        replies = await asyncio.gather(asked, joined)
        assert {reply.text[:21] for reply in replies} == {echo_of("In the queue")}
        await s.ends_with(calls=1)
