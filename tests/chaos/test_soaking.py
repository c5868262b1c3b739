"""What the soak says of what it saw: it fails where something grows, and where nothing was seen."""

from tests.chaos.soaking import Held, slopes


def held(per_minute: float, samples: int = 60) -> Held:
    seen = Held()
    seen.samples["front 0", "tasks"] = [(5.0 * n, 20.0 + per_minute * n / 12.0) for n in range(samples)]
    return seen


def wrongs(seen: Held) -> list[str]:
    return [wrong for figure in slopes(seen, 0.0, 300.0, 80.0) for wrong in figure.wrongs]


def test_what_is_flat_is_right() -> None:
    assert wrongs(held(0.0)) == []


def test_a_leak_of_tasks_is_wrong() -> None:
    assert wrongs(held(2.0)) == ["front 0: tasks grew by 9.8"]


def test_too_few_samples_are_wrong() -> None:
    assert wrongs(held(0.0, samples=3)) == ["front 0: tasks: too few samples to tell"]


def test_the_slope_is_told_for_a_minute_and_for_ten_thousand_requests() -> None:
    (figure,) = slopes(held(2.0), 0.0, 300.0, requests_per_s=100.0)

    assert "+2.000 a minute, +3.333 in 10,000 requests" in figure.found
