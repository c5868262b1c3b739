"""A recorder that is killed again and again, in the middle of its work, loses nothing and doubles nothing."""

import asyncio
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import aio_pika
import pytest
from sqlalchemy import Table, func, select

from hub.store import tables
from hub.store.database import Database, NothingYet
from sandbox.simulator import SimulatorProcess
from tests.support.entries import rows
from tests.support.house import House
from tests.support.processes import start_worker, worker_processes
from tests.support.waiting import until
from topology import names
from topology.messages import Event

pytestmark = pytest.mark.long

KILLS = 5
EVENTS_EACH = 600
KILLED_AFTER_S = 1.0
WITNESS = "witness"


@pytest.mark.timeout(300)
async def test_a_recorder_killed_under_load_loses_and_doubles_nothing(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    path = house.folder / "optimizer.db"
    house.environ["OPTIMIZER_RECORDER__URL"] = f"sqlite:///{path}"
    await house.declare(house.simulated(simulator.base_url))
    config = house.folder / "fleet.toml"

    with closing(Database(house.environ["OPTIMIZER_RECORDER__URL"])) as database:
        async with await aio_pika.connect(house.amqp_url) as connection:
            channel = await connection.channel()
            witness = await channel.declare_queue(WITNESS, durable=True, arguments={"x-queue-type": "quorum"})
            await witness.bind(names.EVENTS, "optimizer.test")
            for round_ in range(KILLS):
                before = await asyncio.to_thread(count, database, tables.workers)
                recorder = await start_worker(house, config, "recorder")
                await until(lambda: has_grown(database, tables.workers, before))  # noqa: B023 - awaited here
                if round_ % 2:
                    with held_up(path):
                        await publish(channel, round_)
                        await asyncio.sleep(KILLED_AFTER_S)  # with a batch in hand that waits for the lock
                        recorder.signal(signal.SIGKILL)
                else:
                    before = await asyncio.to_thread(count, database, tables.events)
                    loading = asyncio.create_task(publish(channel, round_))
                    await until(lambda: has_grown(database, tables.events, before))  # noqa: B023
                    recorder.signal(signal.SIGKILL)  # with a batch just written
                    await loading
                await recorder.ended()
            async with worker_processes(house, config, ["recorder"]):
                await until(lambda: is_all_recorded(database, KILLS * EVENTS_EACH))
            seen = await read(witness, 3 * KILLS * EVENTS_EACH)

        recorded = await asyncio.to_thread(rows, database, tables.events)
        calls = await asyncio.to_thread(rows, database, tables.calls)

    assert Counter(row["id"] for row in recorded) == Counter(id_ for id_ in seen if id_.startswith("retry"))
    assert Counter(f"{row['call']}:started" for row in calls) == Counter(i for i in seen if ":started" in i)
    assert {(row["state"], row["attempt"]) for row in calls} == {("settled", 1)}


@contextmanager
def held_up(path: Path) -> Iterator[None]:
    """Nobody can write meanwhile."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


async def publish(channel: aio_pika.abc.AbstractChannel, round_: int) -> None:
    """Of each call its end before its beginning, and another event."""
    exchange = await channel.get_exchange(names.EVENTS)
    for start in range(0, EVENTS_EACH, 100):
        await asyncio.gather(
            *(
                exchange.publish(aio_pika.Message(body, delivery_mode=2), routing_key="optimizer.test")
                for n in range(start, start + 100)
                for body in bodies(f"{round_}-{n}")
            )
        )


def bodies(call: str) -> list[bytes]:
    facts = {"call": call, "flight": call, "agent": "quality", "request_id": call, "attempt": 1}
    return [
        Event(id=call, type="optimizer.call.completed", at=2.0e9, status=200, **facts).to_bytes(),
        Event(id=f"{call}:started", type="optimizer.call.started", at=1.9e9, until=2.1e9, **facts).to_bytes(),
        Event(id=f"retry {call}", type="optimizer.retry", at=2.0e9, agent="quality").to_bytes(),
    ]


def count(database: Database, table: Table) -> int:
    try:
        with database.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
    except NothingYet:
        return 0


async def has_grown(database: Database, table: Table, before: int) -> bool:
    return await asyncio.to_thread(count, database, table) > before


async def is_all_recorded(database: Database, events: int) -> bool:
    return await asyncio.to_thread(count, database, tables.events) == events


async def read(queue: aio_pika.abc.AbstractQueue, messages: int) -> list[str]:
    ids: list[str] = []

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        ids.append(Event.from_bytes(message.body).id)

    await queue.consume(take, no_ack=True)
    await until(lambda: len(ids) == messages)
    return ids
