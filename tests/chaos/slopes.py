"""Whether a figure stays flat: its slope by least squares, and whether that is growth or noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

_SURE: Final = 4.0
"""Standard errors between a slope and none: samples of one process are not independent of each other."""


@dataclass(frozen=True)
class Slope:
    """A straight line through the samples.

    Attributes:
        mean: Of the samples.
        per_s: How much it rises in a second.
        error_per_s: The standard error of that.
        span_s: From the first sample to the last.
    """

    mean: float
    per_s: float
    error_per_s: float
    span_s: float

    @property
    def growth(self) -> float:
        """What it rises over the whole span."""
        return self.per_s * self.span_s

    def rises(self, most: float) -> bool:
        """Whether it surely grew, and by more than `most`."""
        return self.growth > most and self.per_s > _SURE * self.error_per_s


def slope_of(samples: Sequence[tuple[float, float]]) -> Slope:
    """The least-squares line through pairs of an instant and a value.

    Args:
        samples: At least three, at different instants; instants in seconds.
    """
    count = len(samples)
    middle = sum(at for at, _ in samples) / count
    mean = sum(value for _, value in samples) / count
    width = sum((at - middle) ** 2 for at, _ in samples)
    per_s = sum((at - middle) * (value - mean) for at, value in samples) / width
    left = sum((value - mean - per_s * (at - middle)) ** 2 for at, value in samples)
    error_per_s = sqrt(left / (count - 2) / width)
    return Slope(mean, per_s, error_per_s, samples[-1][0] - samples[0][0])
