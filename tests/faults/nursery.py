"""Starts workers that die or freeze where a test tells them to, a new one in a tenth of a second.

::

    async with nursery(house) as n:
        worker = await n.start("front")                    # ready: it consumes
        await worker.arm("front.after_admit")              # the order is taken; points.py lists the points
        ...
        fired = await worker.fired()                       # it is there: fired.point, fired.pid, fired.flight
        assert await worker.ended() == -signal.SIGKILL

        other = await n.start("backend:simulated", lease_s=2)
        await other.arm("backend.in_call", nth=3, do="stop")   # frozen the third time that it passes
        ...
        other.cont()                                       # and stop(), kill(), drain() from outside

A worker reads `fleet.toml` in the house's folder, where `house.fleet(...)` has put it, and uses the brokers
and the key prefix of the house. The topology is the test's to declare: `await house.declare(fleet)`. What a
worker logs is in `worker.log`.

Leaving drains every worker that lives, which must succeed; those that are frozen are killed. When the test
fails, all are killed. Workers are forked from one process for the whole test run, see `parent.py`; any
number of nurseries may be open at once, and any number of workers started at once.
"""

import asyncio
import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

from tests.faults.points import POINTS, unknown
from tests.faults.worker import IN_CALL_S, PREFIX
from tests.support.house import House, test_environ

Action = Literal["kill", "stop"]

_ROOT: Final = Path(__file__).parents[2]
_LIMIT_S: Final = 60.0
_LAST_WORDS_S: Final = 2.0
_RENEWS_IN_A_LEASE: Final = 3.0
_numbers: Final = count()


@dataclass(frozen=True)
class Fired:
    """A point was reached, and the order there carried out. `flight` is the fingerprint where it is known."""

    point: str
    pid: int
    flight: str | None


