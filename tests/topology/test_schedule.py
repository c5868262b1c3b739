"""When permits will be granted: worked out by hand, and against what the limits do when followed."""

import math
from itertools import islice

import pytest

from topology.schedule import Bucket, Closed, Fixed, Lease, Meter, Sliding, grants


def first(count: int, shared: list[Meter], *accounts: list[Meter], now: float = 0.0) -> list[float]:
    return list(islice(grants(now, shared, accounts or [[]]), count))


def test_a_sliding_window_grants_as_soon_as_what_it_granted_leaves_it() -> None:
    assert first(5, [Sliding(2, 10.0)]) == [0, 0, 10, 10, 20]
    assert first(3, [Sliding(2, 10.0, [(-9.0, 1), (-4.0, 1)])]) == [1, 6, 11]


def test_what_costs_more_waits_for_as_much_to_leave() -> None:
    assert first(3, [Sliding(100, 10.0, [(-8.0, 30), (-6.0, 50)], cost=60)]) == [4, 14, 24]


def test_what_is_larger_than_the_window_takes_the_whole_of_it() -> None:
    assert first(2, [Sliding(100, 10.0, cost=500)]) == [0, 10]


def test_what_a_call_reserves_is_back_when_it_has_ended() -> None:
    assert first(5, [Sliding(100, 60.0, cost=20, reserves=50, lasts_s=2.0)]) == [0, 0, 2, 60, 62]
    assert first(3, [Sliding(100, 60.0, cost=20, reserves=80, lasts_s=2.0)]) == [0, 2, 60]


def test_a_fixed_window_opens_as_a_whole() -> None:
    assert first(5, [Fixed(2, 60.0, starts=-30.0, used=1)]) == [0, 30, 30, 90, 90]
    assert first(2, [Fixed(1, 60.0, starts=-30.0, used=1, slack_s=2.0)]) == [32, 92]


def test_a_paced_window_gives_the_rest_as_time_passes() -> None:
    assert first(4, [Fixed(4, 60.0, starts=0.0, at_once=0.5)]) == [0, 0, 30, 60]


def test_a_bucket_gives_what_it_holds_and_then_what_flows_in() -> None:
    assert first(4, [Bucket(60, 60.0, burst=2)]) == [0, 0, 1, 2]
    assert first(2, [Bucket(60, 60.0, burst=2, full_at=2.0)]) == [1, 2]


def test_a_lease_is_free_when_a_call_has_ended() -> None:
    assert first(5, [Lease(2, 3.0)]) == [0, 0, 3, 3, 6]
    assert first(3, [Lease(2, 3.0, held=2)]) == [1, 2, 4]


def test_a_limit_that_was_lowered_waits_for_as_many_to_end() -> None:
    assert first(1, [Lease(1, 4.0, held=3)]) == [3]


def test_how_long_calls_take_is_unknown_before_one_has_ended() -> None:
    assert first(9, [Lease(2, None)]) == [0, 0]


def test_all_limits_must_grant() -> None:
    assert first(4, [Sliding(3, 10.0), Lease(2, 4.0)]) == [0, 0, 4, 10]
    assert first(2, [Closed(7.0), Sliding(1, 1.0)]) == [7, 8]


def test_the_account_that_grants_soonest_goes() -> None:
    assert first(5, [], [Sliding(1, 10.0)], [Sliding(1, 4.0, [(-1.0, 1)])]) == [0, 3, 7, 10, 11]
    assert first(5, [Sliding(2, 5.0)], [Sliding(1, 10.0)], [Sliding(1, 4.0)]) == [0, 0, 5, 9, 10]
    assert first(2, [], [Closed(math.inf)], [Sliding(1, 4.0)]) == [0, 4]


def test_nobody_knows_when_a_limit_grants_that_never_does() -> None:
    assert first(2, [Closed(math.inf)]) == []


@pytest.mark.parametrize("count", [10_000])
def test_ten_thousand_are_worked_out(count: int) -> None:
    accounts: list[list[Meter]] = [[Fixed(50, 86_400.0, starts=0.0), Sliding(20, 61.0)] for _ in range(50)]

    instants = first(count, [Lease(100, 2.0)], *accounts)

    assert instants == sorted(instants)
    assert sum(at < 86_400 for at in instants) == 2500
    assert instants[-1] == pytest.approx(3 * 86_400, abs=200)
