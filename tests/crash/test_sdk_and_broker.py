"""What is outside the workers dies: the agent's connection, the agent, the broker, the callback queue."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import pytest
from redis.asyncio import Redis

from producer_sdk import AsyncOptimizer
from sandbox.simulator import SimulatorProcess
from tests.crash.scene import POOL, REQUESTS, scene
from tests.support.house import House, echo_of
from tests.support.house import test_environ as environ_of
from tests.support.processes import ROOT
from tests.support.proxy import Proxy, proxy_to
from tests.support.restarting import restartable_rabbitmq
from tests.support.waiting import until
from topology import names
from topology.events import EventType
from topology.messages import Request


async def by_way_of_a_proxy(house: House, stack: AsyncExitStack) -> tuple[Proxy, str]:
    amqp = urlsplit(house.amqp_url)
    proxy = await stack.enter_async_context(proxy_to(amqp.hostname or "", amqp.port or 5672))
    host = f"{amqp.username}:{amqp.password}@127.0.0.1:{proxy.port}"
    return proxy, urlunsplit(amqp._replace(netloc=host))


async def test_an_sdk_cut_off_before_the_confirm_asks_again_under_its_id_and_pays_once(
    house: House, simulator: SimulatorProcess
) -> None:
    async with AsyncExitStack() as stack:
        proxy, url = await by_way_of_a_proxy(house, stack)
        s = await stack.enter_async_context(scene(house, simulator))
        await s.nursery.start("front", POOL)
        optimizer = await stack.enter_async_context(AsyncOptimizer("cut-off", url=url))
        await optimizer.chat("The connections stand", timeout=30)
        proxy.silence()
        asked = asyncio.create_task(optimizer.chat("No confirm", timeout=30))
        await until(lambda: len(s.of(EventType.REQUEST_COMPLETED)) == 2)
        proxy.cut()
        proxy.restore()
        reply = await asked
        assert (reply.source, reply.text[:21]) == ("provider", echo_of("No confirm"))
        await s.ends_with(calls=2)


async def test_an_sdk_that_dies_before_the_confirm_leaves_an_answer_for_the_next(
    house: House, simulator: SimulatorProcess
) -> None:
    async with AsyncExitStack() as stack:
        proxy, url = await by_way_of_a_proxy(house, stack)
        s = await stack.enter_async_context(scene(house, simulator, latency_s=0.3))
        await s.nursery.start("front", POOL)
        plan = {"agents": ["mortal"], "prompts": [["Last words"]], "options": {"timeout": 30}}
        mortal = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.agents", json.dumps(plan),
            cwd=ROOT, env={**environ_of(house), "OPTIMIZER_AMQP_URL": url},
        )  # fmt: skip
        await until(lambda: len(s.calls()) == 1)
        proxy.silence()
        mortal.kill()
        await mortal.wait()
        await until(lambda: bool(s.of(EventType.REQUEST_COMPLETED)))
        reply = await s.ask("Last words")
        assert (reply.source, reply.text[:21]) == ("cache", echo_of("Last words"))
        await s.ends_with(calls=1)


async def test_a_caller_that_is_gone_has_its_reply_returned_and_its_waiter_settled(
    house: House, simulator: SimulatorProcess
) -> None:
    async with scene(house, simulator) as s:
        params = {"messages": [{"role": "user", "content": "Nobody listens"}]}
        request = Request(id="gone-1", agent="gone", operation="chat", model="auto", params=params)
        connection = await aio_pika.connect(house.amqp_url)
        async with connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(names.REQUESTS, ensure=False)
            await exchange.publish(
                aio_pika.Message(
                    request.to_bytes(),
                    correlation_id=request.id,
                    reply_to=names.reply_queue("gone", "client", "expired"),
                    app_id="gone",
                ),
                names.request_key(names.Priority.NORMAL, "gone"),
            )
        await s.nursery.start("front", POOL)
        await until(lambda: bool(s.of(EventType.CALL_COMPLETED)))
        reply = await s.ask("Nobody listens")
        assert reply.source == "cache"
        await s.ends_with(calls=1)
        async with Redis.from_url(house.redis_url) as redis:
            (served,) = await redis.keys(f"{house.prefix}o1:served:*")
            assert b"gone/gone-1" in await redis.zrange(served, 0, -1)


@pytest.mark.timeout(240)
async def test_a_broker_killed_after_the_confirm_still_has_the_request(
    own_redis: House, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    with restartable_rabbitmq(tmp_path / "node") as node:
        house = own_redis
        house.amqp_url, house.management_url, house.vhost = node.amqp_url, node.management_url, "/"

        async def is_there() -> bool:
            return await house.depth(REQUESTS) == 1

        async with AsyncExitStack() as stack:
            proxy, url = await by_way_of_a_proxy(house, stack)
            s = await stack.enter_async_context(scene(house, simulator))
            optimizer = await stack.enter_async_context(AsyncOptimizer("cut-off", url=url))
            asked = asyncio.create_task(optimizer.chat("On disk", timeout=120))
            await until(is_there)
            proxy.cut()  # the agent cannot send it again
            await asyncio.to_thread(node.kill)
            await asyncio.to_thread(node.start)
            await until(is_there)
            await s.nursery.start("front", POOL)
            await until(lambda: len(s.calls()) == 1)
            proxy.restore()
            assert (await asked).text.startswith(echo_of("On disk"))
            assert len(s.calls()) == 1
