"""Workers and agents as processes of their own."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.house import House, test_environ

ROOT = Path(__file__).parents[2]


class Worker:
    """A worker process, ready to work."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[str] = []

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Waits for its end, and returns its exit status."""
        return await asyncio.wait_for(self.process.wait(), 60)


async def start_worker(house: House, config: Path, *roles: str, root: Path = ROOT) -> Worker:
    """Starts the packages that lie under `root`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "console.main", "worker", *roles, "--config", str(config),
        cwd=root, env=test_environ(house), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    worker = Worker(process)
    assert process.stderr is not None
    while line := await asyncio.wait_for(process.stderr.readline(), 60):
        worker.log.append(line.decode())
        if line.strip() == b"ready":
            return worker
    raise AssertionError("the worker ended before it was ready:\n" + "".join(worker.log))


@asynccontextmanager
async def worker_processes(
    house: House, config: Path, *processes: Sequence[str]
) -> AsyncIterator[list[Worker]]:
    """Workers, one process for each list of roles; drained by SIGTERM at the end, which must succeed."""
    workers = await asyncio.gather(*(start_worker(house, config, *roles) for roles in processes))
    try:
        yield list(workers)
    finally:
        alive = [worker for worker in workers if worker.process.returncode is None]
        for worker in alive:
            worker.signal(signal.SIGTERM)
        codes = [await worker.ended() for worker in alive]
        assert codes == [0] * len(alive)


async def agents_process(house: House, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A client process with many agents; returns what each request came to. See `agents.py`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.agents", json.dumps(plan),
        cwd=ROOT, env=test_environ(house), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 110)
    assert process.returncode == 0
    results: list[dict[str, Any]] = json.loads(out)
    return results
