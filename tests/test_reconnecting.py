"""Connections break, and nobody notices but the log."""

import asyncio
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import pytest

from producer_sdk import Overloaded
from sandbox.simulator import Latency, SimulatorProcess
from tests.support.connections import close_connections
from tests.support.house import House
from tests.support.proxy import proxy_to
from tests.support.waiting import until


@pytest.mark.parametrize("whose", ["consuming", "publishing", ""])
async def test_connections_closed_by_the_operator_during_calls_cost_nothing(
    house: House, simulator: SimulatorProcess, whose: str
) -> None:
    simulator.change(latency=Latency(median_s=6.0).model_dump())
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.agent("a") as optimizer:
        asked = asyncio.gather(*(optimizer.chat(f"Prompt {n}", timeout=90) for n in range(10)))
        await until(lambda: len(simulator.ledger()) == 10)
        assert await close_connections(house, whose) >= 1
        replies = await asked

    assert {reply.status for reply in replies} == {"ok"}
    assert [call.outcome for call in simulator.ledger()] == ["ok"] * 10


async def test_redis_away_during_calls_delays_the_answers_and_loses_none(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(latency=Latency(median_s=0.5).model_dump())
    fleet = house.simulated(simulator.base_url)
    redis = urlsplit(house.redis_url)

    async with proxy_to(redis.hostname or "", redis.port or 6379) as proxy:
        through = urlunsplit(redis._replace(netloc=f"127.0.0.1:{proxy.port}"))
        cut_off = replace(house, redis_url=through)
        async with cut_off.workers(fleet), house.agent() as optimizer:
            asked = asyncio.gather(*(optimizer.chat(f"Prompt {n}", timeout=90) for n in range(10)))
            await until(lambda: len(simulator.ledger()) == 10)
            proxy.cut()
            await until(lambda: all(call.finished_at for call in simulator.ledger()))
            assert not asked.done()
            proxy.restore()
            replies = await asked

    assert {reply.status for reply in replies} == {"ok"}
    assert len(simulator.ledger()) == 10


async def test_an_agent_started_before_the_broker_is_answered_once_it_is_there(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    amqp = urlsplit(house.amqp_url)

    async with proxy_to(amqp.hostname or "", amqp.port or 5672) as proxy, house.workers(fleet):
        proxy.cut()
        host = f"{amqp.username}:{amqp.password}@127.0.0.1:{proxy.port}"
        away = replace(house, amqp_url=urlunsplit(amqp._replace(netloc=host)))
        async with away.agent() as optimizer:
            with pytest.raises(Overloaded, match=r"could not be handed over .* cannot be reached"):
                await optimizer.chat("Too early", timeout=0.5)
            asked = asyncio.create_task(optimizer.chat("In time", timeout=60))
            proxy.restore()
            reply = await asked

    assert reply.source == "provider"


async def test_without_a_topology_the_error_says_what_to_do(house: House) -> None:
    async with house.agent() as optimizer:
        with pytest.raises(Overloaded, match="topology apply"):
            await optimizer.chat("Anybody?", timeout=30)
