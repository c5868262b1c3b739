"""A leak is told from noise."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.chaos.slopes import slope_of

MINUTES_OF_SAMPLES = [float(at) for at in range(0, 420, 5)]


def noisy(seed: int, per_s: float, noise: float) -> list[tuple[float, float]]:
    random = Random(seed)
    return [(at, 100.0 + per_s * at + random.gauss(0.0, noise)) for at in MINUTES_OF_SAMPLES]


@given(some.floats(-5.0, 5.0), some.floats(-1e3, 1e3))
def test_a_straight_line_is_found_as_it_is(per_s: float, start: float) -> None:
    slope = slope_of([(at, start + per_s * at) for at in MINUTES_OF_SAMPLES])

    assert slope.per_s == pytest.approx(per_s, abs=1e-6)
    assert slope.growth == pytest.approx(per_s * slope.span_s, abs=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_a_leak_in_noise_rises_and_noise_alone_does_not(seed: int) -> None:
    assert slope_of(noisy(seed, per_s=0.05, noise=3.0)).rises(most=5.0)
    assert not slope_of(noisy(seed, per_s=0.0, noise=3.0)).rises(most=5.0)


def test_a_rise_that_is_sure_but_small_is_let_pass() -> None:
    assert not slope_of(noisy(1, per_s=0.01, noise=0.1)).rises(most=5.0)
