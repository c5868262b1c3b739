"""Every worker is replaced under load: by its like, and by the next version and back. Nobody notices."""

import asyncio
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from sandbox.simulator import Latency, SimulatorProcess
from tests.support.house import House
from tests.support.house import test_environ as environ_in
from tests.support.load import bought, under_load
from tests.support.processes import ROOT, Worker, start_worker
from tests.support.resting import at_rest
from topology import names

pytestmark = pytest.mark.long

ROLES = ("front", "backend:simulated")
PROMPTS = [f"Of the next version {n}" for n in range(40)]


@pytest.fixture
async def config(own_redis: House, simulator: SimulatorProcess) -> Path:
    simulator.change(latency=Latency(median_s=0.3).model_dump())
    await own_redis.declare(own_redis.simulated(simulator.base_url))
    config = own_redis.folder / "fleet.toml"
    config.write_text(config.read_text().replace("concurrency = 40", "concurrency = 6"))
    return config


async def started(house: House, config: Path, root: Path = ROOT) -> list[Worker]:
    """A worker for each role."""
    return list(await asyncio.gather(*(start_worker(house, config, role, root=root) for role in ROLES)))


async def stopped(*workers: Worker) -> None:
    """One after the other, as a rolling deployment does it."""
    for worker in workers:
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0


@pytest.mark.timeout(240)
async def test_a_rolling_restart_costs_no_answer_and_no_call(
    own_redis: House, config: Path, simulator: SimulatorProcess
) -> None:
    workers = [*await started(own_redis, config), *await started(own_redis, config)]

    async with under_load(own_redis) as load:
        for worker, role in zip(list(workers), ROLES * 2, strict=True):
            workers.append(await start_worker(own_redis, config, role))
            workers.remove(worker)
            await stopped(worker)
            await load.goes_on()
    await stopped(*workers)

    assert bought(simulator) == load.prompts
    await at_rest(own_redis)


@pytest.mark.timeout(240)
async def test_a_rolling_upgrade_and_the_way_back_cost_no_answer_and_no_call(
    own_redis: House, config: Path, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    house, upgraded = own_redis, next_version(tmp_path / "next")

    async with house.events("optimizer.next") as of_the_next:
        old = await started(house, config)
        async with under_load(house) as load:
            agents = asyncio.create_task(agents_of(upgraded, house))
            new = await started(house, config, upgraded)
            await load.goes_on()
            await stopped(*old)
            await load.goes_on()
            old = await started(house, config)
            await load.goes_on()
            await stopped(*new)
            await load.goes_on()
            told = await agents
        await stopped(*old)

    assert [answer["error"] for answer in told] == [None] * 2 * len(PROMPTS)
    assert bought(simulator) == load.prompts + len(PROMPTS)
    assert await house.depth(names.DEAD_KEPT_QUEUE) == 0
    assert of_the_next != []
    assert await knows_next(house)
    await at_rest(house)


def next_version(folder: Path) -> Path:
    """Today's packages with what a release may add: optional fields, scripts, a field in Redis, an event."""
    for package in {file.parent for file in ROOT.glob("*/__init__.py")} - {ROOT / "tests"}:
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "support" / "agents.py", folder)
    for message in ("Request", "Waiter", "Envelope", "Job", "Outcome", "Reply"):
        kind = f'    kind: ClassVar[str] = "{message.lower()}"\n'
        patch(folder / "topology" / "messages.py", kind, f'{kind}    next: str | None = "next"\n')
    patch(folder / "broker" / "scripts" / "prelude.lua", "local FLIGHT", "local NEXT = 'next'\nlocal FLIGHT")
    led = "'published_rank', a.rank,"
    patch(folder / "broker" / "scripts" / "admit.lua", led, f"{led} NEXT, '1',")
    joined = "self._tell(EventType.DEDUPE_JOINED, read)"
    next_ = f"{joined}\n                self._tell(EventType.NEXT, read)"
    patch(folder / "workers" / "deciding.py", joined, next_)
    known = '    DEDUPE_JOINED = "optimizer.dedupe.joined"\n'
    patch(folder / "topology" / "events.py", known, f'{known}    NEXT = "optimizer.next"\n')
    return folder


def patch(file: Path, before: str, after: str) -> None:
    text = file.read_text("utf-8")
    assert text.count(before) == 1, (file, before)
    file.write_text(text.replace(before, after), "utf-8")


async def agents_of(root: Path, house: House) -> list[dict[str, Any]]:
    """Two agents of that version, which ask the same."""
    plan = {"agents": ["three", "four"], "prompts": [PROMPTS, PROMPTS], "options": {"timeout": 110}}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agents", json.dumps(plan),
        cwd=root, env=environ_in(house), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    answers: list[dict[str, Any]] = json.loads(out)
    return answers


async def knows_next(house: House) -> bool:
    """Whether the next version has led flights."""
    async with Redis.from_url(house.redis_url) as redis:
        flights = [key async for key in redis.scan_iter("o1:flight:*")]
        return any([await redis.hexists(key, "next") for key in flights])
