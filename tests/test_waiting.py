"""Callers who ask are told why they wait, and nobody else hears of it."""

import asyncio
import json
from collections.abc import Callable

import aio_pika
import pytest

from broker.outlook import Place
from producer_sdk import AsyncOptimizer, Reply
from producer_sdk.errors import Cancelled
from producer_sdk.transport import Publisher
from sandbox.simulator import Latency, SimulatorProcess
from tests.support.commands import optimizer as command
from tests.support.fleets import provider
from tests.support.house import House
from tests.support.waiting import until
from tests.test_bad_input import line_to, request
from tests.test_cancelling import BACKEND, FRONT, queued
from topology.messages import Waiter, Waiting
from topology.names import Priority
from workers.events import Clock
from workers.notices import Notices

Told = list[Waiting]
LIMIT = "limits = [{{ requests = {requests}, window_s = {window_s} }}]"


def limited(requests: int, window_s: float) -> str:
    return LIMIT.format(requests=requests, window_s=window_s)


def ask(
    agent: AsyncOptimizer, prompt: str, on_wait: Callable[[Waiting], object] | None
) -> "asyncio.Task[Reply]":
    return asyncio.create_task(agent.chat(prompt, request_id=prompt, on_wait=on_wait, timeout=7200))


async def call_off(agent: AsyncOptimizer, asked: "asyncio.Task[Reply]", id_: str) -> None:
    agent.cancel(id_)
    with pytest.raises(Cancelled):
        await asked


# at the entrance ---------------------------------------------------------------------------------


async def test_the_agents_rate_is_named_with_the_instant_at_which_it_grants(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, fleet="agent_requests_per_minute = 1")
    told: Told = []

    async with house.workers(fleet), house.agent() as agent, house.events("optimizer.rate_limit") as seen:
        await agent.chat("first", timeout=7200)
        asked = ask(agent, "second", told.append)
        await until(lambda: bool(told))
        await until(lambda: bool(seen))
        await call_off(agent, asked, "second")

    assert (told[0].id, told[0].waits_for) == ("second", "agent's rate")
    assert told[0].until == seen[0].model_dump()["until"]


async def test_a_provider_without_a_worker_is_named(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)
    told: Told = []

    async with house.workers(fleet, FRONT), house.agent() as agent, house.events() as seen:
        await until(lambda: any(e.type == "optimizer.worker.health" for e in seen))
        asked = ask(agent, "r1", told.append)
        await until(lambda: bool(told))
        async with house.workers(fleet, BACKEND):
            await asked

    assert [waiting.waits_for for waiting in told] == ["a worker for simulated"]


