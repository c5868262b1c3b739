"""What is on record of each call: in the recorder's database, and in the events that it is made from."""

import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aio_pika

from tests.chaos.books import Record
from tests.support.house import House
from topology import names
from topology.events import EventType
from topology.messages import Event

_QUEUE = "events.witness"
_CALLS = ("optimizer.call.#", "optimizer.spend.#")


def read_records(database: Path, events: Iterable[Event]) -> list[Record]:
    """The recorder's ledger; what was taken for doubtful and cleared up later is known from the events."""
    doubted = {_call_of(event) for event in events if event.type == EventType.SPEND_DOUBTFUL}
    query = "SELECT call, flight, request_id, state, outcome, worker, provider FROM calls"
    with closing(_open(database)) as connection:
        rows = connection.execute(query).fetchall()
    return [
        Record(
            call, flight, request_id, state, outcome == "error",
            doubted=state == "doubtful" or call in doubted, worker=worker, provider=provider,
        )
        for call, flight, request_id, state, outcome, worker, provider in rows
    ]  # fmt: skip


def workers_of(database: Path, pids: Iterable[int]) -> set[str]:
    """The workers that run, or ran, in these processes."""
    with closing(_open(database)) as connection:
        rows = connection.execute("SELECT worker, pid FROM workers").fetchall()
    wanted = set(pids)
    return {worker for worker, pid in rows if pid in wanted}


def has_running(database: Path) -> bool:
    """Whether a call is taken for running."""
    with closing(_open(database)) as connection:
        (running,) = connection.execute("SELECT count(*) FROM calls WHERE state = 'running'").fetchone()
    return bool(running)


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True)


def disagreements(records: Iterable[Record], events: Iterable[Event]) -> list[str]:
    """Calls that the recorder knows nothing of, or too much: whether being killed cost or gave it any."""
    recorded = {record.call for record in records}
    told = {_call_of(event) for event in events}
    return [f"call {call} is in the events, not in the database" for call in sorted(told - recorded)] + [
        f"call {call} is in the database, not in the events" for call in sorted(recorded - told)
    ]


def _call_of(event: Event) -> str:
    return str((event.model_extra or {}).get("call"))


class Witness:
    """Keeps every event about a call in a durable queue of its own."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def all(self) -> list[Event]:
        """Those of the whole run, at its end."""
        events: list[Event] = []
        async with await aio_pika.connect(self._house.amqp_url) as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(_QUEUE, ensure=False)
            while message := await queue.get(no_ack=True, fail=False):
                events.append(Event.from_bytes(message.body))
        return events


@asynccontextmanager
async def witness(house: House) -> AsyncIterator[Witness]:
    """From now on; it survives a restart of RabbitMQ."""
    async with await aio_pika.connect(house.amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        for pattern in _CALLS:
            await queue.bind(names.EVENTS, pattern)
    yield Witness(house)
