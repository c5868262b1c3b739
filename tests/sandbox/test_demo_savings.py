import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sandbox.demo import table
from sandbox.demo.agents import Sent, Tally
from sandbox.demo.expectations import of_real, of_simulated
from sandbox.demo.ledger import Call, calls_of_replies
from sandbox.demo.savings import Figures, figures, percentile
from sandbox.demo.workload import Agent, Ask, Cache, Workload

ANN, BEN = Agent("ann", "reviewer"), Agent("ben", "monitor")


def sent(request_id: str, prompt: str, source: str, cache: Cache = "use", **more: Any) -> Sent:
    ask = Ask(0.0, more.pop("agent", ANN), prompt, cache=cache)
    cost = 0.5 if source == "provider" else 0.0
    facts = {"is_right": True, "cost_usd": cost, "attempts": 1, "queued_s": 0.1, "total_s": 0.4} | more
    return Sent(ask, request_id=request_id, source=source, **facts)


def call(request_id: str | None, began: float = 0.0, **more: Any) -> Call:
    return Call(request_id, more.pop("cost_usd", 0.5), began=began, ended=began + 1.0, **more)


REQUESTS = [
    sent("a", "one", "provider"),
    sent("b", "one", "dedupe"),
    sent("c", "one", "cache", agent=BEN),
    sent("d", "two", "provider"),
    sent("e", "one", "provider", "refresh"),
    sent("f", "one", "dedupe", "refresh"),
    sent("g", "two", "provider", "off"),
    sent("h", "two", "provider", "off"),
]
CALLS = [call("a"), call("d"), call("e", 5.0), call("g"), call("h")]


def counted(requests: list[Sent] = REQUESTS, calls: list[Call] = CALLS) -> Figures:
    return figures(requests, calls, elapsed_s=2.0)


def failing(found: Figures) -> list[str]:
    return [one.what for one in of_simulated(found) if not one.holds]


def test_repeats_are_what_was_sent_before_and_wished_for_no_call() -> None:
    found = counted()

    assert (found.requests, found.distinct, found.by_wish, found.off) == (8, 2, 1, 2)
    assert found.repeats == 3  # b, c, and f, which found e's call running
    assert (found.calls, found.expected_calls, found.unneeded) == (5, 5, 0)
    assert found.free_repeats_percent == 100.0
    assert (found.paid, found.hits, found.joins) == (5, 1, 2)
    assert failing(found) == []


def test_costs_are_compared_with_a_call_for_each_request() -> None:
    calls = [call("a", cost_usd=1.0), call("d", cost_usd=3.0)]
    requests = [sent("a", "one", "provider"), sent("b", "one", "cache"), sent("d", "two", "provider")]
    found = counted(requests, calls)

    assert (found.cost_usd, found.unshared_usd, found.saved_usd) == (4.0, 5.0, 1.0)
    assert found.saved_calls == 1


def test_a_refresh_that_is_the_first_of_its_content_is_not_counted_twice() -> None:
    requests = [sent("a", "one", "provider", "refresh"), sent("b", "one", "cache")]
    found = counted(requests, [call("a")])

    assert (found.distinct, found.by_wish, found.repeats, found.unneeded) == (1, 0, 1, 0)


def test_a_repeat_that_was_paid_for_is_found() -> None:
    requests = [replace(REQUESTS[2], source="provider") if s is REQUESTS[2] else s for s in REQUESTS]
    found = counted(requests, [*CALLS, call("c", 9.0)])

    assert (found.unneeded, found.free_repeats) == (1, 2)
    assert any("99 %" in what for what in failing(found))
    assert any("called once" in what for what in failing(found))


def test_a_request_that_was_paid_for_twice_is_found_even_if_it_wished_to_be() -> None:
    found = counted(calls=[*CALLS, call("e", 9.0)])

    assert (found.by_wish, found.unneeded) == (1, 1)
    assert any("paid for" in what for what in failing(found))


