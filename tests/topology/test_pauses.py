"""Pauses of what failed: all over the time that they may take, and within what is left."""

from statistics import mean

import pytest

from topology.pauses import jittered

_DRAWS = 3000
_SHORTEST_S = 1.0


@pytest.mark.parametrize("mean_s", [1.0, 5.0, 30.0])
def test_what_failed_together_comes_back_at_any_time_up_to_twice_the_mean(mean_s: float) -> None:
    pauses = sorted(jittered(mean_s, 600.0) for _ in range(_DRAWS))

    assert pauses[0] == _SHORTEST_S
    assert pauses[-1] <= 2 * mean_s
    # What would be shorter than a second takes a second.
    assert mean(pauses) == pytest.approx(mean_s + _SHORTEST_S**2 / (4 * mean_s), rel=0.1)
    each_second = [sum(n <= pause < n + 1 for pause in pauses) for n in range(1, int(2 * mean_s))]
    assert min(each_second) > 0.3 * _DRAWS / (2 * mean_s)


def test_a_pause_leaves_time_to_try_once_more() -> None:
    assert max(jittered(30.0, 9.0) for _ in range(_DRAWS)) <= 7.0


def test_nothing_comes_back_sooner_than_the_shortest_tier_gives_it_back() -> None:
    assert {jittered(30.0, left_s) for left_s in (0.5, 0.0, -7.0)} == {_SHORTEST_S}
