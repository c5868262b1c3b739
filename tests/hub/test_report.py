"""`optimizer report` says what is in the books, in each of its formats."""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from console.main import app
from console.stats import RECORDER_URL
from hub.store.ledger import Ledger
from tests.support.entries import NOW, answered, completed, entered, event, failed, started


@pytest.fixture
def recorded(ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that paid, a hit, a join, and an error."""
    monkeypatch.setenv(RECORDER_URL, url)
    ledger.record(
        [
            entered("led", "f1"), started("f1-a"), completed("f1-a", cost_usd=0.5), answered("led"),
            entered("hit", "f1", how="cache.hit", why="fresh"),
            answered("hit", source="cache", cost_usd=0.0, agent="batch|er", total_s=0.01),
            entered("join", "f1", how="dedupe.joined"), answered("join", source="dedupe", cost_usd=0.0),
            started("f2-a"), failed("f2-a", kind="throttled", error="rate_limited"),
            answered("refused", status="error", source=None, provider=None, model=None, cost_usd=None),
            event("error", "why", agent="quality", request_id="refused", error="rate_limited"),
            event("worker.health", "beat", at=NOW, worker="front-1", roles=["front"]),
        ]
    )  # fmt: skip


def report(*arguments: str) -> str:
    told = CliRunner().invoke(app, ["report", *arguments])
    assert told.exit_code == 0, told.output
    return told.stdout


@pytest.mark.usefixtures("recorded")
def test_a_report_for_people_names_the_figures_and_lists_who_cost_most_first() -> None:
    text = report("month")

    assert text.startswith("# The last month: ")
    for line in (
        "| requests | 4 |",
        "| of them without a call of their own | 50.0% |",
        "| calls | 2 |",
        "| cost | $0.5000 |",
        "| saved | $1.0000 |",
        "| requests that ended in an error | 1 |",
        "| rate_limited | 1 |",
    ):
        assert line in text.splitlines()
    agents = text.partition("## By agent")[2].partition("## ")[0].strip().splitlines()[2:]
    assert [line.split(" | ")[0] for line in agents] == ["| quality", "| batch\\|er"]


@pytest.mark.usefixtures("recorded")
def test_a_report_for_spreadsheets_has_a_row_for_each_of_whom_it_speaks() -> None:
    rows = list(csv.DictReader(io.StringIO(report("--format", "csv"))))

    found = {(row["about"], row["name"]): row for row in rows}
    assert {about for about, _ in found} == {"total", "provider", "model", "agent", "account"}
    assert float(found["total", ""]["hit_rate"]) == 0.5
    assert found["agent", "batch|er"]["hits"] == "1"
    assert found["model", "groq/small"]["calls"] == "2"


@pytest.mark.usefixtures("recorded")
def test_a_report_for_programs_has_all_of_it() -> None:
    facts = json.loads(report("day", "--format", "json"))

    assert facts["period"] == "day"
    assert facts["until"] - facts["since"] == 86400.0
    assert facts["recorded_until"] == NOW
    assert facts["total"]["calls_saved"] == 2
    assert facts["total"]["saved_usd"] == 1.0
    assert facts["by_provider"]["groq"]["cost_usd"] == 0.5
    assert facts["request_errors"] == {"rate_limited": 1}


@pytest.mark.usefixtures("recorded")
def test_a_period_that_is_none_is_told_which_there_are() -> None:
    told = CliRunner().invoke(app, ["report", "decade"])

    assert told.exit_code == 2
    assert "month" in told.output


def test_before_anything_is_recorded_it_says_what_to_do(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RECORDER_URL, url)

    told = CliRunner().invoke(app, ["report"])

    assert told.exit_code == 1
    assert "optimizer worker recorder" in told.output
