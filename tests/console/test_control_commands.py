"""What `optimizer pause`, `drain`, `resume` and `reload` say, and their exit status."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandbox.simulator import SimulatorProcess
from tests.support.commands import optimizer
from tests.support.fleets import provider
from tests.support.house import House
from tests.support.processes import worker_processes
from topology.digest import digest

NOWHERE_AMQP = "amqp://guest:secret@127.0.0.1:9/"
NOWHERE_REDIS = "redis://:secret@127.0.0.1:9/0"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@asynccontextmanager
async def working(house: House, simulator: SimulatorProcess) -> AsyncIterator[House]:
    async with house.workers(house.fleet(provider("first", simulator)), ["front"], ["backend:all"]):
        yield house


async def test_a_paused_provider_is_shown_and_is_no_health_problem(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    async with working(own_redis, simulator) as house:
        await optimizer(house, "pause", "first")
        status = await optimizer(house, "status")
        health = await optimizer(house, "health")
        for_programs = json.loads((await optimizer(house, "health", "--json")).stdout)
        resumed = await optimizer(house, "resume", "first")
        after = await optimizer(house, "health")

    note = "first is paused: nothing starts there until optimizer resume first"
    assert "all: paused" in status.stdout
    assert note in status.stdout
    assert (health.exit_code, health.stdout) == (0, f"healthy\nnote: {note}\n")
    assert for_programs == {"healthy": True, "unhealthy": [], "notes": [note]}
    assert resumed.stdout == "first is running: calls running 0, jobs waiting 0\n"
    assert after.stdout == "healthy\n"


@pytest.mark.parametrize("command", ["pause", "drain", "resume"])
async def test_a_provider_that_nobody_has_is_refused_with_those_there_are(
    own_redis: House, simulator: SimulatorProcess, command: str
) -> None:
    async with working(own_redis, simulator) as house:
        refused = await optimizer(house, command, "frist")

    assert refused.exit_code == 1
    assert refused.stderr == "optimizer: no worker has a pool for 'frist'; there are: first\n"


async def test_what_is_paused_can_be_resumed_after_it_has_gone_from_the_configuration(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    await house.declare(house.fleet(provider("gone", simulator)))
    assert (await optimizer(house, "pause", "gone")).exit_code == 0

    async with working(house, simulator):
        resumed = await optimizer(house, "resume", "gone")
        again = await optimizer(house, "resume", "gone")

    assert (resumed.exit_code, again.exit_code) == (0, 1)


@pytest.mark.parametrize(
    ("missing", "url"), [("OPTIMIZER_AMQP_URL", NOWHERE_AMQP), ("OPTIMIZER_REDIS_URL", NOWHERE_REDIS)]
)
async def test_a_broker_that_is_away_is_named_without_its_password(
    own_redis: House, simulator: SimulatorProcess, missing: str, url: str
) -> None:
    house = own_redis
    await house.declare(house.fleet(provider("first", simulator)))
    if missing == "OPTIMIZER_AMQP_URL":
        house.amqp_url = url
    else:
        house.redis_url = url

    paused = await optimizer(house, "pause", "first")

    assert paused.exit_code == 1
    assert "cannot be reached" in paused.stderr
    assert "secret" not in paused.output


async def test_with_nobody_alive_a_reload_only_declares(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    house.fleet(provider("first", simulator))

    done = await optimizer(house, "reload", "--config", str(house.folder / "fleet.toml"))
    checked = await optimizer(house, "topology", "check", "--config", str(house.folder / "fleet.toml"))

    assert (done.exit_code, checked.exit_code) == (0, 0)
    assert "no worker is alive; the next to start reads it" in done.stderr


async def test_a_worker_that_reads_another_file_is_named(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    async with working(own_redis, simulator) as house:
        theirs = house.fleet(provider("first", simulator))
        other = house.folder / "other.toml"
        other.write_text(provider("first", simulator, concurrency=3), "utf-8")
        done = await optimizer(house, "reload", "--config", str(other))

    assert done.exit_code == 1
    assert done.stderr.count(f"read another configuration ({digest(theirs)}, here ") == 2


async def test_worker_processes_read_their_file_again(own_redis: House, simulator: SimulatorProcess) -> None:
    house = own_redis
    text = provider("first", simulator)
    await house.declare(house.fleet(text))
    path = house.folder / "fleet.toml"

    async with worker_processes(house, path, ["front"], ["backend:all"]), house.agent() as agent:
        path.write_text(text + provider("second", simulator), "utf-8")
        done = await optimizer(house, "reload", "--config", str(path))
        replies = await asyncio.gather(
            *(agent.chat("Hello", model=f"{name}/sim-small", timeout=60) for name in ("first", "second"))
        )

    assert done.exit_code == 0, done.output
    assert re.search(r"^workers that run [0-9a-f]{8}: 2$", done.stdout, re.MULTILINE)
    assert [reply.provider for reply in replies] == ["first", "second"]
