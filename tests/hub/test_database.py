"""The tables are made, brought up to date, and left alone where a newer release has been."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, text

from hub.store import tables
from hub.store.database import Database, NothingYet, StoreAway, Unstorable
from hub.store.ledger import Ledger
from tests.support.entries import rows, started
from topology.loading import ConfigurationError


def test_the_migrations_make_the_tables_that_the_code_writes(ledger: Ledger, database: Database) -> None:
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_opening_again_keeps_what_is_there(ledger: Ledger, database: Database) -> None:
    ledger.record([started("c-1")])

    ledger.open()

    assert len(rows(database, tables.calls)) == 1


def test_recorders_that_start_at_once_make_the_tables_once(url: str, database: Database) -> None:
    ledgers = [Ledger(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Ledger.open, ledgers))
    for ledger in ledgers:
        ledger.close()

    assert rows(database, tables.calls) == []


def test_a_newer_releases_tables_are_left_alone(url: str, ledger: Ledger, database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(StoreAway, match="newer release"):
        ledger.record([started("c-1")])
    with closing(Ledger(url)) as another, pytest.raises(StoreAway, match="newer release"):
        another.open()


def test_tables_that_are_gone_are_made_again(ledger: Ledger, database: Database) -> None:
    with database.writing() as connection:
        tables.metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))

    with pytest.raises(StoreAway):
        ledger.record([started("c-1")])
    ledger.open()
    ledger.record([started("c-1")])

    assert len(rows(database, tables.calls)) == 1


def test_a_refused_row_leaves_nothing_of_its_batch(url: str, ledger: Ledger, database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("CREATE UNIQUE INDEX one_each ON calls (agent)"))

    with pytest.raises(Unstorable):
        ledger.record([started("c-1"), started("c-2")])

    assert rows(database, tables.calls) == []


def test_nothing_is_read_where_nobody_wrote(url: str, database: Database) -> None:
    with pytest.raises(NothingYet), database.reading():
        pass


def test_a_locked_file_is_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.store.database._BUSY_S", 0.1)
    path = tmp_path / "optimizer.db"
    ledger = Ledger(f"sqlite:///{path}")
    ledger.open()

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreAway, match="locked"):
            ledger.record([started("c-1")])
    ledger.record([started("c-1")])

    assert len(rows(Database(f"sqlite:///{path}"), tables.calls)) == 1


def test_a_full_disk_is_for_later(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.db"
    ledger = Ledger(f"sqlite:///{path}")
    ledger.open()
    with closing(sqlite3.connect(path)) as other:
        pages = other.execute("PRAGMA page_count").fetchone()[0]

    engine = ledger._database._engine

    @event.listens_for(engine, "connect")
    def full(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}").close()

    with pytest.raises(StoreAway, match="full"):
        ledger.record([started(f"c-{n}") for n in range(500)])
    event.remove(engine, "connect", full)
    ledger.record([started(f"c-{n}") for n in range(500)])


def test_a_server_that_is_away_is_for_later_and_no_password_is_told() -> None:
    database = Database("postgresql://optimizer:hunter2@127.0.0.1:1/ledger")

    with pytest.raises(StoreAway) as away:
        database.migrate()

    assert "hunter2" not in f"{away.value} {database}"


@pytest.mark.parametrize("url", ["mysql://localhost/x", "sqlite:///:memory:", "no url"])
def test_a_url_of_something_else_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"recorder\.url.*sqlite:///PATH"):
        Database(url)