async def test_a_provider_that_an_operator_has_paused_is_named(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    fleet = house.simulated(simulator.base_url)
    told: Told = []

    async with house.workers(fleet), house.agent() as agent:
        assert (await command(house, "pause", "simulated")).exit_code == 0
        asked = ask(agent, "r1", told.append)
        await until(lambda: bool(told))
        config = str(house.folder / "fleet.toml")
        words = await command(house, "status", "r1", "--config", config)
        facts = await command(house, "status", "r1", "--config", config, "--json")
        nobody = await command(house, "status", "r2", "--config", config)
        assert (await command(house, "resume", "simulated")).exit_code == 0
        await asked

    assert told[0].waits_for == "simulated, which is paused"
    assert "r1 of tester: it waits for simulated, class normal" in words.stdout
    assert "optimizer resume simulated" in words.stdout
    [standing] = json.loads(facts.stdout)
    assert (standing["state"], standing["position"], standing["paused"]) == ("queued", 0, True)
    assert nobody.exit_code == 1
    assert "no request waits under the id 'r2'" in nobody.stderr


async def test_a_limit_that_closes_a_lane_for_long_is_named_to_those_who_come_later(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, provider=limited(1, 3600.0))
    told: Told = []
    later: Told = []

    async with house.workers(fleet), house.agent() as agent:
        await agent.chat("first", timeout=7200)
        second = ask(agent, "second", told.append)
        await until(lambda: bool(told))
        await until(lambda: asks_until_told(agent, later))
        await call_off(agent, second, "second")

    assert {told[0].waits_for, later[0].waits_for} == {"simulated requests-3600s"}
    assert told[0].until is not None
    assert later[0].until == pytest.approx(told[0].until, abs=5.0)


async def asks_until_told(agent: AsyncOptimizer, told: Told) -> bool:
    """A front knows of the lane with the next heartbeat: one more request each time, until it does."""
    id_ = f"later {id(object())} {asyncio.get_running_loop().time()}"
    asked = ask(agent, id_, told.append)
    await asyncio.wait({asked}, timeout=0.5)
    await call_off(agent, asked, id_)
    return bool(told)


# at the provider ---------------------------------------------------------------------------------


async def test_a_providers_limit_is_named_and_the_place_in_the_line(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, provider=limited(1, 4.0))
    told: dict[str, Told] = {f"r{n}": [] for n in range(3)}

    async with house.workers(fleet, FRONT), house.agent() as agent:
        asked = [ask(agent, id_, notices.append) for id_, notices in told.items()]
        await queued(house, 3)
        async with house.workers(fleet, BACKEND):
            replies = await asyncio.gather(*asked)

    assert {reply.status for reply in replies} == {"ok"}
    notices = [w for each in told.values() for w in each if w.waits_for == "simulated requests-4s"]
    assert all(notice.until is not None for notice in notices)
    placed = {notice.position: notice for notice in notices if notice.position is not None}
    assert set(placed) == {0, 1}
    assert all(notice.starts_at is not None for notice in placed.values())


async def test_the_calls_that_run_already_are_named_to_those_behind_them(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(latency=Latency(median_s=600.0).model_dump())
    fleet = house.fleet(provider("first", simulator, concurrency=1))
    told: Told = []

    async with house.workers(fleet), house.agent() as agent:
        running = ask(agent, "running", None)
        await until(lambda: len(simulator.ledger()) == 1)
        simulator.change(latency=Latency(median_s=0.0).model_dump())
        behind = ask(agent, "behind", told.append)
        await until(lambda: bool(told))
        await call_off(agent, running, "running")
        reply = await behind

    assert reply.status == "ok"
    assert told[0].waits_for == "first concurrency"


async def test_whoever_joined_is_told_although_the_one_who_led_did_not_ask(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, provider=limited(1, 3.0))
    told: Told = []

    async with (
        house.workers(fleet, FRONT),
        house.agent() as agent,
        house.agent("other") as other,
        house.events("optimizer.dedupe.joined") as joined,
    ):
        asked = [ask(agent, "taken", None)]
        await queued(house)
        async with house.workers(fleet, BACKEND):
            await asked[0]
            asked += [ask(agent, "shared", None), ask(other, "shared", told.append)]
            await until(lambda: bool(joined))
            replies = await asyncio.gather(*asked)

    assert {reply.status for reply in replies} == {"ok"}
    assert told
    assert told[0].waits_for == "simulated requests-3s"


async def test_a_retry_is_named_with_the_instant_of_the_next_try(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(script=["server_error"])
    fleet = house.simulated(simulator.base_url)
    told: Told = []

    async with house.workers(fleet), house.agent() as agent:
        reply = await ask(agent, "r1", told.append)

    assert reply.status == "ok"
    [waiting] = told
    assert waiting.waits_for == "a retry after simulated failed"
    assert waiting.until is not None


# to whom, and how often --------------------------------------------------------------------------


async def test_a_callback_that_fails_does_no_harm(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url, provider=limited(1, 2.0))
    told: Told = []

    def fails(waiting: Waiting) -> None:
        told.append(waiting)
        raise RuntimeError("the caller's own fault")

    async with house.workers(fleet), house.agent() as agent:
        await agent.chat("first", timeout=7200)
        reply = await ask(agent, "second", fails)

    assert told
    assert reply.status == "ok"


async def test_whoever_did_not_ask_gets_the_reply_and_nothing_else(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, provider=limited(1, 2.0))

    async with house.workers(fleet), line_to(house) as line, house.agent() as agent:
        await agent.chat("first", timeout=7200)
        await line.say(request())  # its reader takes nothing but replies
        await until(lambda: bool(line.replies))

    assert [reply.status for reply in line.replies] == ["ok"]


async def test_a_request_hears_of_its_waiting_once_a_second_at_most(house: House) -> None:
    clock = Clock()
    clock.set(1000.0)
    told: Told = []

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        told.append(Waiting.from_bytes(message.body))

    async with line_to(house) as line, Publisher(house.amqp_url, "notices") as publisher:
        queue = await line.channel.declare_queue("reply.tester.told.1", exclusive=True)
        await queue.consume(take, no_ack=True)
        await publisher.wait_until_up()
        notices = Notices(publisher, clock)
        for id_, ahead in (("r1", 2), ("r1", 1), ("r1", 0), ("r2", 0)):
            notices.tell(asking(id_, queue.name), "a limit", 1060.0, Place("jobs.a.any.batch", ahead, None))
        await until(lambda: told[-1:] != [] and told[-1].id == "r2")

    assert [(waiting.id, waiting.position) for waiting in told] == [("r1", 2), ("r2", 0)]


def asking(id_: str, reply_to: str) -> Waiter:
    return Waiter(
        agent="tester", id=id_, reply_to=reply_to, priority=Priority.NORMAL, deadline=2000.0,
        queued_at=1000.0, tell_waits=True,
    )  # fmt: skip
