"""What has to hold of a run's figures; the demo's exit status follows from it."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sandbox.demo.savings import Figures

LEAST_FREE_PERCENT: Final = 99.0
"""So many of the repeats at least must cost no call."""


@dataclass(frozen=True)
class Expectation:
    """One thing that has to hold.

    Attributes:
        what: As a sentence.
        holds: Whether it does.
        found: The figures that decided it.
    """

    what: str
    holds: bool
    found: str


def of_simulated(figures: Figures) -> tuple[Expectation, ...]:
    """With a simulated provider everything can be checked against its ledger."""
    expected = f"{figures.distinct} distinct + {figures.by_wish} by wish + {figures.off} with off"
    return (
        *_of_any(figures),
        Expectation(
            "each answer is the one to its question",
            figures.wrong == 0,
            f"{figures.wrong} of {figures.answered} are wrong",
        ),
        Expectation(
            "the provider was called once for each distinct content, and where a request wished it",
            figures.calls == figures.expected_calls,
            f"{figures.calls} calls; {expected}",
        ),
        Expectation(
            "two equal requests are never with the provider at once",
            figures.twin_calls == 0,
            f"{figures.twin_calls} times",
        ),
        Expectation(
            "the replies that were paid for are the calls in the provider's ledger",
            figures.paid == figures.calls,
            f"{figures.paid} replies, {figures.calls} calls",
        ),
        Expectation(
            "the costs that the replies name are the provider's bill",
            _same(figures.replies_cost_usd, figures.cost_usd),
            f"{_usd(figures.replies_cost_usd)}, {_usd(figures.cost_usd)}",
        ),
        Expectation(
            "the provider refused no call: its limits were kept",
            figures.failed_calls == 0,
            f"{figures.failed_calls} refused or failed",
        ),
    )


def of_real(figures: Figures, most_calls: int, most_usd: float) -> tuple[Expectation, ...]:
    """With a real provider only the replies speak, and the ceiling has to be kept."""
    calls = figures.calls + figures.failed_calls
    return (
        *_of_any(figures),
        Expectation(
            f"the ceiling of {most_calls} calls was kept",
            calls <= most_calls,
            f"{calls} calls, failed ones too",
        ),
        Expectation(
            f"the ceiling of {most_usd:.2f} USD was kept",
            figures.cost_usd is not None and figures.cost_usd <= most_usd,
            _usd(figures.cost_usd),
        ),
    )


def _of_any(figures: Figures) -> tuple[Expectation, ...]:
    return (
        Expectation(
            "every request was answered",
            figures.answered == figures.requests,
            f"{figures.answered} of {figures.requests}{_reasons(figures.errors)}",
        ),
        Expectation(
            f"at least {LEAST_FREE_PERCENT:g} % of the repeats cost no call",
            figures.free_repeats_percent >= LEAST_FREE_PERCENT,
            f"{figures.free_repeats} of {figures.repeats}, {figures.free_repeats_percent:.2f} %",
        ),
        Expectation(
            "each answer came from a call, from the cache or from a shared call",
            figures.paid + figures.hits + figures.joins == figures.answered,
            f"{figures.paid} + {figures.hits} + {figures.joins} of {figures.answered}",
        ),
    )


def _reasons(errors: Sequence[str]) -> str:
    return "".join(_lines(errors))


def _lines(errors: Sequence[str]) -> Iterator[str]:
    for text, count in Counter(errors).most_common(3):
        yield f"; {count} times {text}"


def _same(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return False
    return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12)


def _usd(amount: float | None) -> str:
    return "price not known" if amount is None else f"{amount:.6f} USD"
