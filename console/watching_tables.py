"""What `optimizer status` knows, and how it looks on a terminal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from console.watching import one_line
from topology import names

_PIPED_WIDTH: Final = 160
"""Columns when nobody looks: nothing is cut off for `grep`."""

_MODES: Final = {"pause": "paused", "drain": "drained"}


@dataclass(frozen=True)
class LivePool:
    """A worker's pool for one provider.

    Attributes:
        running: Calls in flight.
        slots: This replica's share of the provider's concurrency.
        waiting: Jobs in its hands that are not started.
        closed: Lanes that wait, each with the limit it waits for.
        lanes: All of its lanes.
        opens_at: Lanes that wait, each with the instant at which it is looked at again, epoch seconds.
    """

    provider: str
    running: int
    slots: int
    waiting: int
    closed: Mapping[str, str] = field(default_factory=dict)
    lanes: tuple[str, ...] = ()
    opens_at: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LiveWorker:
    """A worker process that was heard.

    Attributes:
        redis: `up`, or why it does not reach Redis.
        paused: Providers that operators have paused, each with how: `pause` or `drain`.
        config: The short name of its configuration; None: it says none.
        config_error: Why it could not use the one that it was last told to read.
        sides: Queues of jobs, each with how many stand beside it, as far as it has heard.
    """

    id: str
    roles: tuple[str, ...]
    host: str
    pid: int
    redis: str
    pools: tuple[LivePool, ...] = ()
    paused: Mapping[str, str] = field(default_factory=dict)
    config: str | None = None
    config_error: str | None = None
    sides: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class QueueDepth:
    """A queue, as RabbitMQ counts it.

    Attributes:
        ready: Messages that wait to be handed out; None: there is no such queue.
        consumers: Who takes from it.
    """

    name: str
    ready: int | None
    consumers: int | None


@dataclass(frozen=True)
class Status:
    """How the fleet is.

    Attributes:
        unhealthy: What is wrong, each with its remedy; empty when all is well.
    """

    workers: tuple[LiveWorker, ...]
    queues: tuple[QueueDepth, ...]
    unhealthy: list[str]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.unhealthy

    @property
    def notes(self) -> list[str]:
        """What is as somebody wants it, or does no harm yet, and is worth knowing."""
        paused = {name: mode for worker in self.workers for name, mode in worker.paused.items()}
        return [
            *(
                f"{name} is {_MODES.get(mode, mode)}: nothing starts there until optimizer resume {name}"
                for name, mode in sorted(paused.items())
            ),
            *(
                f"{w.id} on {w.host} keeps its configuration {w.config}, since it cannot use the new one: "
                f"{w.config_error}"
                for w in self.workers
                if w.config_error
            ),
            *self._of_the_dead(),
        ]

    def _of_the_dead(self) -> list[str]:
        found = {queue.name: queue for queue in self.queues if queue.ready}
        notes = []
        if (dead := found.get(names.DEAD_QUEUE)) and not dead.consumers:
            notes.append(f"{dead.ready} in dead wait for an undertaker; run: optimizer worker undertaker")
        if kept := found.get(names.DEAD_KEPT_QUEUE):
            notes.append(f"{kept.ready} in dead.kept came to no good end; see: optimizer dead list")
        return notes


def print_status(status: Status, out: TextIO) -> None:
    """Writes tables of workers and queues, then what is wrong."""
    width = None if out.isatty() else _PIPED_WIDTH
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    if status.workers:
        console.print(_workers_table(status))
    if status.queues:
        console.print(_queues_table(status))
    if status.is_healthy:
        console.print(Text("healthy", "green"))
    for note in status.notes:
        console.print(Text.assemble(("note: ", "bold yellow"), one_line(note)), soft_wrap=True)
    for reason in status.unhealthy:
        console.print(Text.assemble(("unhealthy: ", "bold red"), one_line(reason)), soft_wrap=True)


def _workers_table(status: Status) -> Table:
    table = _table("Worker", "Roles", "Host", "PID", "Redis", "Running / slots", "Waiting", "Closed lanes")
    for worker in status.workers:
        pools = worker.pools
        table.add_row(
            _cell(worker.id),
            _cell(*worker.roles),
            _cell(worker.host),
            _cell(str(worker.pid)),
            _cell(worker.redis, style="" if worker.redis == "up" else "red"),
            _cell(*(f"{p.provider} {p.running} / {p.slots}" for p in pools)),
            _cell(*(str(p.waiting) for p in pools)),
            _cell(*(_closed(p, worker.paused.get(p.provider)) for p in pools), style="yellow"),
        )
    return table


def _closed(pool: LivePool, paused: str | None) -> str:
    if paused:
        return f"all: {_MODES.get(paused, paused)}"
    return ", ".join(f"{lane}: {limit}" for lane, limit in pool.closed.items())


def _queues_table(status: Status) -> Table:
    table = _table("Queue", "Ready", "Consumers")
    for queue in status.queues:
        if queue.ready is None:
            table.add_row(_cell(queue.name), _cell("missing", style="red"), _cell("-"))
        else:
            depth = _cell(str(queue.ready), style="bold" if queue.ready else "dim")
            table.add_row(_cell(queue.name), depth, _cell(str(queue.consumers)))
    return table


def _cell(*lines: str, style: str = "") -> Text:
    return Text("\n".join(one_line(line) for line in lines), style)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