def test_equal_calls_at_the_same_time_are_found_but_not_those_with_off() -> None:
    found = counted(calls=[call("a"), call("d"), call("e", 0.5), call("g"), call("h")])

    assert found.twin_calls == 1
    assert failing(found) == ["two equal requests are never with the provider at once"]


def test_an_answer_that_no_call_explains_is_found() -> None:
    found = counted(calls=CALLS[1:])

    assert any("ledger" in what for what in failing(found))


def test_calls_for_requests_of_an_earlier_run_stand_apart() -> None:
    found = counted(calls=[*CALLS, call("somebody"), call(None)])

    assert (found.calls, found.strange_calls) == (5, 2)
    assert failing(found) == []


def test_errors_wrong_answers_refusals_and_other_bills_each_fail() -> None:
    error = replace(sent("x", "one", "cache"), source=None, error="overloaded: later")
    wrong = sent("y", "one", "cache", is_right=False)
    cases = {
        "every request was answered": counted([*REQUESTS, error]),
        "each answer is the one to its question": counted([*REQUESTS, wrong]),
        "the provider refused no call: its limits were kept": counted(
            calls=[*CALLS, call("a", is_billed=False)]
        ),
        "the costs that the replies name are the provider's bill": counted(
            [replace(s, cost_usd=0.4) if s.cost_usd else s for s in REQUESTS]
        ),
    }

    assert {what: failing(found) for what, found in cases.items()} == {what: [what] for what in cases}


def test_of_a_real_provider_the_replies_count_failed_attempts_too() -> None:
    requests = [
        sent("a", "one", "provider", attempts=3),
        sent("b", "one", "cache", attempts=3),
        replace(sent("c", "two", "provider", attempts=2), error="provider_error: no"),
        replace(sent("d", "two", "dedupe", attempts=2), error="provider_error: no"),
    ]

    found = counted(requests, calls_of_replies(requests))

    assert (found.calls, found.failed_calls) == (1, 4)


@pytest.mark.parametrize(
    ("most_calls", "most_usd", "failed"),
    [(5, 2.5, []), (4, 2.5, ["calls"]), (5, 2.4, ["USD"])],
)
def test_the_ceiling_of_a_real_provider_is_checked(
    most_calls: int, most_usd: float, failed: list[str]
) -> None:
    checked = of_real(counted(), most_calls, most_usd)

    wrong = [one.what for one in checked if not one.holds]
    assert len(wrong) == len(failed)
    assert all(word in what for what, word in zip(wrong, failed, strict=True))


def test_unknown_prices_stay_unknown() -> None:
    found = counted([sent("a", "one", "provider", cost_usd=None)], [call("a", cost_usd=None)])

    assert (found.cost_usd, found.unshared_usd, found.saved_usd) == (None, None, None)


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 95) == 95.0
    assert percentile([], 95) == 0.0


def test_the_tally_counts_each_request_once() -> None:
    tally = Tally(total=4, sent=4)
    for one in REQUESTS[:3]:
        tally.count(one)

    assert (tally.answered, tally.paid, tally.joins, tally.hits) == (3, 1, 1, 1)
    assert tally.waiting == 1


def test_the_table_and_the_json_name_the_workload_the_figures_and_what_failed(tmp_path: Path) -> None:
    workload = Workload("fleet: a test", (ANN, BEN), tuple(s.ask for s in REQUESTS), ("a note",))
    found = counted(calls=[*CALLS, call("e", 9.0)])
    console = Console(file=io.StringIO(), width=160)

    table.show(console, workload, found, of_simulated(found), "a simulated provider")
    table.write_json(tmp_path / "f.json", workload, found, of_simulated(found), "a simulated provider")

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "fleet: a test" in text
    assert "a note" in text
    assert "66.67 % of the repeats" in text
    assert "NO   the replies that were paid for" in text
    document = json.loads((tmp_path / "f.json").read_text("utf-8"))
    assert document["as_expected"] is False
    assert document["figures"]["free_repeats"] == 2
    assert document["figures"]["kinds"][0]["kind"] == "reviewer"
