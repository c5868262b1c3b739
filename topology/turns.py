"""Whose turn it is: shares among those who have something waiting, starving nobody."""

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)
_FORGOTTEN_BEYOND: Final = 1000

ROUNDS_AHEAD: Final = 8
"""By so many rounds may one go before its turn whose deadline presses."""
_LAST_PART: Final = 0.2
_LAST_S: Final = 60.0


def presses_at(queued_at: float, deadline: float) -> float:
    """When a deadline begins to press: for the last fifth of the time that there was, or the last minute.

    Whose deadline presses goes before its turn, the earliest first, by `ROUNDS_AHEAD` rounds at most. Which
    requests can all be in time is a matroid where each takes one permit: to prefer some agent's costs
    nothing, so long as those chosen go by their deadlines (Lawler, "Combinatorial Optimization", 1976, on
    scheduling unit-time jobs). So agents in turn say who is served, and deadlines when.

    Args:
        queued_at: Since when it waits, epoch seconds.
        deadline: Epoch seconds.
    """
    return deadline - min(_LAST_S, _LAST_PART * (deadline - queued_at))


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


class FairTurns(Generic[T]):
    """Shares among any number, who come and go, by start-time fair queueing.

    Goyal, Vin and Cheng, "Start-time fair queueing" (1996): everybody's next turn has a start tag, the
    end of his last or, where he comes later, what the others have reached by then; the smallest goes first.
    So whoever waits is passed over for no more than one turn of each of the others, and nobody saves them up.
    """

    def __init__(self) -> None:
        self._reached = 0.0
        self._ends: dict[T, float] = {}

    def first(self, waiting: Iterable[T]) -> int | None:
        """The place in `waiting` of whoever goes next; among equals the first. None: nobody waits."""
        starts = [self._start(name) for name in waiting]
        return starts.index(min(starts)) if starts else None

    def take(self, name: T, share: float = 1.0) -> float:
        """It is his turn; twice the share, twice the turns. Returns its tag, for `use` or `give_back`."""
        start = self._start(name)
        self._ends[name] = start + 1 / share
        return start

    def use(self, start: float) -> None:
        """The turn of this tag was used: who comes now is not served before those of earlier ones."""
        self._reached = max(self._reached, start)
        if len(self._ends) > _FORGOTTEN_BEYOND:
            self._ends = {other: end for other, end in self._ends.items() if end > self._reached}

    def give_back(self, name: T, share: float = 1.0) -> None:
        """He could not use it, and has it again."""
        if name in self._ends:
            self._ends[name] -= 1 / share

    def _start(self, name: T) -> float:
        return max(self._reached, self._ends.get(name, 0.0))
