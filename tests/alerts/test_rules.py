"""When quotas are low or gone, when calls fail too often or take too long, when a day is over."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from broker.remaining import Remaining
from topology.alerts import About, Severity, Trouble
from topology.sections import AlertsSection
from workers.alerts.counts import CallCounts
from workers.alerts.firing import Firing
from workers.alerts.rules import of_calls, of_days, of_limits

MIDNIGHT = 1_800_057_600.0
NOON = MIDNIGHT - 43_200.0
SECTION = AlertsSection()
QUOTA = Remaining(
    kind="quota",
    about=About(provider="groq", account="main", limit="requests-86400s"),
    unit="requests",
    window_s=86_400.0,
    amount=1000.0,
    left=1000.0,
    opens_at=MIDNIGHT,
)
PLACE = ("groq", "llama")


def names(*found: Remaining, firing: Mapping[str, Firing] | None = None) -> list[str]:
    return [trouble.name.value for trouble in of_limits(found, SECTION, firing or {})]


def told(*troubles: Trouble, at: float = NOON) -> dict[str, Firing]:
    return {trouble.id: Firing(trouble=trouble, since=at, told_at=at) for trouble in troubles}


def test_a_quota_is_low_from_a_tenth_on_and_then_gone() -> None:
    assert names(replace(QUOTA, left=101)) == []
    assert names(replace(QUOTA, left=100)) == ["quota_low"]
    assert names(replace(QUOTA, left=1)) == ["quota_low"]
    assert names(replace(QUOTA, left=0.5)) == ["quota_gone"]
    low = told(*of_limits([replace(QUOTA, left=50)], SECTION, {}))
    assert names(replace(QUOTA, left=0), firing=low) == ["quota_gone", "quota_low"]


def test_a_few_tokens_that_make_no_call_are_as_good_as_none() -> None:
    tokens = replace(QUOTA, unit="tokens", amount=100_000.0)

    assert names(replace(tokens, left=600)) == ["quota_low"]
    assert names(replace(tokens, left=400)) == ["quota_gone"]


def test_it_says_how_much_is_left_when_it_opens_and_what_to_do() -> None:
    [low] = of_limits([replace(QUOTA, left=87)], SECTION, {})

    assert low.text.startswith("groq, account main: 87 of 1000 requests a day are left (9%)")
    assert "2027-01-16 00:00 UTC" in low.text
    assert "raise the plan" in low.text
    assert (low.value, low.threshold, low.about.account) == (87, 100, "main")


def test_a_budget_is_one_alert_that_becomes_graver() -> None:
    budget = replace(QUOTA, kind="budget", about=About(agent="quality", limit="usd-86400s"), unit="usd")
    [low] = of_limits([replace(budget, left=90)], SECTION, {})
    [gone] = of_limits([replace(budget, left=0)], SECTION, {})

    assert (low.name, low.severity) == ("budget", Severity.WARNING)
    assert (gone.id, gone.severity) == (low.id, Severity.CRITICAL)
    assert gone.text.startswith("agent quality: the budget is spent")


def test_a_new_day_is_told_once_for_each_provider_that_used_the_old_one() -> None:
    other = replace(QUOTA, about=About(provider="openrouter", limit="requests-86400s"))
    found = [replace(QUOTA, left=0), replace(QUOTA, left=500), other]
    days, before = of_days(found, {}, NOON)
    tomorrow = [replace(one, left=one.amount, opens_at=MIDNIGHT + 86_400) for one in found]
    later, notices = of_days(tomorrow, days, MIDNIGHT + 1)
    _, again = of_days(tomorrow, later, MIDNIGHT + 2)

    assert (before, again) == ([], [])
    [notice] = notices
    assert (notice.name, notice.about.provider) == ("daily_reset", "groq")
    assert "of the 2 quotas in use 1 had been spent" in notice.text


# Calls


def calls(
    counts: CallCounts, at: float, answered: int = 0, failed: int = 0, seconds: float = 1.0
) -> CallCounts:
    for _ in range(answered):
        counts.answered(at, PLACE, seconds)
    for _ in range(failed):
        counts.failed(at, PLACE)
    return counts


def found(
    counts: CallCounts, now: float = NOON, firing: Mapping[str, Firing] | None = None, **section: Any
) -> list[Trouble]:
    return list(of_calls(counts, AlertsSection(**section), firing or {}, now))


def test_a_fifth_of_twenty_calls_may_fail_and_no_more() -> None:
    assert found(calls(CallCounts(), NOON, answered=16, failed=4)) == []
    assert found(calls(CallCounts(), NOON, answered=1, failed=18)) == []
    [failing] = found(calls(CallCounts(), NOON, answered=15, failed=5))

    assert (failing.name, failing.value, failing.threshold) == ("error_rate", 0.25, 0.2)
    assert "groq/llama: 5 of 20 calls failed in the last 300 s (25%)" in failing.text


def test_calls_that_fail_still_fail_though_they_are_few_and_are_over_when_the_window_is() -> None:
    firing = told(*found(calls(CallCounts(), NOON, answered=15, failed=5)))
    few = calls(CallCounts(), NOON + 600, answered=1, failed=2)

    assert [one.name for one in found(few, NOON + 601, firing)] == ["error_rate"]
    assert found(few, NOON + 1200, firing) == []


def test_slow_is_three_times_what_was_normal_in_the_hour_before() -> None:
    counts = calls(CallCounts(), NOON - 1800, answered=100, seconds=2.0)

    assert found(calls(counts, NOON, answered=30, seconds=5.0)) == []
    [slow] = found(calls(counts, NOON, answered=10, seconds=9.0))
    assert slow.name == "latency"
    assert slow.value is not None
    assert 8.5 < slow.value < 9.5
    assert slow.threshold is not None
    assert 5.7 < slow.threshold < 6.3


def test_without_a_normal_and_below_a_second_nothing_is_slow() -> None:
    assert found(calls(CallCounts(), NOON, answered=100, seconds=50.0)) == []
    fast = calls(CallCounts(), NOON - 1800, answered=100, seconds=0.01)
    assert found(calls(fast, NOON, answered=100, seconds=0.9)) == []


def test_a_bound_in_seconds_holds_whatever_is_normal() -> None:
    counts = calls(CallCounts(), NOON - 1800, answered=100, seconds=50.0)

    assert found(calls(counts, NOON, answered=30, seconds=50.0)) == []
    assert [one.name for one in found(counts, latency_s=30.0)] == ["latency"]


def test_slow_calls_do_not_become_normal_while_they_are_told_of_and_do_so_after_an_hour() -> None:
    counts = calls(CallCounts(), NOON - 1800, answered=100, seconds=2.0)
    firing = told(*found(calls(counts, NOON, answered=100, seconds=9.0)))

    half_an_hour_later = calls(counts, NOON + 1800, answered=100, seconds=9.0)
    assert [one.name for one in found(half_an_hour_later, NOON + 1800, firing)] == ["latency"]
    assert found(calls(counts, NOON + 3700, answered=100, seconds=9.0), NOON + 3700, firing) == []


def test_what_is_normal_moves_on_with_the_time_also_where_calls_are_heard_of_late() -> None:
    counts, now = CallCounts(), NOON
    for minute in range(180):
        now = NOON + 60 * minute
        calls(counts, now, answered=1 + minute % 3, failed=minute % 2, seconds=1.0 + minute)
        counts.before(now, 300)
        calls(counts, now - 900, answered=1)
        counts.forget(now)

    fresh = CallCounts()
    fresh.restore(counts.take_new().items())
    moved, anew = counts.before(now, 300)[PLACE], fresh.before(now, 300)[PLACE]
    assert (moved.failed, +moved.answered) == (anew.failed, +anew.answered)
    assert moved.percentile(0.5) == anew.percentile(0.5)


def test_counts_go_on_from_what_was_written() -> None:
    counts = calls(CallCounts(), NOON, answered=15, failed=5)
    after = CallCounts()
    after.restore(counts.take_new().items())

    assert found(after) == found(counts)
    assert dict(counts.take_new()) == dict(after.take_new()) == {}
