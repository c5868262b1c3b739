"""`optimizer stats`: what was asked, what was bought, what sharing saved, from the recorder's database."""

import dataclasses
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO

import typer
from rich.console import Console
from rich.table import Table

from console.commands import FLEET_FILE, errors_for_people
from console.watching import one_line
from hub import extra
from hub.store.grouping import By
from producer_sdk.settings import find_setting
from topology.loading import ConfigurationError, load_fleet, recorder_url

if TYPE_CHECKING:
    from hub.store.database import Database
    from hub.store.statistics import AgentProfile, Statistics, Sums

RECORDER_URL: Final = "OPTIMIZER_RECORDER__URL"
_PIPED_WIDTH: Final = 200
_UNITS_S: Final = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_MOST_AGENTS: Final = 20


def stats_command(
    since: Annotated[str, typer.Option(help="How far back: 90m, 24h, 7d, 4w.")] = "24h",
    by: Annotated[By, typer.Option(help="A line for each of these.")] = By.PROVIDER,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="The file whose [recorder] counts; default: fleet.toml, if there is one."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, for programs.")] = False,
) -> None:
    """Show requests, calls, tokens, cost, what sharing saved, errors, and the agents.

        optimizer stats                       the last day, by provider
        optimizer stats --since 7d --by model
        optimizer stats --by agent --json

    It reads the recorder's database ([recorder] url), so it needs no broker. What is not recorded yet is
    missing: the last line says how old the figures are.

    A hit took a stored answer, a join a call that another request led; both are free. A doubtful call may
    have been billed, and nobody knows; a duplicate one was paid for in vain. `saved` is what hits and joins
    would have cost at the price of the call that they shared.
    """
    with errors_for_people():
        back_s = _seconds(since)
        now = time.time()
        found = read_statistics(database_url(config), now - back_s, by)
    if as_json:
        facts = {"since": now - back_s, "until": now, "by": by.value, **dataclasses.asdict(found)}
        typer.echo(json.dumps(facts))
    else:
        _print(found, by, since, now, sys.stdout)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip())
    if match is None:
        raise ConfigurationError(
            f"--since {one_line(text)!r}: write minutes, hours, days or weeks: 90m, 24h, 7d, 4w"
        )
    return int(match[1]) * _UNITS_S[match[2]]


def database_url(config: Path | None) -> str:
    """Where the recorder writes, as the environment, `.optimizer/env` or the configuration says."""
    if (url := find_setting(RECORDER_URL)) and config is None:
        return url
    return recorder_url(load_fleet(config or (FLEET_FILE if FLEET_FILE.is_file() else None), secrets=False))


def read_statistics(url: str, since: float, by: By) -> "Statistics":
    """What is recorded since an instant.

    Raises:
        ConfigurationError: Nothing is recorded, or it cannot be read, or libraries are missing.
    """
    with opened_database(url) as database:
        # An extra's libraries: the other commands do without them.
        from hub.store.statistics import gather_statistics  # noqa: PLC0415

        return gather_statistics(database, since, by)


@contextmanager
def opened_database(url: str) -> "Iterator[Database]":
    """The recorder's database; closed at the end.

    Raises:
        ConfigurationError: Nothing is recorded, or it cannot be used, or libraries are missing.
    """
    if not extra.is_installed():
        raise ConfigurationError(f"this needs more libraries: {extra.REMEDY}")
    from hub.store.database import Database, NothingYet, StoreError  # noqa: PLC0415 - likewise

    database = Database(url)
    try:
        yield database
    except NothingYet as nothing:
        raise ConfigurationError(
            f"{nothing} yet; `optimizer up` records, or run: optimizer worker recorder"
        ) from None
    except StoreError as error:
        raise ConfigurationError(f"{database} cannot be used: {error}") from None
    finally:
        database.close()


def _print(found: "Statistics", by: By, since: str, now: float, out: TextIO) -> None:
    console = Console(
        file=out, width=None if out.isatty() else _PIPED_WIDTH, highlight=False, markup=False, emoji=False
    )
    table = _table(by.value)
    for column in (
        "requests", "hits", "joins", "errors", "calls", "settled", "doubtful", "running",
        "duplicate", "tokens in", "out", "cost USD", "saved USD", "p50 s", "p95 s",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for name, sums in found.groups.items():
        table.add_row(one_line(name), *_cells(sums))
    table.add_row("total", *_cells(found.total), style="bold")
    console.print(table)
    for what, errors in (("requests", found.request_errors), ("calls", found.call_errors)):
        if errors:
            console.print(f"\nerrors of {what}: {_counted(errors)}")
    if found.agents:
        console.print()
        console.print(_agents_table(found.agents[:_MOST_AGENTS], now))
    if len(found.agents) > _MOST_AGENTS:
        console.print(f"and {len(found.agents) - _MOST_AGENTS} more agents: --json has them all")
    if found.total.unpriced:
        console.print(f"\n{found.total.unpriced} calls are of unknown price, and not in the cost")
    console.print(f"\nthe last {since}; {_freshness(found.as_of, now)}")


def _cells(sums: "Sums") -> Iterable[str]:
    counts = (
        sums.requests, sums.hits, sums.joins, sums.errors, sums.calls, sums.settled, sums.doubtful,
        sums.running, sums.duplicates, sums.prompt_tokens, sums.completion_tokens,
    )  # fmt: skip
    yield from (f"{count:,}" for count in counts)
    yield f"{sums.cost_usd:.6f}"
    yield "-" if sums.saved_usd is None else f"{sums.saved_usd:.6f}"
    for latency_s in (sums.latency_p50_s, sums.latency_p95_s):
        yield "-" if latency_s is None else f"{latency_s:.2f}"


def _agents_table(agents: "Iterable[AgentProfile]", now: float) -> Table:
    table = _table("agent", "type", "last active", "first seen", "requests", "cost USD", "tasks", "models")
    for agent in agents:
        table.add_row(
            one_line(agent.agent),
            one_line(agent.agent_type or "-"),
            f"{_span(now - agent.last_seen)} ago",
            datetime.fromtimestamp(agent.first_seen, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            f"{agent.sums.requests:,}",
            f"{agent.sums.cost_usd:.6f}",
            one_line(", ".join(agent.tasks) or "-"),
            one_line(", ".join(agent.models) or "-"),
        )
    return table


def _counted(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{one_line(name)} {count:,}" for name, count in counts.items())


def _freshness(as_of: float | None, now: float) -> str:
    if as_of is None:
        return "no sign of life of any worker is recorded"
    return f"recorded until {_span(now - as_of)} ago"


def _span(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS_S[unit]:
            return f"{seconds / _UNITS_S[unit]:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
