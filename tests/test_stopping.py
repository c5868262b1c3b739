"""SIGTERM and Ctrl-C drain: nothing that was taken is lost, and the next start goes on from the queues."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from producer_sdk.settings import read_env_file
from sandbox.simulator import Latency, SimulatorProcess
from tests.support.house import House
from tests.support.processes import ROOT, start_worker, worker_processes
from tests.support.waiting import until
from topology import names
from topology.names import Priority
from workers.backend import Pool

JOBS = names.jobs_queue("simulated", "any", Priority.NORMAL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_backend_that_is_told_to_stop_finishes_its_calls_and_leaves_the_rest(
    own_redis: House, simulator: SimulatorProcess, number: signal.Signals
) -> None:
    simulator.change(latency=Latency(median_s=1.0).model_dump())
    house = own_redis
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)
    config = house.folder / "fleet.toml"
    config.write_text(config.read_text().replace("concurrency = 40", "concurrency = 4"))

    async with worker_processes(house, config, ["front"]), house.agent() as optimizer:
        first = await start_worker(house, config, "backend:simulated")
        asked = asyncio.gather(*(optimizer.chat(f"Prompt {n}", timeout=90) for n in range(20)))
        await until(lambda: len(simulator.ledger()) >= 4)
        first.signal(number)

        assert await first.ended() == 0
        running_at_the_end = [call for call in simulator.ledger() if call.finished_at is None]
        assert running_at_the_end == []
        assert await house.depth(JOBS) == 20 - len(simulator.ledger())

        async with worker_processes(house, config, ["backend:simulated"]):
            replies = await asked

    assert {reply.status for reply in replies} == {"ok"}
    assert [call.outcome for call in simulator.ledger()] == ["ok"] * 20


async def test_fronts_and_backends_restart_under_load_and_nothing_is_lost_or_paid_twice(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    simulator.change(latency=Latency(median_s=0.05).model_dump())
    house = own_redis
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)
    config = house.folder / "fleet.toml"

    async with (
        worker_processes(house, config, ["front"], ["backend:simulated"]),
        house.agent() as optimizer,
    ):
        asked = asyncio.gather(*(optimizer.chat(f"Prompt {n}", timeout=90) for n in range(300)))
        for _ in range(2):
            pair = await asyncio.gather(
                start_worker(house, config, "front"), start_worker(house, config, "backend:simulated")
            )
            for worker in pair:
                worker.signal(signal.SIGTERM)
            assert [await worker.ended() for worker in pair] == [0, 0]
        replies = await asked

    assert {reply.status for reply in replies} == {"ok"}
    assert [call.outcome for call in simulator.ledger()] == ["ok"] * 300


async def test_up_leaves_nothing_behind_and_goes_on_from_its_queues(tmp_path: Path) -> None:
    async def up(*options: str) -> asyncio.subprocess.Process:
        ready = tmp_path / "ready.json"
        ready.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "console.main", "up", "--simulate", "--folder", str(tmp_path / "home"),
            "--ready-file", str(ready), *options,
            cwd=ROOT, env={**_no_brokers(), "OPTIMIZER_BROKERS": "private"},
            stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        await until(lambda: ready.exists() or process.returncode is not None, 90)
        assert process.returncode is None
        return process

    process = await up()
    urls = read_env_file(tmp_path / "home" / "env")
    first = await _call(urls, "Once and for all")
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    assert not [url for url in urls.values() if _listens(url)]
    assert not (tmp_path / "home" / "env").exists()
    assert _processes_with(str(tmp_path)) == []

    process = await up()
    again = await _call(read_env_file(tmp_path / "home" / "env"), "Once and for all")
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 60) == 0

    assert ("[provider," in first, "[cache," in again) == (True, True)
    assert _processes_with(str(tmp_path)) == []


async def _call(urls: dict[str, str], prompt: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "console.main", "call", prompt,
        cwd=ROOT, env={**os.environ, **urls},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode()
    return out.decode()


def _no_brokers() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OPTIMIZER_")}


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname or "", parts.port or 0)) == 0


def _processes_with(text: str) -> list[str]:
    """Command lines of living processes that name a path, our own apart."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and int(folder.name) != os.getpid():
            found.append(line)
    return found


async def test_a_worker_whose_role_has_ended_by_itself_does_not_live_on_without_it(
    house: House, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold its deliveries for ever, and be taken for alive. A cancellation may be nobody's."""

    async def run(_: Pool) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(Pool, "run", run)

    with pytest.raises(RuntimeError, match="role backend:simulated was cancelled by nobody"):
        async with house.workers(house.simulated(simulator.base_url)) as running:
            await asyncio.wait(running)
