"""What an invoice and the ledger must come to, figure by figure. The invoice is read here on its own."""

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from tests.chaos.account import Figure
from tests.chaos.brokers import Place
from tests.chaos.invoice_run import Seen
from tests.support.processes import ROOT

_CENT: Final = Decimal("0.01")
_NOISE: Final = Decimal("1e-9")
_OF_SUMS: Final = Decimal("1e-6")
_ZERO: Final = Decimal(0)


@dataclass(frozen=True)
class Row:
    """A call in the ledger; `paid` is what it counts with."""

    call: str
    state: str
    outcome: str | None
    cost: Decimal
    paid: Decimal
    unpriced: bool


@dataclass
class Evidence:
    """What the two sides say, before and after.

    Attributes:
        outcomes: How the calls ended at the provider.
        lines: The invoice's.
        before: The ledger as the recorder left it.
        after: As `optimizer report reconcile` left it.
        at_last: As a second one left it.
        found: What the first said.
        again: What the second said.
        status: The exit status of the first.
        reported_usd: What `optimizer report` says that all calls cost.
    """

    outcomes: Counter[str]
    lines: list[dict[str, str]]
    before: list[Row]
    after: list[Row]
    at_last: list[Row]
    found: dict[str, Any]
    again: dict[str, Any]
    status: int
    reported_usd: float

    @property
    def charged(self) -> dict[str, Decimal]:
        """USD by call."""
        return {line["call_id"]: Decimal(line["cost_usd"]) for line in self.lines}


def gather(place: Place) -> Evidence:
    """Reconciles twice, and keeps what is to be judged."""
    text = place.provider.invoice()
    path = place.house.folder / "invoice.csv"
    path.write_text(text, "utf-8")
    before = _rows(place.database)
    found, status = _reconcile(place, path)
    after = _rows(place.database)
    again, _ = _reconcile(place, path)
    return Evidence(
        outcomes=Counter({str(name): n for name, n in place.provider.summary().outcomes.items()}),
        lines=list(csv.DictReader(io.StringIO(text))),
        before=before,
        after=after,
        at_last=_rows(place.database),
        found=found,
        again=again,
        status=status,
        reported_usd=_reported_usd(place),
    )


def judge(told: Evidence, seen: Seen, calls: int, kills: int) -> list[Figure]:
    """The account: at least so many calls and kills, and the two sides agree."""
    charged = told.charged
    return [
        _at_least("calls that reached the provider", told.outcomes.total(), calls),
        _at_least("kills", seen.kills.total(), kills),
        _counted("requests by their end", seen.ends),
        _counted("calls by their end at the provider", told.outcomes),
        _one_line_each(told.lines),
        _known(told.before, charged),
        _equal(told.before, charged),
        _all("calls of unknown price", [row.call for row in told.before if row.unpriced]),
        _doubtful(told, charged),
        _all(
            "unexplained by reconcile", [f"status {told.status}: {told.found['unexplained']}"] * told.status
        ),
        _all("doubtful after it", [row.call for row in told.after if row.state == "doubtful"]),
        _sums(told, charged),
        _all("changed by doing it again", _differences(told)),
    ]


def _at_least(name: str, found: int, wanted: int) -> Figure:
    return Figure(name, f"{found:,}", f">= {wanted:,}", () if found >= wanted else (f"only {found}",))


def _counted(name: str, counts: Mapping[Any, int]) -> Figure:
    return Figure(name, ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())), "told")


def _differences(told: Evidence) -> list[str]:
    written = told.again["written"]
    changed = sorted({row.call for row in set(told.after) ^ set(told.at_last)})
    return [f"reconcile wrote {written} rows"] * bool(written) + [f"call {call}" for call in changed]


def _all(name: str, wrongs: list[str]) -> Figure:
    return Figure(name, f"{len(wrongs):,}", "none", tuple(wrongs))


def _one_line_each(lines: list[dict[str, str]]) -> Figure:
    counts = Counter(line["call_id"] for line in lines)
    wrongs = tuple(f"call {call!r} has {n} lines" for call, n in counts.items() if n > 1 or not call)
    return Figure("lines on the invoice", f"{len(lines):,}", "one for each call", wrongs)


