"""What was published becomes rows: once, in whatever order it comes, however often."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.store import tables
from hub.store.database import Database
from hub.store.entries import Entry, Unreadable, read_entry
from hub.store.ledger import Ledger
from tests.support.entries import (
    NOW,
    answered,
    completed,
    doubtful,
    duplicate,
    entered,
    event,
    failed,
    rows,
    started,
)
from topology.messages import Event

DAY_S = 86400.0
STORY: tuple[Entry, ...] = (
    started("settled-1"),
    completed("settled-1"),
    started("refused-1"),
    failed("refused-1", kind="throttled", status=429, error="rate_limited"),
    started("cut-1"),
    failed("cut-1", kind="ambiguous"),
    doubtful("cut-1"),
    started("killed-1"),
    doubtful("killed-1"),
    started("frozen-1"),
    doubtful("frozen-1"),
    completed("frozen-1", at=NOW + 40, cost_usd=0.5),
    duplicate("frozen-1", at=NOW + 40.5, cost_usd=0.5),
    started("slow-1"),
    failed("slow-1", kind="cancelled"),
    doubtful("slow-1", reason="answered"),
    started("running-1"),
    entered("asked", "settled"),
    answered("asked"),
    answered("asked", id_="told again", at=NOW + 9, source="dedupe", cost_usd=0.0),
    entered("refused", "refused", at=NOW + 3, agent="batch", agent_type="loader"),
    answered("refused", agent="batch", status="error", source=None, provider=None, model=None),
    event("error", "why", at=NOW + 2, agent="batch", request_id="refused", error="rate_limited"),
    event("retry", "a retry", agent="quality", request_id="asked", wait_s=1.0),
    event("of.tomorrow", "unheard of", agent="quality", request_id="asked", new={"field": [1, None]}),
    event("worker.health", "beat 1", worker="backend-1", roles=["backend:groq"], host="one", pid=7),
    event("worker.health", "beat 2", at=NOW + 1, worker="backend-1", roles=["front"], host="one", pid=7),
)


def everything(database: Database) -> dict[str, list[dict[str, Any]]]:
    return {table.name: rows(database, table) for table in tables.metadata.sorted_tables}


def call(database: Database, id_: str) -> dict[str, Any]:
    [row] = [row for row in rows(database, tables.calls) if row["call"] == id_]
    return row


def test_each_call_is_one_row_in_the_state_that_its_end_gives_it(ledger: Ledger, database: Database) -> None:
    ledger.record(STORY)

    assert {row["call"]: (row["state"], row["outcome"]) for row in rows(database, tables.calls)} == {
        "settled-1": ("settled", "answer"),
        "refused-1": ("settled", "error"),
        "cut-1": ("doubtful", "unknown"),
        "killed-1": ("doubtful", None),
        "frozen-1": ("settled", "answer"),
        "slow-1": ("doubtful", "unknown"),
        "running-1": ("running", None),
    }
    assert [row["call"] for row in rows(database, tables.calls) if row["duplicate"]] == ["frozen-1", "slow-1"]


def test_a_row_says_whose_call_it_was_and_what_it_cost(ledger: Ledger, database: Database) -> None:
    ledger.record([doubtful("frozen-1"), started("frozen-1"), completed("frozen-1", cost_usd=0.5)])

    assert call(database, "frozen-1") == {
        "call": "frozen-1", "state": "settled", "outcome": "answer", "duplicate": False, "flight": "frozen",
        "request_id": "request of frozen-1", "agent": "quality", "agent_type": "reviewer",
        "provider": "groq", "model": "small", "account": "main", "task": "code", "priority": "high",
        "attempt": 1, "worker": "backend-1", "started_at": NOW, "until": NOW + 75.0, "ended_at": NOW + 1,
        "latency_s": 1.0, "status": 200, "error": None, "kind": None, "code": None, "prompt_tokens": 10,
        "completion_tokens": 20, "cost_usd": 0.5, "billed_usd": None, "invoice": None, "at": NOW + 20,
    }  # fmt: skip


def test_of_several_answers_to_a_request_the_first_counts(ledger: Ledger, database: Database) -> None:
    ledger.record(STORY)

    answers = {row["request_id"]: (row["source"], row["cost_usd"]) for row in rows(database, tables.requests)}
    assert answers == {"asked": ("provider", 0.25), "refused": (None, 0.25)}


def test_other_events_are_kept_as_they_are_those_of_later_releases_too(
    ledger: Ledger, database: Database
) -> None:
    ledger.record(STORY)

    assert {row["id"]: row["facts"] for row in rows(database, tables.events)} == {
        "a retry": {"wait_s": 1.0},
        "unheard of": {"new": {"field": [1, None]}},
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ledger, Database]:
    """Emptied by each example: making tables takes longer than anything that is done with them."""
    url = f"sqlite:///{tmp_path_factory.mktemp('shared') / 'optimizer.db'}"
    ledger = Ledger(url)
    ledger.open()
    return ledger, Database(url)


@settings(max_examples=25)
@given(
    order=st.permutations(range(len(STORY))),
    again=st.lists(st.integers(0, len(STORY) - 1), max_size=20),
    cuts=st.lists(st.integers(0, len(STORY) + 20), max_size=4),
)
def test_order_repetition_and_batches_change_nothing(
    shared: tuple[Ledger, Database], order: list[int], again: list[int], cuts: list[int]
) -> None:
    told = [STORY[place] for place in [*order, *again]]
    edges = [0, *sorted(cuts), len(told)]
    ledger, database = shared
    found = []
    for batches in ([STORY], [told[start:end] for start, end in pairwise(edges)]):
        ledger.tend(NOW + DAY_S, 0.0)
        for batch in batches:
            ledger.record(batch)
        found.append(everything(database))

    assert found[0] == found[1]


def test_a_batch_that_is_entered_again_changes_nothing(ledger: Ledger, database: Database) -> None:
    ledger.record(STORY)
    before = everything(database)

    ledger.record(STORY)

    assert everything(database) == before


def test_a_call_without_an_end_in_its_time_is_doubtful_until_its_end_is_known(
    ledger: Ledger, database: Database
) -> None:
    ledger.record([started("late-1", until=NOW + 75), started("young-1", until=NOW + 500)])

    ledger.tend(NOW + 100, DAY_S)
    states = {row["call"]: row["state"] for row in rows(database, tables.calls)}
    ledger.record([completed("late-1")])

    assert states == {"late-1": "doubtful", "young-1": "running"}
    assert call(database, "late-1")["state"] == "settled"


def test_what_is_too_old_goes_in_steps_and_the_rest_stays(ledger: Ledger, database: Database) -> None:
    old = [started(f"old-{n}", at=NOW - 2 * DAY_S) for n in range(1500)]
    ledger.record([*old, *STORY])

    assert ledger.tend(NOW, DAY_S) is True
    assert len([row for row in rows(database, tables.calls) if row["flight"] == "old"]) == 500
    assert ledger.tend(NOW, DAY_S) is False
    assert len(rows(database, tables.calls)) == 7


def test_two_who_write_at_once_lose_nothing_of_each_other(
    url: str, ledger: Ledger, database: Database
) -> None:
    other = Ledger(url)

    def record_singly(into: Ledger, entries: list[Entry]) -> None:
        for entry in entries:
            into.record([entry])

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(record_singly, ledger, [started(f"c-{n}") for n in range(40)])
        two = pool.submit(record_singly, other, [completed(f"c-{n}") for n in range(40)])
        one.result(), two.result()
    other.close()

    found = rows(database, tables.calls)
    assert len(found) == 40
    assert all(row["state"] == "settled" and row["started_at"] == NOW for row in found)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no msgpack",
        Event(id="x", type="optimizer.call.started", at=1.0, call="a\x00b").to_bytes(),
        Event(id="x", type="optimizer.call.completed", at=1.0, prompt_tokens=2**63).to_bytes(),
        Event(id="x", type="optimizer.call.completed", at=1.0, cost_usd=float("nan")).to_bytes(),
        Event(id="x", type="optimizer.request.completed", at=1.0, status="ok").to_bytes(),
        Event(id="x", type="optimizer.retry", at=1.0, body=b"bytes").to_bytes(),
        Event(id="x", type="optimizer.retry", at=1.0, wait_s=float("inf")).to_bytes(),
        Event(id="x", type="optimizer.retry", at=1.0, text="x" * 30_000).to_bytes(),
        Event(id="x" * 2000, type="optimizer.retry", at=1.0).to_bytes(),
    ],
)
def test_what_no_database_takes_is_refused_before_it_gets_there(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read_entry(body)
