"""A run: real worker processes, malformed messages, and what became of each."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import aio_pika
from aio_pika.exceptions import AMQPError

from tests.fuzz import kinds_inside, kinds_msgpack, kinds_properties, kinds_schema
from tests.fuzz.books import Books
from tests.fuzz.line import REPLY_TO, line_to
from tests.fuzz.malformed import GOOD, End, Maker, good, messages
from tests.support.house import House
from tests.support.processes import Worker, worker_processes
from topology.declaration import declaration
from topology.fleet import Fleet

_REGISTERED = (kinds_msgpack, kinds_schema, kinds_properties, kinds_inside)
"""Importing them fills the list of kinds."""

_AT_ONCE = 400
_PATIENCE_S = 90.0
"""A worker that gives no end to anything for so long has stopped."""

_ALARMS = (
    "unexpectedly", "Traceback", "never retrieved", "connection lost", "channel failed", "publish failed",
    "callback failed", "exited abnormally",
)  # fmt: skip
"""What a worker's log must not hold after a message, however malformed."""


@dataclass(frozen=True)
class Report:
    """What a run came to; `wrongs` is empty when all is right."""

    wrongs: list[str]
    table: str
    seconds: float
    served_in_between: int


async def run(house: House, fleet: Fleet, seed: int, count: int, say: Callable[[str], None]) -> Report:
    """Sends `count` malformed messages to a whole fleet, with good ones in between and a last one."""
    await house.declare(fleet)
    books, began = Books(), time.monotonic()
    workers: list[Worker] = []
    readers: list[asyncio.Task[None]] = []
    config = house.folder / "fleet.toml"
    try:
        async with worker_processes(house, config, ["front"], ["backend:all"], ["undertaker"]) as started:
            workers += started
            readers += [asyncio.create_task(_read_on(worker), name="worker's log") for worker in workers]
            await _send_all(house, seed, count, say, books)
            _check_alive(workers, books)
    except (OSError, AMQPError, AssertionError, TimeoutError) as error:
        books.wrongs.append(f"{type(error).__name__}: {error}")
    for worker in workers:
        if worker.process.returncode is None:
            books.wrongs.append("a worker did not stop:\n" + "".join(worker.log[-20:]))
            worker.process.kill()
    await asyncio.gather(*readers)
    books.close()
    return Report(
        wrongs=books.wrongs + _logged(workers) + await _left(house, fleet),
        table=books.table(),
        seconds=time.monotonic() - began,
        served_in_between=books.ends[GOOD][End.SERVED],
    )


async def _send_all(house: House, seed: int, count: int, say: Callable[[str], None], books: Books) -> None:
    async with line_to(house.amqp_url, books) as line:
        progress = _Progress(books, count, say)
        for sent, message in enumerate(messages(seed, count, REPLY_TO, time.time)):
            books.sent(message)
            await line.publish(message)
            await progress.until_at_most(_AT_ONCE)
            progress.tell(sent)
        await progress.until_at_most(0)
        last = good(Maker(GOOD, Random(0), f"g{seed}.last", REPLY_TO, time.time()))
        books.sent(last)
        await line.publish(last)
        await progress.until_at_most(0)  # an end too many of another comes before its end


def _check_alive(workers: list[Worker], books: Books) -> None:
    """The processes are those that were started: nothing starts another in place of one that ended."""
    for worker in workers:
        if worker.process.returncode is not None:
            log = "".join(worker.log[-60:])
            books.wrongs.append(f"worker {worker.process.pid} has stopped:\n{log}")


async def _read_on(worker: Worker) -> None:
    """Reads a worker's log to its end; it would block when its pipe is full."""
    assert worker.process.stderr is not None
    async for line in worker.process.stderr:
        worker.log.append(line.decode("utf-8", "replace"))


def _logged(workers: list[Worker]) -> list[str]:
    lines = [line for worker in workers for line in worker.log if any(alarm in line for alarm in _ALARMS)]
    return [f"logged: {line.strip()}" for line in lines[:20]]


class _Progress:
    """Waits until few enough messages are without an end; gives up when nothing moves any more."""

    def __init__(self, books: Books, count: int, say: Callable[[str], None]) -> None:
        self._books, self._count, self._say = books, count, say
        self._moved_at = time.monotonic()
        self._ended = 0
        self._given_up = False

    async def until_at_most(self, most: int) -> None:
        while self._books.waiting > most and not self._given_up:
            await asyncio.sleep(0.005)
            if self._books.ended != self._ended:
                self._ended, self._moved_at = self._books.ended, time.monotonic()
            elif time.monotonic() - self._moved_at > _PATIENCE_S:
                self._given_up = True

    def tell(self, sent: int) -> None:
        if sent % 5000 == 0 and sent:
            self._say(f"{sent:>7} of {self._count} sent, {self._books.ended} ended")


async def _left(house: House, fleet: Fleet) -> list[str]:
    """The queues that hold anything, after the workers have handed back what they held."""
    found = []
    async with await aio_pika.connect(house.amqp_url) as connection:
        channel = await connection.channel()
        for queue in declaration(fleet).queues:
            declared = await channel.declare_queue(queue.name, passive=True)
            if depth := declared.declaration_result.message_count:
                found.append(f"{depth} messages are left in {queue.name}")
    return found
