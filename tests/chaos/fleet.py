"""The client processes and what is sent to them, as fast as the run wants it."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from tests.chaos.books import Asked, Books, Seen
from tests.chaos.load import DRIVERS, Ask
from tests.support.house import House, test_environ
from tests.support.processes import ROOT

_TOGETHER = 80
"""Requests without an end at the same time, at most."""


class Fleet:
    """Sends requests and writes down their ends."""

    def __init__(self, books: Books, processes: list[asyncio.subprocess.Process]) -> None:
        self._books = books
        self._processes = processes
        self._open = 0

    @property
    def room(self) -> int:
        """How many more may wait for their ends."""
        return _TOGETHER - self._open

    @property
    def in_flight(self) -> int:
        """How many have no end yet."""
        return self._open

    async def ask(self, ask: Ask) -> None:
        """Sends one."""
        self._books.asked[ask.id] = Asked(ask, ask.flight, time.time())
        self._open += 1
        stdin = self._processes[ask.process].stdin
        assert stdin is not None
        stdin.write(json.dumps(asdict(ask)).encode() + b"\n")
        await stdin.drain()

    async def retransmit(self) -> None:
        """Has every caller ask again for what it waits for, as after a reconnect."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b'{"retransmit": true}\n')
            await process.stdin.drain()

    async def listen(self, process: asyncio.subprocess.Process) -> None:
        """Writes down what one process says, until it ends."""
        assert process.stdout is not None
        async for line in process.stdout:
            said = json.loads(line)
            if "dropped" in said:
                self._books.dropped += said["dropped"]
            else:
                seen = Seen(**said)
                self._books.asked[seen.id].ends.append(seen)
                self._books.ended += 1
                self._books.errors += seen.error is not None
                self._open -= 1

    async def finish(self, patience_s: float) -> None:
        """No more is asked: waits for the last ends, and no longer than any deadline allows."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        try:
            async with asyncio.timeout(patience_s):
                for process in self._processes:
                    if code := await process.wait():
                        self._books.wrongs.append(f"a client process ended with {code}")
        except TimeoutError:
            self._books.wrongs.append("a client process did not end: callers wait beyond their deadlines")


@asynccontextmanager
async def fleet_of(house: House, books: Books, logs: Path) -> AsyncIterator[Fleet]:
    """The client processes, one for each driver in `DRIVERS`."""
    processes = [await _start(house, driver, logs / f"agents-{n}.log") for n, driver in enumerate(DRIVERS)]
    fleet = Fleet(books, processes)
    listening = [asyncio.create_task(fleet.listen(process), name="client process") for process in processes]
    try:
        yield fleet
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*listening)


async def _start(house: House, driver: str, log: Path) -> asyncio.subprocess.Process:
    with log.open("wb") as sink:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.agents", driver,
            cwd=ROOT, env=test_environ(house), stderr=sink, limit=1 << 20,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip


class Pace:
    """How many requests are to have been asked by now: in step with the kills, and never quite none."""

    def __init__(self, load: Iterator[Ask], fleet: Fleet, requests: int) -> None:
        self._load = load
        self._fleet = fleet
        self._requests = requests
        self.asked = 0

    async def keep(self, done: float, at_least: int) -> None:
        """Asks until the share `done` of all is asked, and `at_least` more, as far as there is room."""
        wanted = max(int(self._requests * done) - self.asked, at_least)
        for _ in range(min(wanted, self._fleet.room)):
            await self._fleet.ask(next(self._load))
            self.asked += 1
