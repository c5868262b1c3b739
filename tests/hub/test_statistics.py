"""The sums are right, and what is unknown is not zero."""

from dataclasses import asdict
from typing import Any

import pytest

from hub.store.database import Database
from hub.store.grouping import By
from hub.store.ledger import Ledger
from hub.store.statistics import Sums, gather_statistics
from tests.support.entries import (
    NOW,
    answered,
    completed,
    doubtful,
    duplicate,
    entered,
    event,
    failed,
    started,
)

SHARED: dict[str, Any] = {"cost_usd": 0.0}


@pytest.fixture
def recorded(ledger: Ledger, database: Database) -> Database:
    """A led request with a hit and a join, a hit of unknown flight, an error, a doubt, a duplicate."""
    ledger.record(
        [
            entered("led", "f1"), started("f1-a"), completed("f1-a", cost_usd=0.4), answered("led"),
            entered("hit", "f1", how="cache.hit", why="fresh"), answered("hit", source="cache", **SHARED),
            entered("join", "f1", how="dedupe.joined"), answered("join", source="dedupe", **SHARED),
            answered("of no known flight", at=NOW + 1, source="cache", agent="batch", **SHARED),
            started("f2-a", account="spare"), doubtful("f2-a"),
            started("f2-b"), completed("f2-b", cost_usd=0.2, latency_s=3.0),
            started("f2-c"), completed("f2-c", cost_usd=0.2, latency_s=9.0), duplicate("f2-c", cost_usd=0.2),
            started("f3-a"), failed("f3-a", kind="throttled", error="rate_limited"),
            started("f4-a", model="unpriced"), completed("f4-a", model="unpriced", cost_usd=None),
            answered("refused", status="error", source=None, provider=None, model=None, cost_usd=None),
            event("error", "why", agent="quality", request_id="refused", error="rate_limited"),
            event("worker.health", "beat", at=NOW + 50, worker="front-1", roles=["front"]),
        ]
    )  # fmt: skip
    return database


def test_the_total_counts_each_thing_once(recorded: Database) -> None:
    found = gather_statistics(recorded, NOW - 1)

    # The hit and the join at their flight's price, the other hit at the mean of its model's calls.
    saved_usd = 0.4 + 0.4 + (0.4 + 0.2 + 0.2) / 3
    expected = Sums(
        requests=5, hits=2, joins=1, errors=1, saved_usd=saved_usd,
        calls=6, settled=5, doubtful=1, running=0, duplicates=1, prompt_tokens=40, completion_tokens=80,
        cost_usd=0.8, unpriced=1, latency_p50_s=1.0, latency_p95_s=9.0,
        total_p50_s=2.0, total_p95_s=2.0,
    )  # fmt: skip
    assert asdict(found.total) == pytest.approx(asdict(expected))
    assert found.request_errors == {"rate_limited": 1}
    assert found.call_errors == {"rate_limited": 1}
    assert found.as_of == NOW + 50


@pytest.mark.parametrize(
    ("by", "calls", "requests"),
    [
        (By.PROVIDER, {"groq": 6}, {"groq": 4}),
        (By.MODEL, {"groq/small": 5, "groq/unpriced": 1}, {"groq/small": 4, "groq/unpriced": 0}),
        (By.AGENT, {"batch": 0, "quality": 6}, {"batch": 1, "quality": 4}),
        (By.ACCOUNT, {"groq/main": 5, "groq/spare": 1}, {"groq/main": 0, "groq/spare": 0}),
    ],
)
def test_the_groups_add_up(
    recorded: Database, by: By, calls: dict[str, int], requests: dict[str, int]
) -> None:
    groups = gather_statistics(recorded, NOW - 1, by).groups

    assert {name: sums.calls for name, sums in groups.items()} == calls
    assert {name: sums.requests for name, sums in groups.items()} == requests


def test_the_latest_agent_comes_first_with_what_it_used(recorded: Database) -> None:
    latest, other = gather_statistics(recorded, NOW - 1).agents

    assert (latest.agent, latest.agent_type, latest.first_seen) == ("quality", "reviewer", NOW)
    assert (latest.tasks, latest.models, latest.sums.requests) == (("code",), ("groq/small",), 4)
    assert (other.agent, other.agent_type, other.sums.hits) == ("batch", None, 1)


def test_what_is_older_than_asked_for_is_left_out(recorded: Database) -> None:
    found = gather_statistics(recorded, NOW + 1000)

    assert (found.total, found.agents) == (Sums(), ())


def test_savings_at_prices_that_nobody_knows_are_unknown(ledger: Ledger, database: Database) -> None:
    ledger.record([answered("hit", source="cache", **SHARED)])

    assert gather_statistics(database, NOW - 1).total.saved_usd is None
