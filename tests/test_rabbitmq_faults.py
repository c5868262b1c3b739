"""RabbitMQ fails in every way it can while requests are under way. It costs time, and nothing else."""

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import httpx
import pytest

from producer_sdk.channel import LeanChannel
from sandbox.nodes import RedisNode
from sandbox.simulator import Latency, SimulatorProcess
from tests.support.commands import optimizer
from tests.support.connections import close_connections
from tests.support.gateways import gateway_here
from tests.support.house import House
from tests.support.load import bought, under_load
from tests.support.proxy import proxy_to
from tests.support.restarting import Restartable, kill, restartable_rabbitmq, set_memory_alarm
from tests.support.resting import at_rest
from tests.support.waiting import until
from topology import names
from topology.fleet import Fleet
from topology.names import Priority

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restartable]:
    """A RabbitMQ that may be broken."""
    with restartable_rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as node:
        yield node


@pytest.fixture
def away(own_redis: House, node: Restartable) -> House:
    """A house whose RabbitMQ is that one."""
    return replace(own_redis, amqp_url=node.amqp_url, management_url=node.management_url, vhost="/")


@pytest.fixture
def fleet(house: House, simulator: SimulatorProcess) -> Fleet:
    simulator.change(latency=Latency(median_s=0.2).model_dump())
    return house.simulated(simulator.base_url)


@pytest.mark.parametrize("hard", [False, True])
async def test_a_restart_costs_no_answer_and_no_call(
    away: House, node: Restartable, fleet: Fleet, simulator: SimulatorProcess, hard: bool
) -> None:
    async with (
        away.workers(fleet, ["front"], ["backend:all"]) as workers,
        under_load(away) as load,
    ):
        await asyncio.to_thread(node.kill if hard else node.stop)
        await asyncio.to_thread(node.start)
        await load.goes_on()
        assert not any(worker.done() for worker in workers)

    assert bought(simulator) == load.prompts
    await at_rest(away)


async def test_a_restart_of_both_brokers_at_once_costs_no_answer_and_no_call(
    away: House, node: Restartable, fleet: Fleet, simulator: SimulatorProcess
) -> None:
    with RedisNode(away.folder / "redis") as redis:
        both = replace(away, redis_url=redis.redis_url)
        async with (
            both.workers(fleet, ["front"], ["backend:all"]) as workers,
            under_load(both) as load,
        ):
            await asyncio.gather(asyncio.to_thread(node.kill), asyncio.to_thread(kill, redis))
            await asyncio.gather(asyncio.to_thread(node.start), asyncio.to_thread(redis.start))
            await load.goes_on()
            assert not any(worker.done() for worker in workers)

        assert bought(simulator) == load.prompts
        await at_rest(both)


async def test_connections_that_the_operator_closes_again_and_again_cost_nothing(
    house: House, fleet: Fleet, simulator: SimulatorProcess
) -> None:
    async with (
        house.workers(fleet, ["front"], ["backend:all"]) as workers,
        under_load(house) as load,
    ):
        for _ in range(3):
            assert await close_connections(house, "") >= 1
            await load.goes_on()
        assert not any(worker.done() for worker in workers)

    assert bought(simulator) == load.prompts
    await at_rest(house)


async def test_lines_that_swallow_both_ways_are_noticed_and_cost_nothing(
    house: House, fleet: Fleet, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers', on which they publish and consume; a heartbeat of 1 s shortens the wait."""
    monkeypatch.setattr("producer_sdk.opening.HEARTBEAT_S", 1)
    amqp = urlsplit(house.amqp_url)

    async with proxy_to(amqp.hostname or "", amqp.port or 5672) as proxy:
        login = f"{amqp.username}:{amqp.password}@127.0.0.1:{proxy.port}"
        through = replace(house, amqp_url=urlunsplit(amqp._replace(netloc=login)))
        async with (
            through.workers(fleet, ["front"], ["backend:all"]) as workers,
            under_load(house) as load,
        ):
            proxy.half_open()
            await load.goes_on(50)
            assert not any(worker.done() for worker in workers)

    assert bought(simulator) == load.prompts
    await at_rest(house)


async def test_under_an_alarm_calls_go_on_and_afterwards_everybody_is_told(
    away: House, node: Restartable, fleet: Fleet, simulator: SimulatorProcess
) -> None:
    simulator.change(latency=Latency(median_s=12.0).model_dump())
    alarm = "takes no messages at present (an alarm"

    async with (
        gateway_here(away, fleet) as url,
        httpx.AsyncClient(base_url=url.removesuffix("/v1"), timeout=60) as http,
        away.workers(fleet, ["front"], ["backend:all"]) as workers,
        away.agent() as agent,
    ):
        asked = asyncio.gather(*(agent.chat(f"Prompt {n}", timeout=100) for n in range(10)))
        await until(lambda: len(simulator.ledger()) == 10)
        await asyncio.to_thread(set_memory_alarm, node, on=True)
        late = asyncio.create_task(agent.chat("Late", timeout=100))

        async def gateway_says() -> bool:
            return alarm in (await http.get("/health")).text

        await until(gateway_says)
        said = await optimizer(away, "health")
        assert (said.exit_code, alarm in said.stdout) == (1, True), said.stdout
        await until(lambda: all(call.finished_at for call in simulator.ledger()))
        assert not asked.done()
        await asyncio.to_thread(set_memory_alarm, node, on=False)
        replies = [*await asked, await late]
        assert not any(worker.done() for worker in workers)

    assert {reply.source for reply in replies} == {"provider"}
    assert bought(simulator) == 11
    await at_rest(away)


async def test_consumers_that_the_broker_cancels_start_again_once_their_queues_are_back(
    house: House, fleet: Fleet, simulator: SimulatorProcess
) -> None:
    simulator.change(latency=Latency(median_s=2.0).model_dump())
    lost = [names.requests_queue(Priority.NORMAL), names.jobs_queue("simulated", "any", Priority.NORMAL)]

    async with house.workers(fleet, ["front"], ["backend:all"]) as workers, house.agent() as agent:
        asked = asyncio.gather(*(agent.chat(f"Prompt {n}", timeout=100) for n in range(10)))
        await until(lambda: len(simulator.ledger()) == 10)
        async with await aio_pika.connect(house.amqp_url) as connection:
            channel = await connection.channel()
            for queue in lost:
                await channel.queue_delete(queue)
        await house.declare(fleet)
        replies = [*await asked, await agent.chat("Afterwards", timeout=100)]
        assert not any(worker.done() for worker in workers)

    assert {reply.source for reply in replies} == {"provider"}
    assert bought(simulator) == 11
    await at_rest(house)


async def test_channels_that_are_closed_by_a_failed_precondition_are_opened_again(
    house: House, fleet: Fleet, simulator: SimulatorProcess
) -> None:
    async with (
        house.workers(fleet, ["front"], ["backend:all"]) as workers,
        under_load(house) as load,
    ):
        for channel in [found for found in gc.get_objects() if isinstance(found, LeanChannel)]:
            channel.acknowledge(10**9)  # of a delivery that never was
        await load.goes_on(50)
        assert not any(worker.done() for worker in workers)

    assert bought(simulator) == load.prompts
    await at_rest(house)
