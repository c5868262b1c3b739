"""Redis fails in every way it can while requests are under way. It costs time, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from sandbox.nodes import RedisNode
from sandbox.simulator import Latency, SimulatorProcess
from tests.support.house import House
from tests.support.load import AGENTS, bought, under_load
from tests.support.proxy import Proxy, proxy_to
from tests.support.restarting import kill
from tests.support.resting import at_rest
from tests.support.waiting import until
from topology.fleet import Fleet
from topology.messages import Event

pytestmark = pytest.mark.long

PATIENCE_S = 1.0
Fault = Callable[[RedisNode, Redis], AbstractAsyncContextManager[None]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisNode]:
    """A Redis that may be broken."""
    with RedisNode(tmp_path_factory.mktemp("redis")) as node:
        yield node


@pytest.fixture
async def away(house: House, node: RedisNode, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house whose Redis is that one, and whose workers lose patience with it sooner."""
    monkeypatch.setattr("workers.worker.RENEW_EVERY_S", 0.5)
    monkeypatch.setattr("workers.claimed_calls.RENEW_EVERY_S", 0.5)
    monkeypatch.setattr("workers.worker._REDIS_TIMEOUT_S", PATIENCE_S)
    async with Redis.from_url(node.redis_url) as redis:
        await redis.flushall()
    return replace(house, redis_url=node.redis_url)


@pytest.fixture
def fleet(house: House, simulator: SimulatorProcess) -> Fleet:
    simulator.change(latency=Latency(median_s=0.2).model_dump())
    return house.simulated(simulator.base_url)


@pytest.fixture
async def line(node: RedisNode) -> AsyncIterator[Proxy]:
    """What leads to that Redis."""
    redis = urlsplit(node.redis_url)
    async with proxy_to(redis.hostname or "", redis.port or 6379) as proxy:
        yield proxy


@asynccontextmanager
async def killed(node: RedisNode, _: Redis) -> AsyncIterator[None]:
    await asyncio.to_thread(kill, node)
    yield
    await asyncio.to_thread(node.start)


@asynccontextmanager
async def full(_: RedisNode, redis: Redis) -> AsyncIterator[None]:
    await redis.config_set("maxmemory", "1")
    yield
    await redis.config_set("maxmemory", "0")


@asynccontextmanager
async def read_only(_: RedisNode, redis: Redis) -> AsyncIterator[None]:
    await redis.replicaof("127.0.0.1", "9")
    yield
    await redis.replicaof("NO", "ONE")


@asynccontextmanager
async def cut_off_from_its_primary(_: RedisNode, redis: Redis) -> AsyncIterator[None]:
    await redis.config_set("replica-serve-stale-data", "no")
    await redis.replicaof("127.0.0.1", "9")
    yield
    await redis.replicaof("NO", "ONE")
    await redis.config_set("replica-serve-stale-data", "yes")


@asynccontextmanager
async def without_its_replicas(_: RedisNode, redis: Redis) -> AsyncIterator[None]:
    await redis.config_set("min-replicas-to-write", "1")
    yield
    await redis.config_set("min-replicas-to-write", "0")


@asynccontextmanager
async def on_a_bad_disk(node: RedisNode, redis: Redis) -> AsyncIterator[None]:
    in_the_way = node.folder / "dump.rdb" / "in the way"
    in_the_way.mkdir(parents=True)
    await redis.config_set("save", "3600 1")
    await redis.bgsave(schedule=True)  # a rewrite of the append-only file may be under way
    await until(lambda: _saved(redis, "err"))
    yield
    in_the_way.rmdir()
    in_the_way.parent.rmdir()
    await redis.bgsave(schedule=True)
    await until(lambda: _saved(redis, "ok"))
    await redis.config_set("save", "")


async def _saved(redis: Redis, status: str) -> bool:
    said = await redis.info("persistence")
    return (said["rdb_bgsave_in_progress"], said["rdb_last_bgsave_status"]) == (0, status)


@asynccontextmanager
async def busy(node: RedisNode, redis: Redis) -> AsyncIterator[None]:
    await redis.config_set("busy-reply-threshold", "50")
    async with Redis.from_url(node.redis_url) as other:
        looping = asyncio.ensure_future(other.eval("while true do end", 0))
        yield
        await redis.script_kill()
        with suppress(RedisError):
            await looping


@asynccontextmanager
async def behind_another_password(_: RedisNode, redis: Redis) -> AsyncIterator[None]:
    await redis.config_set("requirepass", "changed")
    await redis.client_kill_filter(_type="normal", skipme=True)
    yield
    await redis.config_set("requirepass", "")


