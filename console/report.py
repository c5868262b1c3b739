"""`optimizer report`: a day, a week or a month, for people and their spreadsheets."""

import csv
import dataclasses
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from console.commands import errors_for_people
from console.stats import database_url, read_statistics
from console.watching import one_line
from hub.store.grouping import By

if TYPE_CHECKING:
    from hub.store.statistics import Statistics, Sums

_DAYS: Final = {"day": 1, "week": 7, "month": 30}
_TOTAL: Final = "total"


class Period(StrEnum):
    """How far back a report goes: 1, 7 or 30 days."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    @property
    def span_s(self) -> float:
        """How far, in seconds."""
        return _DAYS[self.value] * 86400.0


class Format(StrEnum):
    """What a report is written in."""

    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"


@dataclasses.dataclass(frozen=True)
class Report:
    """A period's figures, once for each way to break them down; instants in epoch seconds."""

    period: Period
    since: float
    until: float
    parts: "Mapping[By, Statistics]"

    @property
    def whole(self) -> "Statistics":
        """What is the same for each of them."""
        return next(iter(self.parts.values()))


def report_command(
    period: Annotated[Period, typer.Argument(help="The last 24 hours, 7 days or 30 days.")] = Period.WEEK,
    form: Annotated[Format, typer.Option("--format", help="Also for programs.")] = Format.MARKDOWN,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="The file whose [recorder] counts; default: fleet.toml, if there is one."
        ),
    ] = None,
) -> None:
    """Write a report: requests, hit rate, what was saved, cost, waits, errors; by provider, model, agent.

        optimizer report                        the last week, in Markdown
        optimizer report day
        optimizer report month --format csv > month.csv

    It reads the recorder's database ([recorder] url), so it needs no broker. Requests count by their answer,
    calls by their end. A call costs what its invoice says where `reconcile` has entered that, else what it
    should by the prices here. What costs nobody knows how much is listed as unpriced, never as zero.
    """
    with errors_for_people():
        until = time.time()
        since = until - period.span_s
        url = database_url(config)
        report = Report(period, since, until, {by: read_statistics(url, since, by) for by in By})
    typer.echo(_WRITERS[form](report), nl=False)


def hit_rate(sums: "Sums") -> float | None:
    """The share of requests that were answered without a call of their own; None: there were no requests."""
    return (sums.hits + sums.joins) / sums.requests if sums.requests else None


def _lines(report: Report) -> "Iterator[tuple[str, str, Sums]]":
    """What each line is about, its name, its figures."""
    yield _TOTAL, "", report.whole.total
    for by, part in report.parts.items():
        for name, sums in part.groups.items():
            yield by.value, name, sums


def _facts(sums: "Sums") -> dict[str, Any]:
    return {"hit_rate": hit_rate(sums), "calls_saved": sums.hits + sums.joins, **dataclasses.asdict(sums)}


def _as_json(report: Report) -> str:
    parts: dict[str, Any] = {}
    for about, name, sums in _lines(report):
        if about == _TOTAL:
            parts[_TOTAL] = _facts(sums)
        else:
            parts.setdefault(f"by_{about}", {})[name] = _facts(sums)
    whole = report.whole
    facts = {
        "period": report.period.value,
        "since": report.since,
        "until": report.until,
        "recorded_until": whole.as_of,
        **parts,
        "request_errors": dict(whole.request_errors),
        "call_errors": dict(whole.call_errors),
    }
    return json.dumps(facts, indent=1) + "\n"


def _as_csv(report: Report) -> str:
    out = io.StringIO()
    rows = [{"about": about, "name": name, **_facts(sums)} for about, name, sums in _lines(report)]
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _as_markdown(report: Report) -> str:
    whole = report.whole
    lines = [
        f"# The last {report.period.value}: {instant(report.since)} to {instant(report.until)}",
        "",
        "| | |",
        "| --- | ---: |",
        *(f"| {what} | {figure} |" for what, figure in _summary(whole.total).items()),
        "",
        f"Recorded until {instant(whole.as_of)}." if whole.as_of else "No worker's sign of life is recorded.",
    ]
    for by, part in report.parts.items():
        if part.groups:
            lines += ["", f"## By {by.value}", "", *_table(by, part.groups)]
    for what, errors in (("requests", whole.request_errors), ("calls", whole.call_errors)):
        if errors:
            lines += ["", f"## Errors of {what}", "", "| error | times |", "| --- | ---: |"]
            lines += [f"| {cell(error)} | {times:,} |" for error, times in errors.items()]
    return "\n".join(lines) + "\n"


def _summary(total: "Sums") -> dict[str, str]:
    return {
        "requests": f"{total.requests:,}",
        "of them without a call of their own": _percent(hit_rate(total)),
        "from stored answers": f"{total.hits:,}",
        "by sharing a call": f"{total.joins:,}",
        "calls": f"{total.calls:,}",
        "cost": _usd(total.cost_usd),
        "saved": _usd(total.saved_usd),
        "calls of unknown price, not in the cost": f"{total.unpriced:,}",
        "calls that may have been billed without an answer": f"{total.doubtful:,}",
        "calls paid for twice": f"{total.duplicates:,}",
        "requests that ended in an error": f"{total.errors:,}",
        "answered in, median": _span(total.total_p50_s),
        "answered in, p95": _span(total.total_p95_s),
        "of that the provider, median": _span(total.latency_p50_s),
        "of that the provider, p95": _span(total.latency_p95_s),
    }


def _table(by: By, groups: "Mapping[str, Sums]") -> Iterator[str]:
    """The most expensive first."""
    rows = sorted(groups.items(), key=lambda pair: (-pair[1].cost_usd, pair[0]))
    for at, (name, sums) in enumerate(rows):
        cells = _cells(sums)
        if at == 0:
            yield f"| {by.value} | {' | '.join(cells)} |"
            yield f"| --- | {' | '.join('---:' for _ in cells)} |"
        yield f"| {cell(name)} | {' | '.join(cells.values())} |"


def _cells(sums: "Sums") -> dict[str, str]:
    return {
        "requests": f"{sums.requests:,}",
        "hit rate": _percent(hit_rate(sums)),
        "errors": f"{sums.errors:,}",
        "calls": f"{sums.calls:,}",
        "doubtful": f"{sums.doubtful:,}",
        "tokens in": f"{sums.prompt_tokens:,}",
        "out": f"{sums.completion_tokens:,}",
        "cost": _usd(sums.cost_usd),
        "saved": _usd(sums.saved_usd),
        "p50": _span(sums.total_p50_s),
        "p95": _span(sums.total_p95_s),
    }


def cell(text: str) -> str:
    """A text as it stands in a table of Markdown."""
    return one_line(text).replace("|", "\\|")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _usd(amount: float | None) -> str:
    return "-" if amount is None else f"${amount:,.4f}"


def _span(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"


def instant(epoch_s: float) -> str:
    """An instant, for people."""
    return f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%d %H:%M} UTC"


_WRITERS: Final[Mapping[Format, Callable[[Report], str]]] = {
    Format.MARKDOWN: _as_markdown,
    Format.JSON: _as_json,
    Format.CSV: _as_csv,
}
