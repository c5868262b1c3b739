"""Telling what is untold: to each destination in order, whatever the others do."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from topology.messages import Event
from workers.alerts.memory import Table
from workers.ending import end_all

log = logging.getLogger("optimizer.alerts")

Tell = Callable[[Event], Awaitable[None]]
"""Tells one alert, and returns when it is told, or will never be."""

_MOST_WAITING: Final = 200
"""For each destination; the oldest are dropped."""


class Outbox:
    """Owns a task for each destination, and takes out of the table what it has told.

    Args:
        untold: Its rows are called `<event's id>|<destination>`; ids begin with the time.
        destinations: By their names.
        on_told: Called when a row was taken out.
    """

    def __init__(
        self, untold: Table[Event], destinations: Mapping[str, Tell], on_told: Callable[[], None]
    ) -> None:
        self._untold = untold
        self._on_told = on_told
        self._stirred = {name: asyncio.Event() for name in destinations}
        self._written: set[str] = set()
        self._closing = False
        for row in [row for row in untold.rows if _destination(row) not in destinations]:
            untold.put(row, None)  # who is not to be told any more
        self._tasks = [
            asyncio.create_task(self._tell_all(name, tell), name=f"tell {name}")
            for name, tell in destinations.items()
        ]
        self.tell()

    def add(self, event: Event) -> None:
        """To be told to everybody, once it is written down and `tell` is called."""
        for name in self._stirred:
            self._untold.put(f"{event.id}|{name}", event)
            for row in sorted(self._rows_for(name))[:-_MOST_WAITING]:
                log.warning("too many alerts wait for this destination; the oldest is dropped")
                self._untold.put(row, None)

    def tell(self) -> None:
        """What was added is written down."""
        self._written = set(self._untold.rows)
        for stirred in self._stirred.values():
            stirred.set()

    async def close(self, patience_s: float = 0.0) -> None:
        """Tells nothing more; what is being told has so long to end. What is untold stays in the table."""
        self._closing = True
        self.tell()
        await asyncio.wait(self._tasks, timeout=patience_s)
        await end_all(self._tasks)

    def _rows_for(self, name: str) -> set[str]:
        return {row for row in self._untold.rows if _destination(row) == name}

    async def _tell_all(self, name: str, tell: Tell) -> None:
        while not self._closing:
            await self._stirred[name].wait()
            self._stirred[name].clear()
            for row in sorted(self._rows_for(name) & self._written):
                event = self._untold.rows.get(row)
                if event is None or self._closing:
                    continue
                try:
                    await tell(event)
                except Exception:  # a fault of ours, and no reason to tell nothing more
                    log.exception("an alert could not be told", extra={"type": event.type})
                self._untold.put(row, None)
                self._on_told()


def _destination(row: str) -> str:
    return row.rpartition("|")[2]