@asynccontextmanager
async def without_the_right(_: RedisNode, redis: Redis) -> AsyncIterator[None]:
    await redis.execute_command("ACL", "SETUSER", "default", "-evalsha", "-set")  # type: ignore[no-untyped-call]
    yield
    await redis.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "fault",
    [
        killed,
        full,
        read_only,
        cut_off_from_its_primary,
        without_its_replicas,
        on_a_bad_disk,
        busy,
        behind_another_password,
        without_the_right,
    ],
)
async def test_a_redis_that_takes_nothing_costs_no_answer_and_no_call(
    away: House, node: RedisNode, simulator: SimulatorProcess, fleet: Fleet, fault: Fault
) -> None:
    async with (
        away.workers(fleet, ["front"], ["backend:all"]) as workers,
        away.events("optimizer.worker.health") as beats,
        Redis.from_url(node.redis_url) as redis,
        under_load(away) as load,
    ):
        async with fault(node, redis):
            await until(lambda: all_say(beats, lambda redis: redis != "up"))
        await until(lambda: all_say(beats, lambda redis: redis == "up"))
        await load.goes_on()
        assert not any(worker.done() for worker in workers)

    assert bought(simulator) == load.prompts
    await at_rest(away)


async def test_a_full_redis_takes_nothing_new_and_tells_what_is_under_way(
    away: House, node: RedisNode, simulator: SimulatorProcess, fleet: Fleet
) -> None:
    simulator.change(latency=Latency(median_s=3.0).model_dump())

    async with (
        away.workers(fleet, ["front"], ["backend:all"]),
        away.agent() as agent,
        Redis.from_url(node.redis_url) as redis,
    ):
        asked = asyncio.gather(*(agent.chat(f"Prompt {n}", timeout=100) for n in range(10)))
        await until(lambda: len(simulator.ledger()) == 10)
        async with full(node, redis):
            late = asyncio.create_task(agent.chat("Late", timeout=100))
            replies = await asked
            assert len(simulator.ledger()) == 10
        assert (await late).source == "provider"

    assert {reply.source for reply in replies} == {"provider"}
    assert bought(simulator) == 11
    await at_rest(away)


async def test_a_slow_redis_costs_no_answer_and_no_call(
    away: House, simulator: SimulatorProcess, fleet: Fleet, line: Proxy
) -> None:
    through = replace(away, redis_url=f"redis://127.0.0.1:{line.port}/0")

    async with (
        through.workers(fleet, ["front"], ["backend:all"]) as workers,
        away.events("optimizer.worker.health") as beats,
        under_load(away) as load,
    ):
        line.delay(PATIENCE_S / 2)
        await load.goes_on()
        line.delay(PATIENCE_S * 2)  # what Redis is told to do is done, and its answer is lost
        await until(lambda: all_say(beats, lambda redis: redis != "up"))
        line.restore()
        await load.goes_on(50)
        assert not any(worker.done() for worker in workers)

    assert bought(simulator) == load.prompts
    await at_rest(away)


async def test_lines_to_redis_that_fall_silent_cost_no_answer_and_no_call(
    away: House, simulator: SimulatorProcess, fleet: Fleet, line: Proxy
) -> None:
    through = replace(away, redis_url=f"redis://127.0.0.1:{line.port}/0")

    async with through.workers(fleet, ["front"], ["backend:all"]) as workers, under_load(away) as load:
        line.half_open()
        await load.goes_on(50)
        assert not any(worker.done() for worker in workers)

    assert bought(simulator) == load.prompts
    await at_rest(away)


async def test_scripts_that_redis_forgets_again_and_again_cost_nothing(
    away: House, node: RedisNode, simulator: SimulatorProcess, fleet: Fleet
) -> None:
    async with (
        away.workers(fleet, ["front"], ["backend:all"]),
        Redis.from_url(node.redis_url) as redis,
        under_load(away) as load,
    ):
        for _ in range(10):
            await redis.script_flush()
            await load.goes_on(5)

    assert bought(simulator) == load.prompts
    await at_rest(away)


async def test_an_emptied_redis_costs_no_answer_and_at_most_the_calls_then_in_flight(
    away: House, node: RedisNode, simulator: SimulatorProcess, fleet: Fleet
) -> None:
    async with (
        away.workers(fleet, ["front"], ["backend:all"]),
        Redis.from_url(node.redis_url) as redis,
        under_load(away, agents=1) as load,  # who had joined would ask again after 30 s
    ):
        for _ in range(3):
            await redis.flushall()
            await load.goes_on()

    assert load.prompts <= bought(simulator) <= load.prompts + 3 * AGENTS
    await at_rest(away)


def all_say(beats: list[Event], what: Callable[[str], bool]) -> bool:
    """Whether that is the last word of both workers on their Redis."""
    last = {beat.model_dump()["worker"]: beat.model_dump() for beat in beats}
    said = [str(beat["redis"]) for beat in last.values() if not beat.get("leaving")]
    return len(said) == 2 and all(map(what, said))
