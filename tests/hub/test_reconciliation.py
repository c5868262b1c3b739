"""An invoice against the ledger: what is settled, what is explained, what is not; and once more, nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from console.main import app
from console.stats import RECORDER_URL
from hub.store import tables
from hub.store.database import Database
from hub.store.ledger import Ledger
from tests.support.entries import NOW, completed, doubtful, failed, rows, started

LATER = NOW + 3 * 86400.0


@pytest.fixture(autouse=True)
def recorded(ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls with every kind of end; the last are of another day, another account, another provider."""
    monkeypatch.setenv(RECORDER_URL, url)
    ledger.record(
        [
            started("equal-1"), completed("equal-1", cost_usd=0.25),
            started("refused-1"), failed("refused-1", kind="throttled", status=429, error="rate_limited"),
            started("free-1"), completed("free-1", cost_usd=None),
            started("cut-1"), failed("cut-1", kind="ambiguous"), doubtful("cut-1"),
            started("killed-1"), doubtful("killed-1"),
            started("running-1"),
            started("later-1", at=LATER), doubtful("later-1", at=LATER + 20),
            started("other-1", account="other"), completed("other-1", account="other"),
            started("else-1", provider="openai"), completed("else-1", provider="openai"),
        ]
    )  # fmt: skip


RIGHT = "call,cost_usd\nequal-1,0.25\nfree-1,0.125\ncut-1,0.5\n"


