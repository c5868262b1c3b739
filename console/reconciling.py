"""`optimizer report reconcile`: a provider's invoice against the ledger, call by call."""

import dataclasses
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from console.commands import errors_for_people
from console.stats import database_url, opened_database
from console.watching import one_line
from hub.invoice import Invoice, read_invoice
from hub.store.findings import Compared, Finding, Reconciliation, Scope
from topology.loading import ConfigurationError

_MOST_LISTED: Final = 10
_PIPED_WIDTH: Final = 200
_MEANINGS: Final = {
    Finding.EQUAL: "the same on both sides",
    Finding.PRICED: "answered at a price we did not know",
    Finding.BILLED: "were doubtful, and are on it",
    Finding.NOT_BILLED: "were doubtful, and are not on it",
    Finding.DIFFERENT: "the amounts differ",
    Finding.MISSING: "answered, and not on it",
    Finding.RUNNING: "on it, and under way here",
    Finding.UNKNOWN: "on it, and not in the ledger",
}
_NAMELESS: Final = "nameless"
_REMEDIES: Final[Mapping[str, str]] = {
    Finding.DIFFERENT: "compare the model's prices with the provider's, and state yours in fleet.toml",
    Finding.MISSING: "where the invoice ends earlier, or begins later, say so with --until and --since",
    Finding.RUNNING: "reconcile again when they are over",
    Finding.UNKNOWN: "somebody else uses these keys, or they are older than the recorder's keep_days",
    _NAMELESS: "lines without a call's id, such as fees: nothing in the ledger answers for them",
}


def reconcile_command(
    invoice: Annotated[Path, typer.Argument(help="The invoice: CSV, or JSON lines.", dir_okay=False)],
    since: Annotated[
        str | None, typer.Option(help="From when it has all calls, as 2026-11-01 or 2026-11-01T08:00, UTC.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Until when; that instant not included.")] = None,
    provider: Annotated[
        list[str] | None, typer.Option(help="It has all calls of this provider; may be repeated.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="The file whose [recorder] counts; default: fleet.toml, if there is one."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare, and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, for programs.")] = False,
) -> None:
    """Compare a provider's invoice with the ledger, call by call, and enter it there.

        optimizer report reconcile november.csv --dry-run
        optimizer report reconcile november.csv
        optimizer report reconcile november.csv --since 2026-11-01 --until 2026-12-01

    The invoice has a line for each call: its id in a column `call` (also call_id, idempotency_key, id: the
    provider was sent it in the header idempotency-key), what was charged in `cost_usd` (also amount_usd,
    price_cents, or `amount` beside a column `currency`). Several lines of one call are added up.

    Doubtful calls are settled: with the amount if they are on it, as zero if they are not. That holds for the
    accounts whose calls are on it, by default from midnight UTC before the first of these to midnight after
    the last. What is on the invoice counts as paid from then on, in stats and reports.

    Exits with 1 where something is unexplained: amounts that differ, answered calls that are not on it, lines
    that the ledger does not know. Doing it again changes nothing.
    """
    with errors_for_people():
        read = read_invoice(invoice)
        spans = _instant("--since", since), _instant("--until", until)
        found = _reconcile(database_url(config), read, spans, provider or (), dry_run=dry_run)
    unexplained = _unexplained(read, found)
    if as_json:
        typer.echo(json.dumps(_facts(read, found, unexplained, dry_run=dry_run)))
    else:
        _print(read, found, unexplained, dry_run=dry_run)
    if unexplained:
        raise typer.Exit(1)


def _instant(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} {one_line(text)!r}: write a day or an instant: 2026-11-01, 2026-11-01T08:00"
        ) from None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


def _reconcile(
    url: str,
    invoice: Invoice,
    span: tuple[float | None, float | None],
    providers: Collection[str],
    *,
    dry_run: bool,
) -> Reconciliation:
    with opened_database(url) as database:
        # An extra's libraries: the other commands do without them.
        from hub.store.reconciliation import reconcile  # noqa: PLC0415

        return reconcile(database, invoice, Scope(*span, providers), dry_run=dry_run)


def _unexplained(invoice: Invoice, found: Reconciliation) -> dict[str, int]:
    """How many of each kind; empty where all is explained."""
    counts = {kind.value: found.part(kind).calls for kind in found.unexplained}
    counts[_NAMELESS] = invoice.nameless
    return {name: count for name, count in counts.items() if count}


def _facts(
    invoice: Invoice, found: Reconciliation, unexplained: dict[str, int], *, dry_run: bool
) -> dict[str, Any]:
    return {
        "invoice": invoice.name,
        "lines": invoice.lines,
        "invoice_usd": float(invoice.total_usd),
        "ledger_before_usd": found.ledger_before_usd,
        "ledger_after_usd": found.ledger_after_usd,
        "dry_run": dry_run,
        "written": found.written,
        "accounts": list(found.accounts),
        "since": found.since,
        "until": found.until,
        "unexplained": unexplained,
        "findings": {name: dataclasses.asdict(part) for name, part in found.parts.items()},
        "calls": {name: [dataclasses.asdict(one) for one in calls] for name, calls in found.listed.items()},
        "nameless_usd": float(invoice.nameless_usd),
    }


def _print(invoice: Invoice, found: Reconciliation, unexplained: dict[str, int], *, dry_run: bool) -> None:
    out = sys.stdout
    width = None if out.isatty() else _PIPED_WIDTH
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("calls", overflow="fold")
    for column in ("", "ledger USD", "invoice USD"):
        table.add_column(column, justify="right")
    for finding, meaning in _MEANINGS.items():
        if (part := found.part(finding)).calls:
            row = (f"{part.calls:,}", f"{part.ledger_usd:.6f}", f"{part.invoice_usd:.6f}")
            table.add_row(meaning, *row)
    console.print(table)
    for finding, calls in found.listed.items():
        console.print(f"\n{_MEANINGS[finding]}:")
        for line in _lines(calls):
            console.print(f"  {line}")
    console.print()
    for line in _summary(invoice, found, dry_run=dry_run):
        console.print(line)
    for name, count in unexplained.items():
        console.print(f"unexplained: {count:,} {name}: {_REMEDIES[name]}")


def _lines(calls: Sequence[Compared]) -> list[str]:
    shown = [
        f"{one_line(one.call)}  ledger {_usd(one.ledger_usd)}, invoice {_usd(one.invoice_usd)}"
        for one in calls[:_MOST_LISTED]
    ]
    more = len(calls) - _MOST_LISTED
    return shown + ([f"and {more:,} more: --json has them all"] if more > 0 else [])


def _summary(invoice: Invoice, found: Reconciliation, *, dry_run: bool) -> list[str]:
    covers = "no call of the ledger"
    if found.accounts:
        covers = f"{', '.join(found.accounts)}, {_shown(found.since)} to {_shown(found.until)}"
    written = "nothing was written (--dry-run)" if dry_run else f"{found.written:,} rows were changed"
    before, after = f"{found.ledger_before_usd:.6f} USD before", f"{found.ledger_after_usd:.6f} after"
    return [
        f"{one_line(invoice.name)}: {invoice.lines:,} lines, {invoice.total_usd:.6f} USD; it covers {covers}",
        f"the ledger's calls of it: {before}, {after}; {written}",
    ]


def _usd(amount: float | None) -> str:
    return "nothing" if amount is None else f"{amount:.6f}"


def _shown(instant: float | None) -> str:
    return "-" if instant is None else f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%d %H:%M} UTC"
