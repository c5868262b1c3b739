"""The table of savings at the end, and its figures as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.box import ROUNDED, Box
from rich.console import Console
from rich.table import Table

from sandbox.demo.expectations import Expectation
from sandbox.demo.savings import Figures
from sandbox.demo.workload import Workload


def show(
    console: Console, workload: Workload, figures: Figures, expectations: Sequence[Expectation], provider: str
) -> None:
    """Prints what was played, what it came to, and what was expected of it."""
    console.print()
    if len(figures.kinds) > 1:
        console.print(_by_kind(figures, console))
        console.print()
    table = Table(title=workload.title, title_justify="left", show_header=False, box=_frame(console))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for row in _rows(figures, provider):
        table.add_row(*row)
    console.print(table)
    for note in workload.notes:
        console.print(f"  {note}", style="dim", highlight=False)
    console.print()
    for expectation in expectations:
        mark, style = ("yes", "green") if expectation.holds else ("NO ", "bold red")
        line = f"  {mark}  {expectation.what} ({expectation.found})"
        console.print(line, style=style, highlight=False, markup=False)


def write_json(
    path: Path, workload: Workload, figures: Figures, expectations: Sequence[Expectation], provider: str
) -> None:
    """Writes the figures, for programs."""
    derived = ("expected_calls", "free_repeats", "free_repeats_percent", "saved_calls", "saved_usd")
    document = {
        "workload": workload.title,
        "notes": workload.notes,
        "provider": provider,
        "figures": asdict(figures) | {name: getattr(figures, name) for name in derived},
        "expectations": [asdict(expectation) for expectation in expectations],
        "as_expected": all(expectation.holds for expectation in expectations),
    }
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def _rows(figures: Figures, provider: str) -> Iterator[tuple[str, str, str]]:
    f = figures
    yield "requests", f"{f.requests}", f"of {f.agents} agents"
    yield "  distinct", f"{f.distinct}", "each has to be paid once"
    yield "  by their own wish", f"{f.by_wish + f.off}", f"{f.by_wish} refresh or join, {f.off} off"
    yield "  repeats", f"{f.repeats}", "sent before within 600 s, by anyone"
    yield "provider calls", f"{f.calls}", f"to {provider}, not {f.requests}"
    yield (
        "repeats that cost no call",
        f"{f.free_repeats}",
        f"{f.free_repeats_percent:.2f} % of the repeats",
    )
    yield "hits", f"{f.hits}", "answered from the cache"
    yield "joins", f"{f.joins}", "shared a call of somebody else's"
    yield "waits", f"{f.queued_p50_s:.3f} s", f"p50, in the queue; p95 {f.queued_p95_s:.3f} s"
    yield "answers", f"{f.total_p50_s:.3f} s", f"p50, as agents see; p95 {f.total_p95_s:.3f} s"
    yield "errors", f"{len(f.errors)}", ""
    if f.failed_calls:
        yield "failed calls", f"{f.failed_calls}", "refused or failed at the provider, not billed"
    if f.strange_calls:
        yield "other calls", f"{f.strange_calls}", "for requests left over from before"
    yield "cost", _usd(f.cost_usd), f"{_usd(f.unshared_usd)} without sharing"
    percent = 100.0 * f.saved_calls / f.requests if f.requests else 0.0
    yield "saved", f"{f.saved_calls} calls", f"{percent:.1f} %, {_saved(f)}"
    yield "time", f"{f.elapsed_s:.1f} s", "first request to last answer"


def _saved(figures: Figures) -> str:
    if figures.saved_usd is None or not figures.unshared_usd:
        return "USD not known"
    return f"{_usd(figures.saved_usd)} or {100.0 * figures.saved_usd / figures.unshared_usd:.1f} %"


def _usd(amount: float | None) -> str:
    return "not known" if amount is None else f"{amount:.4f} USD"


def _frame(console: Console) -> Box | None:
    """Lines around a table where there is a terminal, plain columns where there is none."""
    return ROUNDED if console.is_terminal else None


def _by_kind(figures: Figures, console: Console) -> Table:
    table = Table(title="who asked, and who paid", title_justify="left", box=_frame(console))
    table.add_column("kind", no_wrap=True)
    for name in ("agents", "requests", "paid", "hits", "joins"):
        table.add_column(name, justify="right")
    for kind in figures.kinds:
        counts = (kind.agents, kind.requests, kind.paid, kind.hits, kind.joins)
        table.add_row(kind.kind, *(str(count) for count in counts))
    return table
