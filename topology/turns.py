"""Whose turn it is: shares among those who have something waiting, starving nobody."""

from collections.abc import Collection, Hashable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class WeightedTurns(Generic[T]):
    """Smooth weighted round robin, as nginx does it among upstreams.

    Over any run of turns in which all were ready, each gets its share, evenly spread. Who was not ready
    neither loses nor saves up turns.

    Args:
        weights: The share of each; only their ratios matter.
    """

    def __init__(self, weights: Mapping[T, float]) -> None:
        self._weights = dict(weights)
        self._credit: dict[T, float] = dict.fromkeys(self._weights, 0.0)

    def next(self, ready: Collection[T]) -> T | None:
        """Who goes next among those that are ready; None when nobody is."""
        if not ready:
            return None
        for name in ready:
            self._credit[name] += self._weights[name]
        chosen = max(ready, key=lambda name: self._credit[name])
        self._credit[chosen] -= sum(self._weights[name] for name in ready)
        return chosen
