"""The same seed gives the same run, and every quota is in it."""

from collections import Counter
from itertools import islice

from hypothesis import given
from hypothesis import strategies as some

from tests.chaos.load import make_load
from tests.chaos.schedule import FAULTS, IN_CALL, make_schedule

POINTS = ["front.after_admit", "front.before_ack", "backend.after_claim", IN_CALL, "recorder.before_ack"]
seeds = some.integers(0, 2**32)
kills = some.integers(1, 2000)


@given(seeds, kills, some.booleans())
def test_the_same_seed_gives_the_same_schedule(seed: int, count: int, named: bool) -> None:
    one, other = (make_schedule(seed, count, POINTS, FAULTS, named=named) for _ in range(2))

    assert one == other


@given(seeds, kills, some.booleans())
def test_there_are_as_many_kills_as_were_asked_for_and_each_quota_is_met(
    seed: int, count: int, named: bool
) -> None:
    schedule = make_schedule(seed, count, POINTS, named=named)
    strikes = [strike for strikes in schedule.strikes.values() for strike in strikes]
    hits = Counter(strike.point for strike in strikes)

    assert schedule.kills == len(strikes) == count
    assert all(strike.role == role for role, strikes in schedule.strikes.items() for strike in strikes)
    assert all(hits[point] == quota for point, quota in schedule.quotas.items())
    assert not (named and hits[None])


@given(seeds)
def test_a_thousand_kills_are_twenty_at_each_point_and_three_hundred_during_a_call(seed: int) -> None:
    quotas = make_schedule(seed, 1000, POINTS).quotas

    assert quotas == {point: 300 if point == IN_CALL else 20 for point in POINTS}


def test_another_seed_gives_another_schedule() -> None:
    assert make_schedule(1, 1000, POINTS) != make_schedule(2, 1000, POINTS)


@given(seeds)
def test_the_same_seed_gives_the_same_load(seed: int) -> None:
    one, other = (list(islice(make_load(seed, 60.0), 50)) for _ in range(2))

    assert one == other
    assert len({ask.id for ask in one}) == 50
