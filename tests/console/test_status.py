import asyncio
import json
import os
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from console.status import gather_status, health_command, status_command
from console.watching_tables import LivePool, LiveWorker, QueueDepth, Status, print_status
from sandbox.simulator import SimulatorProcess
from tests.support.dead import morgue
from tests.support.house import House
from tests.support.waiting import until
from topology import names

NOWHERE_AMQP = "amqp://guest:secret@127.0.0.1:9/"
NOWHERE_REDIS = "redis://:secret@127.0.0.1:9/0"

app = typer.Typer()
app.command("status")(status_command)
app.command("health")(health_command)


async def optimizer(house: House, *arguments: str) -> Result:
    """The command, beside this event loop; its folder holds the house's `fleet.toml`, if any."""
    urls = {"OPTIMIZER_AMQP_URL": house.amqp_url, "OPTIMIZER_REDIS_URL": house.redis_url}
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, arguments, env=urls))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def test_status_lists_the_living_workers_and_the_queues(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet, ["front"], ["backend:all"]):
        status = await gather_status(house.amqp_url, house.redis_url)

    backend, front = status.workers
    assert (front.roles, front.pid, front.redis, front.pools) == (("front",), os.getpid(), "up", ())
    assert backend.roles == ("backend:simulated",)
    assert backend.pools == (LivePool("simulated", running=0, slots=40, waiting=0, lanes=("any",)),)
    consumers = {queue.name: queue.consumers for queue in status.queues}
    assert consumers["requests.high"] == consumers["jobs.simulated.any.normal"] == 1
    assert consumers["retry.5m"] == consumers["dead.kept"] == 0
    assert status.unhealthy == []
    assert status.is_healthy


async def test_jobs_that_wait_are_counted_and_a_missing_pool_is_named(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet, ["front"]), house.agent() as agent:
        asking = asyncio.create_task(agent.chat("Wait here"))
        await until(lambda: waits(house, "jobs.simulated.any.normal"))
        status = await gather_status(house.amqp_url, house.redis_url, fleet)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking

    assert QueueDepth("jobs.simulated.any.normal", ready=1, consumers=0) in status.queues
    assert status.unhealthy == ["no backend is alive, so jobs wait; run: optimizer worker backend:all"]


async def waits(house: House, queue: str) -> bool:
    return await house.depth(queue) > 0


async def test_health_is_0_when_all_is_well_and_says_so(house: House, simulator: SimulatorProcess) -> None:
    async with house.workers(house.simulated(simulator.base_url)):
        said, for_programs = await optimizer(house, "health"), await optimizer(house, "health", "--json")

    assert (said.exit_code, said.stdout) == (0, "healthy\n")
    assert json.loads(for_programs.stdout) == {"healthy": True, "unhealthy": [], "notes": []}


async def test_health_is_1_with_the_reasons_when_there_is_no_front(
    house: House, simulator: SimulatorProcess
) -> None:
    async with house.workers(house.simulated(simulator.base_url), ["backend:all"]):
        health = await optimizer(house, "health")

    assert health.exit_code == 1
    assert health.stdout == "no front is alive, so requests wait; run: optimizer worker front\n"


async def test_status_is_0_whatever_it_finds(house: House) -> None:
    await house.declare(house.simulated("http://127.0.0.1:9"))

    said = await optimizer(house, "status", "--json")

    assert said.exit_code == 0
    status = json.loads(said.stdout)
    assert (status["healthy"], status["workers"]) == (False, [])
    assert {"name": "jobs.simulated.any.high", "ready": 0, "consumers": 0} in status["queues"]
    assert [reason.partition(" is alive")[0] for reason in status["unhealthy"]] == ["no front", "no backend"]


async def test_a_missing_topology_is_named_with_its_remedy(house: House) -> None:
    status = await gather_status(house.amqp_url, house.redis_url)

    assert status.unhealthy[0].startswith("topology: RabbitMQ has no optimizer.requests, ")
    assert status.unhealthy[0].endswith("run: optimizer topology apply")
    assert all(queue.ready is None for queue in status.queues)


async def test_what_is_dead_is_worth_knowing_and_no_illness(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m:
        await m.publish(b"noise", "", names.DEAD)
        unattended = await gather_status(house.amqp_url, house.redis_url)
        async with house.workers(fleet, ["undertaker"]):
            await (await m.next_of(names.DEAD_KEPT_QUEUE)).reject(requeue=True)
            attended = await gather_status(house.amqp_url, house.redis_url)

    assert unattended.notes == ["1 in dead wait for an undertaker; run: optimizer worker undertaker"]
    assert attended.notes == ["1 in dead.kept came to no good end; see: optimizer dead list"]
    assert not any("dead" in reason for reason in attended.unhealthy)


async def test_brokers_that_are_away_are_named_without_their_passwords(house: House) -> None:
    both = await gather_status(NOWHERE_AMQP, NOWHERE_REDIS)
    rabbitmq_alone = await gather_status(NOWHERE_AMQP, house.redis_url)
    health = await optimizer(house, "health", "--url", NOWHERE_AMQP, "--redis-url", NOWHERE_REDIS)

    assert [reason.split(" cannot")[0] for reason in both.unhealthy] == [
        "RabbitMQ at amqp://guest:***@127.0.0.1:9/",
        "Redis at redis://:***@127.0.0.1:9/0",
    ]
    assert len(rabbitmq_alone.unhealthy) == 1
    assert (health.exit_code, health.stdout.count("cannot be reached")) == (1, 2)


async def test_a_configuration_that_cannot_be_used_is_a_misuse(house: House) -> None:
    said = await optimizer(house, "health", "--config", "nowhere.toml")

    assert said.exit_code == 2
    assert "nowhere.toml: no such file" in said.stderr


async def test_where_no_broker_is_known_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTIMIZER_AMQP_URL", raising=False)

    said = CliRunner().invoke(app, ["status"])

    assert said.exit_code == 2
    assert "--url" in said.stderr
    assert "optimizer up" in said.stderr


def test_the_tables_show_workers_queues_and_reasons() -> None:
    pool = LivePool("groq", 2, 8, 5, {"any": "main's day"})
    worker = LiveWorker("backend-groq-1", ("backend:groq",), "host-1", 42, "refused", (pool,))
    queues = (QueueDepth("requests.high", 7, 1), QueueDepth("dead", None, None))
    out = StringIO()

    print_status(Status((worker,), queues, ["no front is alive"]), out)

    rows = [" ".join(row.split()) for row in out.getvalue().splitlines()]
    assert "backend-groq-1 backend:groq host-1 42 refused groq 2 / 8 5 any: main's day" in rows
    assert "requests.high 7 1" in rows
    assert "dead missing -" in rows
    assert "unhealthy: no front is alive" in rows


def test_no_text_of_a_worker_can_steer_the_terminal() -> None:
    out = StringIO()

    worker = LiveWorker("w\x1b[2J", ("front",), "h\x9b1m", 1, "up\x1b[31m", ())
    print_status(Status((worker,), (), ["bad \x1b[2J"]), out)

    assert "\x1b" not in out.getvalue()
    assert "\x9b" not in out.getvalue()