class Invoicing:
    """Reconciles what is written down as an invoice."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "november.csv"

    def __call__(self, text: str, *options: str, status: int) -> dict[str, Any]:
        told = self.told(text, "--json", *options)
        assert told.exit_code == status, told.output
        facts: dict[str, Any] = json.loads(told.stdout)
        return facts

    def told(self, text: str, *options: str) -> Any:
        self.path.write_text(text, "utf-8")
        return CliRunner().invoke(app, ["report", "reconcile", str(self.path), *options])


@pytest.fixture
def reconcile(tmp_path: Path) -> Invoicing:
    return Invoicing(tmp_path)


def paid(database: Database) -> dict[str, tuple[str, float | None]]:
    return {row["call"]: (row["state"], row["billed_usd"]) for row in rows(database, tables.calls)}


def found(facts: dict[str, Any]) -> dict[str, int]:
    return {name: part["calls"] for name, part in facts["findings"].items() if part["calls"]}


def test_doubtful_calls_are_settled_by_it_and_the_sums_are_equal(
    reconcile: Invoicing, database: Database
) -> None:
    facts = reconcile(RIGHT, status=0)

    assert found(facts) == {"equal": 2, "priced": 1, "billed": 1, "not billed": 1}
    assert [one["call"] for one in facts["calls"]["billed"]] == ["cut-1"]
    assert [one["call"] for one in facts["calls"]["not billed"]] == ["killed-1"]
    assert facts["invoice_usd"] == facts["ledger_after_usd"] == 0.875
    assert facts["ledger_before_usd"] == 0.25
    assert paid(database) == {
        "cut-1": ("settled", 0.5),
        "else-1": ("settled", None),
        "equal-1": ("settled", 0.25),
        "free-1": ("settled", 0.125),
        "killed-1": ("settled", 0.0),
        "later-1": ("doubtful", None),
        "other-1": ("settled", None),
        "refused-1": ("settled", None),
        "running-1": ("running", None),
    }


def test_doing_it_again_changes_nothing(reconcile: Invoicing, database: Database) -> None:
    first = reconcile(RIGHT, status=0)
    before = rows(database, tables.calls)

    again = reconcile(RIGHT, status=0)

    assert first["written"] == 4
    assert again["written"] == 0
    assert rows(database, tables.calls) == before
    assert again["findings"] == first["findings"]
    assert again["ledger_before_usd"] == again["ledger_after_usd"] == first["ledger_after_usd"]


def test_a_dry_run_says_the_same_and_writes_nothing(reconcile: Invoicing, database: Database) -> None:
    before = rows(database, tables.calls)

    dry = reconcile(RIGHT, "--dry-run", status=0)

    assert rows(database, tables.calls) == before
    wet = reconcile(RIGHT, status=0)
    assert {**dry, "dry_run": False, "written": 4} == wet


def test_what_differs_is_paid_as_the_invoice_says_and_remains_to_be_explained(
    reconcile: Invoicing, database: Database
) -> None:
    for _ in range(2):
        facts = reconcile("call,cost_usd\nequal-1,0.26\nfree-1,1\nrefused-1,0.01\n", status=1)

        assert facts["unexplained"] == {"different": 2}
        assert facts["ledger_after_usd"] == pytest.approx(facts["invoice_usd"])
    assert paid(database)["equal-1"] == ("settled", 0.26)


def test_what_the_ledger_does_not_know_remains_to_be_explained(reconcile: Invoicing) -> None:
    facts = reconcile(f"{RIGHT}nobodys-1,3\n,1.5\nrunning-1,1\n", status=1)

    assert facts["unexplained"] == {"running": 1, "unknown": 1, "nameless": 1}
    assert facts["calls"]["unknown"] == [{"call": "nobodys-1", "ledger_usd": None, "invoice_usd": 3.0}]
    assert facts["invoice_usd"] - facts["ledger_after_usd"] == pytest.approx(5.5)


def test_an_answered_call_that_is_not_on_it_keeps_its_cost_and_is_to_be_explained(
    reconcile: Invoicing, database: Database
) -> None:
    facts = reconcile("call,cost_usd\ncut-1,0.5\nfree-1,0.1\n", status=1)

    assert facts["unexplained"] == {"missing": 1}
    assert paid(database)["equal-1"] == ("settled", None)


def test_it_covers_the_days_and_accounts_of_its_calls_and_more_where_that_is_told(
    reconcile: Invoicing, database: Database
) -> None:
    reconcile(RIGHT, "--until", "2027-01-19", status=0)
    assert paid(database)["later-1"] == ("settled", 0.0)

    facts = reconcile("call,cost_usd\nequal-1,0.25\n", "--provider", "openai", status=1)
    assert [one["call"] for one in facts["calls"]["missing"]] == ["else-1"]


def test_a_later_invoice_that_has_it_after_all_puts_it_right(
    reconcile: Invoicing, database: Database
) -> None:
    reconcile(RIGHT, status=0)
    facts = reconcile("call,cost_usd\nkilled-1,0.75\n", status=0)

    assert paid(database)["killed-1"] == ("settled", 0.75)
    assert paid(database)["cut-1"] == ("settled", 0.5)
    assert found(facts) == {"equal": 1, "billed": 1}


def test_what_is_learnt_afterwards_changes_nothing_of_what_was_paid(
    reconcile: Invoicing, ledger: Ledger, database: Database
) -> None:
    reconcile(RIGHT, status=0)

    ledger.record([doubtful("killed-1", at=NOW + 60), completed("cut-1", at=NOW + 60, cost_usd=0.5)])

    assert paid(database)["killed-1"] == ("settled", 0.0)
    assert paid(database)["cut-1"] == ("settled", 0.5)


def test_statistics_count_what_was_paid(reconcile: Invoicing) -> None:
    reconcile("call,cost_usd\nequal-1,0.26\nfree-1,1\ncut-1,0.5\n", status=1)

    total = json.loads(CliRunner().invoke(app, ["report", "month", "--format", "json"]).stdout)["total"]

    assert total["cost_usd"] == pytest.approx(0.26 + 1.0 + 0.5 + 0.25 + 0.25)
    assert (total["unpriced"], total["doubtful"]) == (0, 1)


def test_for_people_it_names_what_was_found_and_what_to_do(reconcile: Invoicing) -> None:
    told = reconcile.told(f"{RIGHT}nobodys-1,3\n")

    assert told.exit_code == 1
    covers = "it covers groq/main, 2027-01-15 00:00 UTC to 2027-01-16 00:00 UTC"
    for line in (
        "were doubtful, and are on it         1    0.000000     0.500000",
        "  killed-1  ledger nothing, invoice nothing",
        f"november.csv: 4 lines, 3.875000 USD; {covers}",
        "the ledger's calls of it: 0.250000 USD before, 0.875000 after; 4 rows were changed",
    ):
        assert line in told.stdout.splitlines()
    assert "unexplained: 1 unknown: " in told.stdout


def test_an_instant_that_is_none_is_refused_with_the_remedy(reconcile: Invoicing) -> None:
    told = reconcile.told(RIGHT, "--since", "yesterday")

    assert told.exit_code == 1
    assert "--since 'yesterday': write a day or an instant: 2026-11-01" in told.stderr