def _known(rows: list[Row], charged: dict[str, Decimal]) -> Figure:
    unknown = sorted(charged.keys() - {row.call for row in rows})
    found = f"{len(charged) - len(unknown):,} of {len(charged):,}"
    return Figure("lines with a record", found, "all", tuple(f"call {call} has none" for call in unknown))


def _equal(rows: list[Row], charged: dict[str, Decimal]) -> Figure:
    """To the cent, as a bill is; and since calls cost far less, to a billionth of a dollar."""
    settled = [row for row in rows if row.state == "settled"]
    wrongs = [
        f"call {row.call} ({row.outcome}) costs {row.cost}, and the invoice says {charged.get(row.call)}"
        for row in settled
        if not _is_equal(row.cost, charged.get(row.call, _ZERO))
    ]
    open_ = [f"call {row.call} is {row.state}" for row in rows if row.state not in {"settled", "doubtful"}]
    found = f"{len(settled) - len(wrongs):,} of {len(settled):,}"
    return Figure("settled records equal to the invoice", found, "all", (*wrongs, *open_))


def _is_equal(ours: Decimal, theirs: Decimal) -> bool:
    return ours.quantize(_CENT) == theirs.quantize(_CENT) and abs(ours - theirs) <= _NOISE


def _doubtful(told: Evidence, charged: dict[str, Decimal]) -> Figure:
    """The doubtful ones are those that reconcile lists, each on the right side."""
    doubtful = {row.call for row in told.before if row.state == "doubtful"}
    right = {"billed": doubtful & charged.keys(), "not billed": doubtful - charged.keys()}
    wrongs = tuple(
        f"call {call} is not listed as {side}, or should not be"
        for side, calls in right.items()
        for call in sorted(calls ^ {one["call"] for one in told.found["calls"].get(side, ())})
    )
    billed_usd = sum((charged[call] for call in right["billed"]), _ZERO)
    sides = f"{len(right['billed']):,} billed ({billed_usd:.6f} USD), {len(right['not billed']):,} not"
    return Figure("doubtful records", f"{len(doubtful):,}: {sides}", "all listed by reconcile", wrongs)


def _sums(told: Evidence, charged: dict[str, Decimal]) -> Figure:
    invoice = sum(charged.values(), _ZERO)
    sums = {
        "the ledger": sum((row.paid for row in told.after), _ZERO),
        "reconcile's ledger": Decimal(told.found["ledger_after_usd"]),
        "reconcile's invoice": Decimal(told.found["invoice_usd"]),
        "the report": Decimal(told.reported_usd),
    }
    wrongs = tuple(f"{name}: {usd}" for name, usd in sums.items() if abs(usd - invoice) > _OF_SUMS)
    shown = f"{sums['the ledger']:.6f} USD (before: {told.found['ledger_before_usd']:.6f})"
    return Figure("sums after it", shown, f"= {invoice:.6f}", wrongs)


def _rows(database: Path) -> list[Row]:
    query = (
        "SELECT call, state, outcome, cost_usd, coalesce(billed_usd, cost_usd, 0) FROM calls ORDER BY call"
    )
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [
            Row(call, state, outcome, Decimal(cost or 0), Decimal(paid), outcome == "answer" and cost is None)
            for call, state, outcome, cost, paid in connection.execute(query)
        ]


def _reconcile(place: Place, invoice: Path) -> tuple[dict[str, Any], int]:
    ended = _optimizer(place, "report", "reconcile", str(invoice), "--json")
    assert ended.returncode in {0, 1}, ended.stderr
    assert ended.stdout, ended.stderr
    facts: dict[str, Any] = json.loads(ended.stdout)
    return facts, ended.returncode


def _reported_usd(place: Place) -> float:
    ended = _optimizer(place, "report", "day", "--format", "json")
    cost: float = json.loads(ended.stdout)["total"]["cost_usd"]
    return cost


def _optimizer(place: Place, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "console.main",
        *words,
        "--config",
        str(place.house.folder / "fleet.toml"),
    ]
    return subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)
