"""Entering events into the tables, and keeping the tables small."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, bindparam, delete, insert, select, tuple_, update

from hub.store import tables
from hub.store.database import Database
from hub.store.entries import CallEntry, Entry, HealthEntry, OtherEntry, RequestEntry
from hub.store.merging import (
    DOUBTFUL,
    RUNNING,
    Row,
    merge_agent,
    merge_call,
    merge_request,
    merge_worker,
)

_STEP: Final = 1000
"""Rows that are removed from a table in one transaction: whoever else writes is not kept waiting."""


class Ledger:
    """Owns its database. Blocking; for threads."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)

    def open(self) -> None:
        """Makes the tables where there are none, and brings old ones up to date; errors as in `Database`."""
        self._database.migrate()

    def record(self, entries: Sequence[Entry]) -> None:
        """Enters all of them in one transaction; what was entered before changes nothing.

        Raises:
            StoreAway: Not now.
            Unstorable: The database refuses one of them.
        """
        with self._database.writing() as connection:
            _merge(connection, tables.calls, _of(entries, CallEntry), merge_call)
            _merge(connection, tables.requests, _of(entries, RequestEntry), merge_request)
            _merge(connection, tables.workers, _of(entries, HealthEntry), merge_worker)
            _merge(connection, tables.agents, [e for e in entries if e.agent is not None], merge_agent)
            _merge(connection, tables.events, _of(entries, OtherEntry), _keep_first)

    def tend(self, now: float, keep_s: float) -> bool:
        """Calls doubtful whatever has had no end in its time, and removes a step of what is too old.

        Args:
            now: Epoch seconds on Redis's clock.
            keep_s: For how many seconds rows are kept.

        Returns:
            Whether more is too old.

        Raises:
            StoreAway: Not now.
        """
        calls = tables.calls
        with self._database.writing() as connection:
            overdue = (calls.c.state == RUNNING) & (calls.c.until < now)
            connection.execute(update(calls).where(overdue).values(state=DOUBTFUL))
            removed = [_remove(connection, table, now - keep_s) for table in tables.metadata.sorted_tables]
        return max(removed) == _STEP

    def close(self) -> None:
        """Closes its connections."""
        self._database.close()


def _of(entries: Iterable[Entry], kind: type[Entry]) -> list[Entry]:
    return [entry for entry in entries if isinstance(entry, kind)]


def _keep_first(row: Row | None, entry: OtherEntry) -> Row:
    return row or entry.model_dump()


def _merge(
    connection: Connection,
    table: Table,
    entries: Sequence[Entry],
    merge: Callable[[Row | None, Any], Row],
) -> None:
    """Reads the rows that the entries are about, merges, and writes what is new or has changed."""
    if not entries:
        return
    names = [column.name for column in table.primary_key]

    def key_of(entry: Entry) -> tuple[Any, ...]:
        return tuple(getattr(entry, name) for name in names)

    wanted = sorted({key_of(entry) for entry in entries})
    found = connection.execute(select(table).where(_key(table).in_(wanted))).mappings()
    before = {tuple(row[name] for name in names): dict(row) for row in found}
    after: dict[tuple[Any, ...], Row] = dict(before)
    for entry in entries:
        after[key_of(entry)] = merge(after.get(key_of(entry)), entry)
    new = [_whole(table, row) for key, row in after.items() if key not in before]
    changed = [row for key, row in after.items() if key in before and row != before[key]]
    if new:
        connection.execute(insert(table), new)
    if changed:
        columns = [column.name for column in table.c if column.name not in names]
        connection.execute(
            update(table)
            .where(*(table.c[name] == bindparam(f"key_{name}") for name in names))
            .values({name: bindparam(name) for name in columns}),
            [{**row, **{f"key_{name}": row[name] for name in names}} for row in changed],
        )


def _remove(connection: Connection, table: Table, before: float) -> int:
    old = select(*table.primary_key).where(table.c.at < before).order_by(table.c.at).limit(_STEP)
    return connection.execute(delete(table).where(_key(table).in_(old))).rowcount


def _key(table: Table) -> ColumnElement[Any]:
    return tuple_(*table.primary_key)


def _whole(table: Table, row: Row) -> Row:
    return {column.name: row.get(column.name) for column in table.c}
