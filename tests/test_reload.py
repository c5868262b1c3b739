"""Workers read their configuration again while agents ask, and nothing is lost or bought twice."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer_sdk import AsyncOptimizer, NoModelAvailable, Reply
from sandbox.simulator import Account, Latency, Settings, SimulatorProcess
from tests.support.commands import optimizer
from tests.support.connections import close_connections
from tests.support.fleets import provider
from tests.support.house import House
from tests.support.waiting import until
from topology import names
from topology.names import Priority

JOBS = names.jobs_queue("first", "any", Priority.NORMAL)
MORE_MODELS = """
[[providers.first.models]]
id = "sim-large"
input_usd_per_mtok = 1
output_usd_per_mtok = 1
"""


@pytest.fixture(scope="module")
def second_process() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(Settings()) as process:
        yield process


@pytest.fixture
def second(second_process: SimulatorProcess) -> SimulatorProcess:
    second_process.reset()
    return second_process


def written(house: House, text: str) -> Path:
    path = house.folder / "fleet.toml"
    path.write_text(text, "utf-8")
    return path


async def ask(
    agent: AsyncOptimizer, count: int, model: str = "sim-small", named: str = "Prompt"
) -> list[Reply]:
    return await asyncio.gather(*(agent.chat(f"{named} {n}", model=model, timeout=90) for n in range(count)))


async def reload(house: House) -> str:
    done = await optimizer(house, "reload", "--config", str(house.folder / "fleet.toml"))
    assert done.exit_code == 0, done.output
    return done.output


async def test_a_provider_and_a_model_that_are_added_are_offered_at_once(
    own_redis: House, simulator: SimulatorProcess, second: SimulatorProcess
) -> None:
    house = own_redis
    fleet = house.fleet(provider("first", simulator))

    async with house.workers(fleet, ["front"], ["backend:all"]), house.agent() as agent:
        with pytest.raises(NoModelAvailable):
            await agent.chat("Too early", model="second/sim-small")
        written(house, provider("first", simulator) + MORE_MODELS + provider("second", second))
        said = await reload(house)
        added = await agent.chat("Hello", model="second/sim-small")
        larger = await agent.chat("Hello", model="first/sim-large")

    assert re.search(r"workers that run [0-9a-f]{8}: 2", said)
    assert (added.provider, larger.model) == ("second", "sim-large")


async def test_a_key_that_is_added_and_one_that_changes_in_its_file_are_used(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    known = [Account(name=name, keys=(f"sk-{name}",)) for name in ("old", "new", "more")]
    simulator.change(accounts=[account.model_dump() for account in known])
    one, two = house.folder / "one.key", house.folder / "two.key"
    one.write_text("sk-old", "utf-8")
    fleet = house.fleet(with_accounts(simulator, one))

    async with house.workers(fleet), house.agent() as agent:
        await ask(agent, 2, named="Before")
        one.write_text("sk-new", "utf-8")
        two.write_text("sk-more", "utf-8")
        written(house, with_accounts(simulator, one, two))
        await reload(house)
        await ask(agent, 6, named="After")

    accounts = [call.account for call in simulator.ledger()]
    assert accounts[:2] == ["old"] * 2
    assert set(accounts[2:]) == {"new", "more"}


def with_accounts(simulator: SimulatorProcess, *keys: Path) -> str:
    accounts = "".join(
        f'[[providers.first.accounts]]\nname = "{key.stem}"\napi_keys = ["file:{key}"]\n' for key in keys
    )
    return provider("first", simulator).replace('api_keys = ["env:SIMULATED_KEY"]\n', "") + accounts


async def test_a_file_that_cannot_be_used_is_not_even_sent(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    fleet = house.fleet(provider("first", simulator))

    async with (
        house.workers(fleet),
        house.events("optimizer.worker.health") as reports,
        house.agent() as agent,
    ):
        path = written(house, provider("first", simulator) + "no_such_key = 1\n")
        refused = await optimizer(house, "reload", "--config", str(path))
        heard = len(reports)
        await until(lambda: len(reports) > heard)
        assert reports[-1].model_dump()["config_error"] is None
        assert (await agent.chat("Still here", model="sim-small")).status == "ok"

    assert refused.exit_code == 1
    assert "no_such_key" in refused.output


async def test_a_worker_whose_own_file_cannot_be_used_keeps_what_it_has_and_is_named(
    own_redis: House, simulator: SimulatorProcess, second: SimulatorProcess
) -> None:
    house = own_redis
    fleet = house.fleet(provider("first", simulator))
    good = house.folder / "good.toml"
    good.write_text(provider("first", simulator) + provider("second", second), "utf-8")

    async with house.workers(fleet), house.agent() as agent:
        written(house, provider("first", simulator) + provider("second", second, key="env:NOT_THERE"))
        refused = await optimizer(house, "reload", "--config", str(good))
        reply = await agent.chat("Still here", model="sim-small")
        with pytest.raises(NoModelAvailable):
            await agent.chat("Not yet", model="second/sim-small")
        written(house, good.read_text())
        await reload(house)
        added = await agent.chat("Now", model="second/sim-small")

    assert refused.exit_code == 1
    assert "front-backend-first-" in refused.output
    assert "the environment has no NOT_THERE" in refused.output
    assert "A running process gets no new variables" in refused.output
    assert (reply.provider, added.provider) == ("first", "second")


async def test_running_calls_of_a_pool_that_is_replaced_end_as_always(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    simulator.change(latency=Latency(median_s=4.0).model_dump())
    fleet = house.fleet(provider("first", simulator, concurrency=2))

    async with house.workers(fleet), house.agent() as agent:
        asked = asyncio.create_task(ask(agent, 6))
        await until(lambda: len(simulator.ledger()) == 2)
        written(house, provider("first", simulator, concurrency=6))
        await reload(house)
        simulator.change(latency=Latency(median_s=0.05).model_dump())
        replies = await asked

    assert {(reply.status, reply.attempts) for reply in replies} == {("ok", 1)}
    assert [call.outcome for call in simulator.ledger()] == ["ok"] * 6


async def test_a_call_of_a_replaced_pool_is_not_made_again_when_its_connection_is_lost(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    simulator.change(latency=Latency(median_s=12.0).model_dump())
    fleet = house.fleet(provider("first", simulator))

    async with house.workers(fleet), house.agent() as agent:
        asked = asyncio.create_task(ask(agent, 4))
        await until(lambda: len(simulator.ledger()) == 4)
        written(house, provider("first", simulator, concurrency=20))
        await reload(house)
        assert await close_connections(house, "front-backend-first") >= 1
        replies = await asked

    assert {(reply.status, reply.attempts) for reply in replies} == {("ok", 1)}
    assert [call.outcome for call in simulator.ledger()] == ["ok"] * 4


async def test_what_waits_for_a_provider_that_is_removed_is_answered_by_another_or_told_so(
    own_redis: House, simulator: SimulatorProcess, second: SimulatorProcess
) -> None:
    house = own_redis
    first, other = provider("first", simulator), provider("second", second, price=0.2)
    fleet = house.fleet(first + other)

    async with (
        house.workers(fleet, ["front"], ["front"], ["backend:all"], ["backend:all"]),
        house.agent() as agent,
        house.agent("twin") as twin,
    ):
        await optimizer(house, "pause", "second")  # else nothing would wait at the first alone
        await optimizer(house, "pause", "first")
        anywhere = asyncio.create_task(ask(agent, 50, named="Anywhere"))
        only_here = [
            asyncio.create_task(who.chat(f"Only here {n}", model="first/sim-small", timeout=90))
            for n in range(5)
            for who in (agent, twin)
        ]
        await until(lambda: depth_is(house, 55))
        await optimizer(house, "resume", "second")
        written(house, other)
        await reload(house)
        replies = await anywhere
        ends = await asyncio.gather(*only_here, return_exceptions=True)
        await until(lambda: depth_is(house, 0))

    assert {reply.provider for reply in replies} == {"second"}
    assert [type(end) for end in ends] == [NoModelAvailable] * 10
    assert simulator.ledger() == []
    assert len(second.ledger()) == 50


async def test_a_provider_that_is_removed_under_load_answers_what_it_runs_and_loses_nothing(
    own_redis: House, simulator: SimulatorProcess, second: SimulatorProcess
) -> None:
    house = own_redis
    simulator.change(latency=Latency(median_s=0.5).model_dump())
    first, other = provider("first", simulator, concurrency=4), provider("second", second, price=0.2)
    fleet = house.fleet(first + other)

    async with (
        house.workers(fleet, ["front"], ["front"], ["backend:all"], ["backend:all"]),
        house.agent() as agent,
    ):
        asked = asyncio.create_task(ask(agent, 50))
        await until(lambda: len(simulator.ledger()) >= 4)
        written(house, other)
        await reload(house)
        replies = await asked

    assert {reply.status for reply in replies} == {"ok"}
    assert {reply.provider for reply in replies} == {"first", "second"}
    calls = [call.prompt_sha256 for call in simulator.ledger() + second.ledger()]
    assert len(calls) == len(set(calls)) == 50


async def depth_is(house: House, count: int) -> bool:
    return await house.depth(JOBS) == count


async def test_what_waits_for_a_provider_removed_while_all_was_stopped_is_answered_after_apply(
    own_redis: House, simulator: SimulatorProcess, second: SimulatorProcess
) -> None:
    house = own_redis
    first, other = provider("first", simulator), provider("second", second, price=0.2)
    fleet = house.fleet(first + other)

    async with house.agent() as agent:
        async with house.workers(fleet, ["front"]):
            asked = asyncio.create_task(ask(agent, 20))
            await until(lambda: depth_is(house, 20))
        path = written(house, other)
        applied = await optimizer(house, "topology", "apply", "--config", str(path))
        async with house.workers(house.fleet(other)):
            replies = await asked

    assert applied.exit_code == 0, applied.output
    assert f"{JOBS} is removed; jobs that went back to the entrance: 8" in applied.output
    assert f"{JOBS}.1 is removed; jobs that went back to the entrance: 12" in applied.output
    assert {reply.provider for reply in replies} == {"second"}
    assert len(second.ledger()) == 20
