"""Redis fails over to its replica in the middle of the load; the provider's ledger tells what it cost.

Replication is asynchronous: what the primary wrote last may be gone. The worst of that is one call more
for each flight that was in flight then.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisAway

from broker.flights import Flights, StateAway
from broker.opening import is_sentinel, open_redis
from sandbox.simulator import Latency, SimulatorProcess
from tests.support.fleets import provider
from tests.support.house import House, echo_of
from tests.support.sentinel import Watched, watched_redis
from tests.support.waiting import until

pytestmark = pytest.mark.long

AT_ONCE = 8
QUESTIONS = 60


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    folder = tmp_path / "redis"
    folder.mkdir()
    async with watched_redis(folder) as found:
        yield found


async def test_sentinel_leads_to_the_primary_before_and_after(watched: Watched) -> None:
    async with open_redis(watched.url, 10, name="tester") as redis:
        await redis.set("before", "1")
        first = await watched.primary()
        assert [client["name"] for client in await redis.client_list()].count("tester") == 1
        await until(lambda: has_copied(watched))

        watched.kill(first)
        await until(lambda: answers(redis))

        assert await redis.get("before") == b"1"
        assert await watched.primary() != first


async def test_a_primary_that_lacks_its_replicas_counts_as_away(watched: Watched) -> None:
    async with open_redis(watched.url, 10) as redis:
        flights = Flights(redis)
        await flights.cancel(["tester/before"])
        await redis.config_set("min-replicas-to-write", 2)
        with pytest.raises(StateAway, match="NOREPLICAS"):
            await flights.cancel(["tester/after"])


@pytest.mark.parametrize("fate", ["killed", "frozen"])
async def test_a_fail_over_in_the_middle_costs_at_most_one_call_more_for_each_flight(
    house: House, simulator: SimulatorProcess, watched: Watched, fate: str
) -> None:
    simulator.change(latency=Latency(median_s=0.5).model_dump())
    fleet = house.fleet(provider("simulated", simulator, concurrency=AT_ONCE))
    house = replace(house, redis_url=watched.url)
    prompts = [f"Question {n}" for n in range(QUESTIONS)]

    async with (
        house.workers(fleet, ["front"], ["backend:all"], ["front", "backend:all"]),
        house.agent("one") as one,
        house.agent("two") as two,
    ):
        asked = asyncio.gather(*(agent.chat(p, timeout=120) for p in prompts for agent in (one, two)))
        await until(lambda: len(simulator.ledger()) > AT_ONCE)
        first = await watched.primary()
        if fate == "killed":
            watched.kill(first)
        else:
            watched.freeze(first)
        await until(lambda: has_failed_over(watched, first))
        if fate == "frozen":
            watched.thaw(first)  # it takes itself for the primary, and nobody may believe it
            await until(lambda: is_replica(watched, first))
        replies = await asked

    assert [reply.text.split()[0] for reply in replies] == [echo_of(p) for p in prompts for _ in range(2)]
    billed = [entry for entry in simulator.ledger() if entry.outcome == "ok"]
    assert QUESTIONS <= len(billed) <= QUESTIONS + AT_ONCE


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("redis+sentinel://host:26379", "name is missing"),
        ("redis+sentinel://host:26379/optimizer/many", "the database is no number"),
        ("redis+sentinel://me:secret@host:port/optimizer", "port"),
        ("http://me:secret@host", "scheme"),
    ],
)
async def test_a_url_that_is_none_is_told_without_its_password(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        async with open_redis(url, 1):
            pass
    assert "secret" not in str(caught.value)


async def test_who_logs_in_where_is_in_the_url() -> None:
    url = "rediss+sentinel://me:pw@one,two:26380/fleet/3?sentinel_password=other&ssl_cert_reqs=none"
    assert is_sentinel(url)
    async with open_redis(url, 10) as redis:
        assert isinstance(redis.connection_pool, SentinelConnectionPool)
        given = redis.connection_pool.connection_kwargs
        assert (given["username"], given["password"], given["db"]) == ("me", "pw", 3)
        sentinels = [
            one.connection_pool.connection_kwargs for one in redis.connection_pool.sentinel_manager.sentinels
        ]
    assert [(one["host"], one["port"]) for one in sentinels] == [("one", 26379), ("two", 26380)]
    assert {one["password"] for one in sentinels} == {"other"}


async def has_copied(watched: Watched) -> bool:
    async with open_redis(watched.url, 10) as redis:
        return int(await redis.wait(1, 1000)) == 1


async def has_failed_over(watched: Watched, first: int) -> bool:
    now = await watched.primary()
    return now != first and await watched.role(now) == "master"


async def is_replica(watched: Watched, port: int) -> bool:
    return await watched.role(port) == "slave"


async def answers(redis: Redis) -> bool:
    try:
        await redis.set("after", "1")
    except RedisAway:
        return False
    return True
