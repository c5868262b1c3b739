"""What events say to be wrong, and what shows that it is mended."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from broker.standings import FOR_GOOD
from topology.fleet import Fleet
from topology.loading import load_fleet
from topology.messages import Event, new_id
from workers.alerts.counts import CallCounts
from workers.alerts.heard import Heard, hear, still_wrong

NOW = 1_800_000_000.0
KEY = ("groq", "main", "env:ONE")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    path = tmp_path / "fleet.toml"
    path.write_text(
        '[[providers.groq.accounts]]\nname = "main"\napi_keys = ["env:ONE", "env:TWO"]\n', "utf-8"
    )
    return load_fleet(path, {}, secrets=False)


class Ear:
    """What is known to be wrong, after what was heard."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.heard: dict[str, Heard] = {}
        self.counts = CallCounts()

    def hear(self, type_: str, at: float = NOW, **facts: Any) -> None:
        event = Event(id=new_id(), type=f"optimizer.{type_}", at=at, provider="groq", **facts)
        for id_, heard in hear(event, self.heard, self.counts).items():
            self.heard = {name: one for name, one in self.heard.items() if name != id_}
            self.heard |= {id_: heard} if heard else {}

    def wrong(self, closed: Mapping[tuple[str, ...], float] | None = None, now: float = NOW) -> list[str]:
        lasting = still_wrong(self.heard, closed or {}, self.fleet, now)
        return [self.heard[id_].trouble.name for id_ in lasting]


@pytest.fixture
def ear(fleet: Fleet) -> Ear:
    return Ear(fleet)


def lose(ear: Ear, **facts: Any) -> None:
    ear.hear("key.disabled", account="main", key="env:ONE", scope="key", status=401, code="bad_key", **facts)


def test_a_lost_key_stays_lost_until_it_is_restored(ear: Ear) -> None:
    lose(ear)
    [lost] = ear.heard.values()
    ear.hear("key.restored", NOW + 1, account="main", key="env:TWO", scope="key")

    assert ear.wrong() == ["key_lost"]
    assert "refuses env:ONE (401 bad_key)" in lost.trouble.text
    assert "optimizer keys disable groq env:ONE" in lost.trouble.text
    ear.hear("key.restored", NOW + 1, account="main", key="env:ONE", scope="key")
    assert ear.wrong() == []


def test_an_answer_mends_a_key_that_nothing_keeps_closed(ear: Ear) -> None:
    lose(ear)
    ear.hear("call.completed", NOW - 1, account="main", model="llama", latency_s=1.0)
    assert ear.wrong() == ["key_lost"]

    ear.hear("call.completed", NOW + 1, account="main", model="llama", latency_s=1.0)

    assert ear.wrong({KEY: NOW + 300}) == ["key_lost"]  # the answer was another key's
    assert ear.wrong() == []


def test_a_key_that_is_lost_again_is_lost(ear: Ear) -> None:
    lose(ear)
    ear.hear("call.completed", NOW + 1, account="main", model="llama", latency_s=1.0)
    lose(ear, at=NOW + 2)

    assert ear.wrong() == ["key_lost"]


def test_what_an_operator_has_disabled_or_taken_out_is_no_trouble(ear: Ear) -> None:
    lose(ear)

    assert ear.wrong({KEY: FOR_GOOD}) == []
    ear.fleet = ear.fleet.model_copy(update={"providers": {}})
    assert ear.wrong() == []


def test_a_circuit_is_open_until_that_very_one_is_closed(ear: Ear) -> None:
    ear.hear("circuit.opened", account="main", model="llama", scope="model", kind="capacity", code="busy")
    ear.hear("circuit.opened", account=None, model=None, scope="provider", kind="ambiguous")
    assert sorted(ear.wrong()) == ["circuit_open", "circuit_open"]

    ear.hear("circuit.closed", NOW + 1, account=None, model=None, scope="provider", key=None)
    [left] = ear.heard.values()
    assert left.trouble.text.startswith(
        "groq/llama, account main: five calls in a row failed (capacity busy)"
    )
    ear.hear("circuit.closed", NOW + 1, account="main", model="llama", scope="model", key=None)
    assert ear.wrong() == []


def test_a_refusal_for_hours_is_a_quota_and_a_short_one_is_pace(ear: Ear) -> None:
    ear.hear("limit.tightened", account="main", model="llama", scope="account", until=NOW + 30)
    assert ear.wrong() == []

    ear.hear(
        "limit.tightened", account="main", model="llama", scope="account", until=NOW + 7200, code="daily"
    )

    assert ear.wrong(now=NOW + 7199) == ["quota_gone"]
    assert ear.wrong(now=NOW + 7200) == []


def test_a_callers_own_fault_is_no_failure_of_the_model(ear: Ear) -> None:
    for error in ("invalid_request", "cancelled", "context_too_long", "content_filtered"):
        ear.hear("call.failed", account="main", model="llama", error=error)
    ear.hear("call.failed", account="main", model="llama", error="provider_error")

    [calls] = ear.counts.within(NOW, 300).values()
    assert (calls.failed, calls.count) == (1, 1)


@pytest.mark.parametrize(
    "facts",
    [
        {"account": 7},
        {"key": "k" * 10_000},
        {"until": "soon"},
        {"until": 1e300},
        {"status": []},
        {"code": "\ud83d"},
        {"latency_s": math.nan},
    ],
)
def test_an_event_that_anybody_made_up_changes_nothing(ear: Ear, facts: dict[str, Any]) -> None:
    ear.hear("key.disabled", **facts)
    ear.hear("limit.tightened", **{"until": NOW + 7200, **facts})
    ear.hear("call.completed", **{"latency_s": 1e300, **facts})

    assert ear.heard == {}
    assert ear.counts.within(NOW, 300) == {}
