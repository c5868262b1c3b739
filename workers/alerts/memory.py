"""What whoever judges remembers: as it stands in Redis, with what is not written there yet."""

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from broker.alert_state import Counts, Rows, Stored
from topology.messages import Event
from workers.alerts.counts import KEPT_MINUTES, CallCounts, Cell, minute_of
from workers.alerts.firing import Firing
from workers.alerts.heard import Heard
from workers.alerts.rules import Day

log = logging.getLogger("optimizer.alerts")

Row = TypeVar("Row", bound=BaseModel)


class Table(Generic[Row]):
    """Rows by name, which knows those that have changed."""

    def __init__(self, kind: type[Row], stored: Mapping[str, bytes]) -> None:
        self.rows: dict[str, Row] = {}
        self._changed: set[str] = set()
        for name, row in stored.items():
            try:
                self.rows[name] = kind.model_validate_json(row)
            except ValidationError:  # another release's
                log.warning("a row about alerts is unreadable, and is dropped", extra={"row": name})
                self._changed.add(name)

    def put(self, name: str, row: Row | None) -> None:
        """Sets a row; None takes it away."""
        if self.rows.get(name) == row:
            return
        self._changed.add(name)
        if row is None:
            del self.rows[name]
        else:
            self.rows[name] = row

    def replace(self, rows: Mapping[str, Row]) -> None:
        """These are all there are."""
        for name in self.rows.keys() | rows.keys():
            self.put(name, rows.get(name))

    def take_changes(self) -> Rows:
        """What has changed since this was called last."""
        changed, self._changed = self._changed, set()
        return {
            name: self.rows[name].model_dump_json().encode() if name in self.rows else None
            for name in changed
        }

    def put_back(self, rows: Rows) -> None:
        """These changes were not written."""
        self._changed |= rows.keys()


class Memory:
    """All of it.

    Attributes:
        counts: How calls went.
        heard: What events have said to be wrong.
        firing: What somebody was told of.
        days: Each provider's day.
        untold: What is still to be told, and to whom: `<event's id>|<destination>`.
    """

    TABLES = ("heard", "firing", "days", "untold")

    def __init__(self, stored: Stored) -> None:
        self.counts = CallCounts()
        self.counts.restore(_cells(stored.counts))
        self.heard = Table(Heard, stored.tables["heard"])
        self.firing = Table(Firing, stored.tables["firing"])
        self.days = Table(Day, stored.tables["days"])
        self.untold = Table(Event, stored.tables["untold"])

    @staticmethod
    def minutes(now: float) -> range:
        """The minutes whose counts matter."""
        return range(minute_of(now) - KEPT_MINUTES, minute_of(now) + 2)

    def take_changes(self) -> tuple[dict[str, Rows], Counts]:
        """What is to be written."""
        changes = {name: table.take_changes() for name, table in self._tables().items()}
        counts: dict[int, dict[str, int]] = {}
        for (minute, *what), count in self.counts.take_new().items():
            counts.setdefault(minute, {})[json.dumps(what)] = count
        return {name: rows for name, rows in changes.items() if rows}, counts

    def put_back(self, changes: Mapping[str, Rows], counts: Counts) -> None:
        """These were not written, as far as is known."""
        for name, table in self._tables().items():
            table.put_back(changes.get(name, {}))
        self.counts.put_back(_cells(counts))

    def _tables(self) -> "dict[str, Table[Heard] | Table[Firing] | Table[Day] | Table[Event]]":
        return {"heard": self.heard, "firing": self.firing, "days": self.days, "untold": self.untold}


def _cells(counts: Counts) -> Iterator[tuple[Cell, int]]:
    for minute, cells in counts.items():
        for what, count in cells.items():
            provider, model, result = json.loads(what)
            yield (minute, provider, model, result), count