@dataclass(eq=False)
class FaultyWorker:
    """One worker process.

    Attributes:
        number: Its place among the workers of this test run.
        pid: Its process id.
        log: The file that it logs to.
        status: Its exit status once it has ended, negative for a signal; None while it lives.
        is_frozen: Whether it was stopped, by an order or from outside, and not continued.
    """

    number: int
    roles: tuple[str, ...]
    log: Path
    pid: int = 0
    status: int | None = None
    is_frozen: bool = False
    _said: dict[str, asyncio.Queue[dict[str, Any]]] = field(default_factory=dict)
    _writer: asyncio.StreamWriter | None = None
    _orders: dict[str, str] = field(default_factory=dict)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def arm(self, point: str, *, nth: int = 1, do: Action = "kill") -> None:
        """Has it kill or stop itself when it passes this point for the `nth` time from now.

        Returns once the worker has taken the order. An order at the same point replaces the one before.

        Raises:
            ValueError: There is no such point.
        """
        order = self._ordered(point, nth, do)
        assert self._writer is not None
        self._writer.write(json.dumps(order).encode() + b"\n")
        await self._heard("armed")

    async def fired(self, timeout_s: float = _LIMIT_S) -> Fired:
        """Waits until an order is carried out; each is told of once.

        Raises:
            AssertionError: The worker ended without reaching the point.
            TimeoutError: It did not come there within `timeout_s` seconds.
        """
        said = await self._heard("point", timeout_s)
        return Fired(said["point"], said["pid"], said["flight"])

    async def ended(self, timeout_s: float = _LIMIT_S) -> int:
        """Waits for its end, and returns its exit status, negative for a signal."""
        async with asyncio.timeout(timeout_s):
            await self._over.wait()
        assert self.status is not None
        return self.status

    async def drained(self) -> int:
        """As `ended`, for one that was told to: where it does not, its log says what it waits for."""
        with suppress(TimeoutError):
            return await self.ended()
        self._signal(signal.SIGUSR1)
        with suppress(TimeoutError):
            return await self.ended(_LAST_WORDS_S)
        raise AssertionError(f"{self.roles} did not drain within {_LIMIT_S:g} s\n{self._tail(100_000)}")

    def stop(self) -> None:
        """Freezes it."""
        self.is_frozen = True
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Lets it go on."""
        self.is_frozen = False
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, frozen or not."""
        self._signal(signal.SIGKILL)

    def drain(self) -> None:
        """SIGTERM, as an operator stops it."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self.status is None:  # not reaped either: the pid is still its own
            os.kill(self.pid, number)

    async def _heard(self, what: str, timeout_s: float = _LIMIT_S) -> dict[str, Any]:
        """The next line of this kind, or an assertion that it ended without one."""
        hearing = asyncio.ensure_future(self._queue(what).get())
        ending = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({hearing, ending}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done() and not ending.done():
                raise TimeoutError(f"{self.roles} said nothing of {what!r} within {timeout_s:g} s")
            if not hearing.done():  # its last words may still be on their way
                await asyncio.wait({hearing}, timeout=1.0)
            assert hearing.done(), (
                f"{self.roles} ended with {self.status} before it said {what!r}\n{self._tail()}"
            )
            return hearing.result()
        finally:
            hearing.cancel()
            ending.cancel()

    def _ordered(self, point: str, nth: int, do: Action) -> dict[str, Any]:
        if point not in POINTS:
            raise ValueError(unknown(point))
        self._orders[point] = do
        return {"point": point, "nth": nth, "do": do}

    def _queue(self, what: str) -> asyncio.Queue[dict[str, Any]]:
        return self._said.setdefault(what, asyncio.Queue())

    def _take(self, line: bytes) -> None:
        said = json.loads(line)
        what = next(kind for kind in ("ready", "armed", "point") if kind in said)
        if what == "point" and self._orders[said["point"]] == "stop":
            self.is_frozen = True
        self._queue(what).put_nowait(said)

    def _has_ended(self, status: int) -> None:
        self.status = status
        self._over.set()

    def _tail(self, characters: int = 3000) -> str:
        return self.log.read_text("utf-8", errors="replace")[-characters:] if self.log.exists() else ""


class Nursery:
    """The workers of one house. Built by `nursery`."""

    def __init__(self, house: House, line: str, to_parent: asyncio.StreamWriter) -> None:
        self._house = house
        self._line = line
        self._to_parent = to_parent
        self._listening: set[asyncio.Task[None]] = set()
        self._logs = house.folder / "workers"
        self._logs.mkdir(exist_ok=True)
        self.workers: list[FaultyWorker] = []

    async def start(
        self,
        *roles: str,
        armed: str | None = None,
        do: Action = "kill",
        config: Path | None = None,
        lease_s: float | None = None,
        backoff_s: float | None = None,
        in_call_s: float | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> FaultyWorker:
        """Starts a worker; returns when it is ready.

        Args:
            roles: As for `optimizer worker`.
            armed: A point at which it dies or freezes when it first passes, as by `arm`; it may be there
                before this returns. None: it is armed later, if at all.
            do: What it does there.
            config: The fleet's file; None: `fleet.toml` in the house's folder.
            lease_s: How long its claims are believed, in seconds, three renewals to each; None: 15, as in
                production.
            backoff_s: How long after a job's publish its front believes in it, in seconds; None: 30.
            in_call_s: How long after a request was written `backend.in_call` lies, in seconds; None: 0.05.
            environ: More for its environment.

        Raises:
            AssertionError: It ended before it was ready; the text has what it logged.
        """
        number = next(_numbers)
        log = self._logs / f"{number}-{'+'.join(roles).replace(':', '-')}.log"
        worker = FaultyWorker(number, roles, log)
        self.workers.append(worker)
        shortened = {
            "FAULTS_LEASE_S": lease_s,
            "FAULTS_RENEW_EVERY_S": lease_s and lease_s / _RENEWS_IN_A_LEASE,
            "FAULTS_BACKOFF_S": backoff_s,
            IN_CALL_S: in_call_s,
        }
        order = {
            "spawn": number,
            "roles": roles,
            "config": str(config or self._house.folder / "fleet.toml"),
            "environ": {
                **test_environ(self._house),
                PREFIX: self._house.prefix,
                **{name: str(value) for name, value in shortened.items() if value is not None},
                **(environ or {}),
            },
            "line": self._line,
            "log": str(log),
            "armed": worker._ordered(armed, 1, do) if armed else None,
        }
        self._to_parent.write(json.dumps(order).encode() + b"\n")
        await worker._heard("ready")
        return worker

    async def drain(self) -> None:
        """Drains every worker that lives, which must succeed; those that are frozen are killed."""
        alive = [worker for worker in self.workers if worker.status is None]
        for worker in alive:
            if worker.is_frozen:
                worker.kill()
            else:
                worker.drain()
        for worker in alive:
            status = await worker.drained()
            assert status == (-signal.SIGKILL if worker.is_frozen else 0), worker._tail()

    async def follow(self, from_parent: asyncio.StreamReader) -> None:
        """Follows what becomes of the processes, and at the end of that, of their last words."""
        while line := await from_parent.readline():
            ended = json.loads(line)
            self._numbered(ended["ended"])._has_ended(ended["status"])
        if self._listening:
            await asyncio.wait(self._listening)

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A worker speaks up."""
        task = asyncio.create_task(self._listen(reader, writer), name="worker's line")
        self._listening.add(task)
        task.add_done_callback(self._listening.discard)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):  # killed with a word of ours unread
            hello = json.loads(await reader.readline())
            worker = self._numbered(hello["worker"])
            worker.pid, worker._writer = hello["pid"], writer
            while line := await reader.readline():
                worker._take(line)
        writer.close()

    def _numbered(self, number: int) -> FaultyWorker:
        return next(worker for worker in reversed(self.workers) if worker.number == number)


@asynccontextmanager
async def nursery(house: House) -> AsyncIterator[Nursery]:
    """Opens a place to start workers in."""
    parent = await asyncio.to_thread(_parent)
    with tempfile.TemporaryDirectory(prefix="nursery-") as folder:  # short: a socket's path holds 107 bytes
        line = f"{folder}/line"
        from_parent, to_parent = await asyncio.open_unix_connection(parent)
        opened = Nursery(house, line, to_parent)
        following = asyncio.create_task(opened.follow(from_parent), name="nursery")
        async with await asyncio.start_unix_server(opened.meet, line):
            try:
                yield opened
                await opened.drain()
            finally:
                to_parent.write_eof()  # kills who is left; the parent's answer is its own end
                await following
                to_parent.close()


@cache
def _parent() -> str:
    """Starts the process that workers are forked from, once; its end is the end of this one."""
    folder = tempfile.mkdtemp(prefix="nursery-")
    path = f"{folder}/parent"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.parent", path],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", "the workers' parent process did not start"

    def end() -> None:
        process.communicate(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return path
