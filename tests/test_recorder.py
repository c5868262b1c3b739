"""The recorder, from what workers publish to what `optimizer stats` prints."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import aio_pika
import pytest
from sqlalchemy import Table, text

from console.status import gather_status
from hub.store import tables
from hub.store.database import Database, NothingYet
from producer_sdk import NoModelAvailable
from sandbox.simulator import SimulatorProcess
from tests.support.commands import optimizer
from tests.support.databases import KINDS, database_url
from tests.support.entries import NOW, rows
from tests.support.house import House
from tests.support.waiting import until
from topology import names
from topology.fleet import Fleet
from topology.messages import Event
from topology.sections import RecorderSection

EVERYBODY = ["front", "backend:all", "recorder"]


@pytest.fixture
def path(house: House) -> Path:
    return house.folder / "data" / "optimizer.db"


@pytest.fixture
def fleet(house: House, simulator: SimulatorProcess, path: Path) -> Fleet:
    return recorded_at(house.simulated(simulator.base_url), f"sqlite:///{path}")


def recorded_at(fleet: Fleet, url: str) -> Fleet:
    return fleet.model_copy(update={"recorder": RecorderSection.model_validate({"url": url})})


def holds(database: Database, table: Table, *ids: str) -> Callable[[], Awaitable[bool]]:
    """Whether a table has exactly these rows."""
    [key, *_] = reversed(list(table.primary_key))

    def look() -> bool:
        try:
            return {row[key.name] for row in rows(database, table)} == set(ids)
        except NothingYet:
            return False

    async def held() -> bool:
        return await asyncio.to_thread(look)

    return held


async def tell(house: House, *bodies: bytes) -> None:
    """Publishes on the exchange of events, as anybody may."""
    async with await aio_pika.connect(house.amqp_url) as connection:
        exchange = await (await connection.channel()).get_exchange(names.EVENTS)
        for body in bodies:
            await exchange.publish(aio_pika.Message(body), routing_key="optimizer.test")


def retry(id_: str, agent: str = "quality") -> bytes:
    return Event(id=id_, type="optimizer.retry", at=NOW, agent=agent, request_id="r").to_bytes()


async def is_settled(database: Database) -> bool:
    return {row["state"] for row in await asyncio.to_thread(rows, database, tables.calls)} == {"settled"}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_call_of_the_providers_ledger_has_one_row_with_its_cost(
    house: House, simulator: SimulatorProcess, fleet: Fleet, tmp_path: Path, kind: str
) -> None:
    with database_url(kind, tmp_path) as url, closing(Database(url)) as database:
        async with house.workers(recorded_at(fleet, url), EVERYBODY), house.agent() as agent:
            replies = await asyncio.gather(*(agent.chat(f"Prompt {n % 10}", task="code") for n in range(30)))
            await until(holds(database, tables.requests, *(reply.id for reply in replies)))
            await until(lambda: is_settled(database))
        calls = await asyncio.to_thread(rows, database, tables.calls)

    assert {row["call"] for row in calls} == {call.call_id for call in simulator.ledger()}
    assert {(row["state"], row["outcome"], row["agent"], row["task"]) for row in calls} == {
        ("settled", "answer", "tester", "code")
    }
    assert sum(row["cost_usd"] for row in calls) == pytest.approx(sum(r.cost_usd or 0.0 for r in replies))


async def test_stats_tells_what_was_asked_bought_and_saved(house: House, fleet: Fleet, path: Path) -> None:
    house.environ["OPTIMIZER_RECORDER__URL"] = f"sqlite:///{path}"
    before = await optimizer(house, "stats")
    async with house.workers(fleet, EVERYBODY), house.agent() as agent:
        first, second = await agent.chat("The same"), await agent.chat("The same")
        with pytest.raises(NoModelAvailable):
            await agent.chat("Anything", model="nobody-has-it", request_id="refused")
        with closing(Database(f"sqlite:///{path}")) as database:
            await until(holds(database, tables.requests, first.id, second.id, "refused"))
    shown = await optimizer(house, "stats", "--by", "agent")
    found = json.loads((await optimizer(house, "stats", "--by", "model", "--json")).stdout)

    assert (before.exit_code, "nothing has been recorded" in before.stderr) == (1, True)
    assert (shown.exit_code, "tester" in shown.stdout, "no_model_available 1" in shown.stdout) == (
        0,
        True,
        True,
    )
    assert found["total"]["requests"] == 3
    assert found["total"]["hits"] == 1
    assert found["total"]["saved_usd"] == pytest.approx(first.cost_usd)
    assert list(found["groups"]) == ["simulated/sim-small"]


async def test_while_the_database_is_locked_events_wait_in_the_queue_and_health_says_so(
    house: House, fleet: Fleet, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.store.database._BUSY_S", 0.1)
    with closing(Database(f"sqlite:///{path}")) as database:
        async with house.workers(fleet, EVERYBODY):
            await tell(house, retry("before"))
            await until(holds(database, tables.events, "before"))
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                await tell(house, retry("meanwhile"))
                await until(lambda: depth_of_the_queue(house, 2))  # with a heartbeat: nothing is held
                said = (await gather_status(house.amqp_url, house.redis_url, fleet)).unhealthy
            await until(holds(database, tables.events, "before", "meanwhile"))

    assert len([problem for problem in said if "locked" in problem and "events.recorder" in problem]) == 1


async def depth_of_the_queue(house: House, at_least: int) -> bool:
    return await house.depth(names.RECORDER_QUEUE) >= at_least


async def test_what_is_no_event_is_kept_for_people_and_stops_nobody(
    house: House, fleet: Fleet, path: Path
) -> None:
    with closing(Database(f"sqlite:///{path}")) as database:
        async with house.workers(fleet, EVERYBODY):
            await tell(house, b"no event", retry("good"))
            await until(holds(database, tables.events, "good"))
            await until(lambda: is_kept(house, 1))


async def is_kept(house: House, count: int) -> bool:
    return await house.depth(names.DEAD_KEPT_QUEUE) == count


async def test_an_event_that_the_database_refuses_is_kept_and_its_batch_is_recorded(
    house: House, fleet: Fleet, path: Path
) -> None:
    refuse = "CREATE UNIQUE INDEX one_each ON events (agent)"
    with closing(Database(f"sqlite:///{path}")) as database:
        database.migrate()
        with database.writing() as connection:
            connection.execute(text(refuse))
        async with house.workers(fleet, EVERYBODY):
            await tell(house, retry("one"), retry("again one"), retry("another", agent="batch"))
            await until(holds(database, tables.events, "one", "another"))
            await until(lambda: is_kept(house, 1))


async def test_events_of_a_time_without_a_recorder_are_recorded_later(
    house: House, fleet: Fleet, path: Path
) -> None:
    with closing(Database(f"sqlite:///{path}")) as database:
        async with house.workers(fleet, EVERYBODY):
            await until(holds(database, tables.events))
        await tell(house, *(retry(f"event {n}") for n in range(5)))
        said = (await gather_status(house.amqp_url, house.redis_url, fleet)).unhealthy
        async with house.workers(fleet, EVERYBODY):
            await until(holds(database, tables.events, *(f"event {n}" for n in range(5))))

    assert any("no recorder is alive" in problem for problem in said)


async def test_tables_of_a_newer_release_are_left_alone_until_this_one_is_updated(
    house: House, fleet: Fleet, path: Path
) -> None:
    with closing(Database(f"sqlite:///{path}")) as database:
        database.migrate()
        revision = set_revision(path, "9999")
        async with house.workers(fleet, EVERYBODY):
            await tell(house, retry("early"))
            await until(lambda: depth_of_the_queue(house, 1))
            said = (await gather_status(house.amqp_url, house.redis_url, fleet)).unhealthy
            set_revision(path, revision)
            await until(holds(database, tables.events, "early"))

    assert any("newer release" in problem for problem in said)


def set_revision(path: Path, revision: str) -> str:
    with closing(sqlite3.connect(path)) as connection:
        [before] = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
        connection.commit()
        return str(before)
