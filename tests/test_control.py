"""Operators pause, drain and resume providers while agents ask, and nothing is lost or bought twice."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from broker.answers import Later, Run
from broker.controls import Controls, Said, paused_key
from producer_sdk import AsyncOptimizer, Reply
from sandbox.nodes import Brokers
from sandbox.simulator import Latency, Settings, SimulatorProcess
from tests.broker.test_flights import Desk, open_desk
from tests.support.commands import optimizer
from tests.support.fleets import provider
from tests.support.house import House
from tests.support.waiting import until
from topology import names
from topology.fleet import Fleet
from topology.names import Priority

JOBS = names.jobs_queue("first", "any", Priority.NORMAL)


@pytest.fixture(scope="module")
def second_process() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(Settings()) as process:
        yield process


@pytest.fixture
def second(second_process: SimulatorProcess) -> SimulatorProcess:
    second_process.reset()
    return second_process


def running(simulator: SimulatorProcess) -> int:
    return sum(call.finished_at is None for call in simulator.ledger())


async def ask(
    agent: AsyncOptimizer, count: int, model: str = "sim-small", named: str = "Prompt"
) -> list[Reply]:
    return await asyncio.gather(*(agent.chat(f"{named} {n}", model=model, timeout=90) for n in range(count)))


async def test_a_paused_provider_starts_nothing_and_resumes_where_it_was(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    simulator.change(latency=Latency(median_s=0.2).model_dump())
    fleet = house.fleet(provider("first", simulator, concurrency=4))

    async with house.workers(fleet, ["front"], ["backend:all"], ["backend:all"]), house.agent() as agent:
        asked = asyncio.create_task(ask(agent, 40))
        await until(lambda: len(simulator.ledger()) >= 8)
        paused = await optimizer(house, "pause", "first")
        await until(lambda: running(simulator) == 0)
        begun = len(simulator.ledger())
        await until(lambda: waits(house, 40 - begun))
        another = asyncio.create_task(agent.chat("Another", model="sim-small", timeout=90))
        await until(lambda: waits(house, 41 - begun))
        assert len(simulator.ledger()) == begun

        resumed = await optimizer(house, "resume", "first")
        replies = [*await asked, await another]

    assert (paused.exit_code, resumed.exit_code) == (0, 0)
    assert "first is paused: calls running" in paused.output
    assert {reply.status for reply in replies} == {"ok"}
    assert [call.outcome for call in simulator.ledger()] == ["ok"] * 41


async def waits(house: House, count: int, queue: str = JOBS) -> bool:
    return await house.depth(queue) == count


async def test_a_worker_that_starts_finds_the_provider_paused(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    fleet = house.fleet(provider("first", simulator))
    await house.declare(fleet)
    paused = await optimizer(house, "pause", "first", "--config", str(house.folder / "fleet.toml"))
    assert paused.exit_code == 0, paused.output

    async with house.workers(fleet), house.agent() as agent:
        asked = asyncio.create_task(ask(agent, 5))
        await until(lambda: waits(house, 5))
        assert simulator.ledger() == []
        await optimizer(house, "resume", "first")
        replies = await asked

    assert {reply.status for reply in replies} == {"ok"}
    assert len(simulator.ledger()) == 5


async def test_a_worker_that_was_told_nothing_finds_out_by_itself(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    fleet = house.fleet(provider("first", simulator))

    async with (
        Redis.from_url(house.redis_url) as redis,
        house.workers(fleet),
        house.events("optimizer.worker.health") as reports,
        house.agent() as agent,
    ):
        controls = Controls(redis, "o1:")
        await controls.pause("first", "pause")
        await until(lambda: any(r.model_dump()["paused"] == {"first": "pause"} for r in reports))
        asked = asyncio.create_task(ask(agent, 3))
        await until(lambda: waits(house, 3))
        await controls.resume("first")
        replies = await asked

    assert {reply.status for reply in replies} == {"ok"}


async def test_a_redis_that_was_emptied_is_told_again_what_is_paused(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    fleet = house.fleet(provider("first", simulator))

    async with (
        Redis.from_url(house.redis_url) as redis,
        house.workers(fleet),
        house.agent() as agent,
    ):
        await optimizer(house, "drain", "first")
        await redis.flushdb()
        asked = asyncio.create_task(ask(agent, 3))
        await until(lambda: is_paused(redis))
        await until(lambda: waits(house, 3))
        assert simulator.ledger() == []
        await optimizer(house, "resume", "first")
        replies = await asked

    assert {reply.status for reply in replies} == {"ok"}


async def is_paused(redis: Redis) -> bool:
    return await Controls(redis, "o1:").read() == Said({"first": "drain"}, forgotten=False, reload=None)


async def test_requests_go_round_a_paused_provider(
    own_redis: House, simulator: SimulatorProcess, second: SimulatorProcess
) -> None:
    house = own_redis
    fleet = two(house, simulator, second)

    async with house.workers(fleet), house.agent() as agent:
        await optimizer(house, "pause", "first")
        while_paused = await ask(agent, 5, named="While paused")
        await optimizer(house, "resume", "first")
        after = await ask(agent, 5, named="After")

    assert [reply.provider for reply in while_paused] == ["second"] * 5
    assert [reply.provider for reply in after] == ["first"] * 5


def two(house: House, first: SimulatorProcess, second: SimulatorProcess, concurrency: int = 8) -> Fleet:
    return house.fleet(
        provider("first", first, concurrency=concurrency) + provider("second", second, price=0.2)
    )


async def test_draining_moves_what_waits_and_leaves_what_has_nowhere_to_go(
    own_redis: House, simulator: SimulatorProcess, second: SimulatorProcess
) -> None:
    house = own_redis
    simulator.change(latency=Latency(median_s=1.0).model_dump())
    fleet = two(house, simulator, second, concurrency=2)

    async with house.workers(fleet, ["front"], ["backend:all"], ["backend:all"]), house.agent() as agent:
        anywhere = asyncio.create_task(ask(agent, 20, named="Anywhere"))
        only_here = asyncio.create_task(ask(agent, 5, model="first/sim-small", named="Only here"))
        await until(lambda: len(simulator.ledger()) >= 2)
        drained = await optimizer(house, "drain", "first")
        assert running(simulator) == 0
        moved = await anywhere
        told = re.search(r"first is drained: calls running 0, jobs waiting (\d+)", drained.output)
        assert told, drained.output
        left = int(told[1])
        await until(lambda: stay(house, left))
        resumed = await optimizer(house, "resume", "first")
        stayed = await only_here

    assert (drained.exit_code, resumed.exit_code) == (0, 0), drained.output
    assert 0 < left <= 5
    assert {reply.status for reply in [*moved, *stayed]} == {"ok"}
    assert {reply.provider for reply in stayed} == {"first"}
    assert len(simulator.ledger()) + len(second.ledger()) == 25
    assert len(second.ledger()) > 0


async def test_a_drained_provider_gives_what_it_kept_to_one_that_is_resumed(
    own_redis: House, simulator: SimulatorProcess, second: SimulatorProcess
) -> None:
    house = own_redis
    fleet = two(house, simulator, second)

    async with house.workers(fleet), house.agent() as agent:
        await optimizer(house, "pause", "second")
        await optimizer(house, "drain", "first")
        asked = asyncio.create_task(ask(agent, 10))
        await until(lambda: waits_anywhere(house, 10))
        await optimizer(house, "resume", "second")
        replies = await asked

    assert [reply.provider for reply in replies] == ["second"] * 10


async def stay(house: House, count: int) -> bool:
    return await house.depth(JOBS) == count


async def waits_anywhere(house: House, count: int) -> bool:
    queues = [names.jobs_queue(name, "any", Priority.NORMAL) for name in ("first", "second")]
    return sum([await house.depth(queue) for queue in queues]) == count


@pytest.fixture
async def desk(brokers: Brokers) -> AsyncIterator[Desk]:
    async with open_desk(brokers) as desk:
        yield desk


async def test_no_claim_is_granted_at_a_paused_provider_whatever_the_worker_knows(desk: Desk) -> None:
    controls = Controls(desk.redis, desk.flights.prefix)
    terms = desk.terms(paused=(paused_key(desk.flights.prefix), "groq"))
    waiter = desk.waiter()
    await desk.admit(waiter)

    await controls.pause("groq", "drain")
    refused = await desk.claim(waiter, terms)
    await controls.resume("groq")
    granted = await desk.claim(waiter, terms)

    assert isinstance(refused, Later)
    assert refused.limit == "paused"
    assert isinstance(granted, Run)
