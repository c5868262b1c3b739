"""How calls went, minute by minute: how many failed, and how long the others took."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

Place = tuple[str, str]
"""A provider and a model."""
Cell = tuple[int, str, str, str]
"""A minute since the epoch, a provider, a model, and `failed` or the number of a bucket of seconds."""

_MINUTE_S: Final = 60.0
KEPT_MINUTES: Final = 65 + 60
"""The longest window, what was normal before it, and the minutes that have begun."""
_NORMAL_MINUTES: Final = 60
_FAILED: Final = "failed"
_PER_DOUBLING: Final = 8
"""Buckets of seconds: each ends 9 % above its beginning, so that a percentile is right to 5 %."""
_LEAST_S: Final = 0.001


@dataclass
class Calls:
    """The calls of one model in a span of time."""

    failed: int = 0
    answered: Counter[int] = field(default_factory=Counter)
    """Bucket of seconds to how many."""

    @property
    def count(self) -> int:
        """All of them."""
        return self.failed + self.answered.total()

    @property
    def error_rate(self) -> float:
        """The share that failed; 0 where there were none."""
        return self.failed / self.count if self.count else 0.0

    def percentile(self, share: float) -> float | None:
        """The seconds within which this share of the answers came; None without any."""
        wanted = share * self.answered.total()
        reached = 0
        for bucket in sorted(self.answered):
            reached += self.answered[bucket]
            if reached >= wanted > 0:
                return float(2 ** (bucket / _PER_DOUBLING))
        return None


class CallCounts:
    """Counts of the last two hours. What was counted since it was last taken is written elsewhere, too."""

    def __init__(self) -> None:
        self._minutes: defaultdict[int, Counter[tuple[str, str, str]]] = defaultdict(Counter)
        self._new: Counter[Cell] = Counter()
        self._normal: defaultdict[Place, Calls] = defaultdict(Calls)
        self._normal_minutes = range(0)

    def restore(self, cells: Iterable[tuple[Cell, int]]) -> None:
        """Goes on from what was written."""
        for (minute, *cell), count in cells:
            self._minutes[minute][(cell[0], cell[1], cell[2])] += count

    def answered(self, at: float, place: Place, seconds: float) -> None:
        """A call got its answer."""
        bucket = round(_PER_DOUBLING * math.log2(max(seconds, _LEAST_S)))
        self._add(at, place, str(bucket))

    def failed(self, at: float, place: Place) -> None:
        """A call failed, and not by its caller's fault."""
        self._add(at, place, _FAILED)

    def take_new(self) -> Mapping[Cell, int]:
        """What was counted since this was called last."""
        new, self._new = self._new, Counter()
        return new

    def put_back(self, cells: Iterable[tuple[Cell, int]]) -> None:
        """What was taken is not written."""
        self._new.update(dict(cells))

    def within(self, now: float, window_s: float) -> Mapping[Place, Calls]:
        """The calls of the minutes that this window touches, by model."""
        found: defaultdict[Place, Calls] = defaultdict(Calls)
        for minute in range(minute_of(now - window_s), minute_of(now) + 1):
            _add_up(found, self._minutes.get(minute, {}))
        return found

    def before(self, now: float, window_s: float) -> Mapping[Place, Calls]:
        """The calls of the hour before that window: what is normal.

        The sum moves on with the time: to add it up anew would hold up what else runs in this process.
        """
        first = minute_of(now - window_s)
        before, self._normal_minutes = self._normal_minutes, range(first - _NORMAL_MINUTES, first)
        for minute in self._normal_minutes:
            if minute not in before:
                _add_up(self._normal, self._minutes.get(minute, {}))
        for minute in before:
            if minute not in self._normal_minutes:
                _add_up(self._normal, self._minutes.get(minute, {}), -1)
        return self._normal

    def forget(self, now: float) -> None:
        """Lets go of what is too old to matter."""
        for minute in [m for m in self._minutes if m < minute_of(now) - KEPT_MINUTES]:
            del self._minutes[minute]

    def _add(self, at: float, place: Place, what: str) -> None:
        cell = (*place, what)
        minute = minute_of(at)
        self._minutes[minute][cell] += 1
        self._new[(minute, *cell)] += 1
        if minute in self._normal_minutes:
            _add_up(self._normal, {cell: 1})


def _add_up(
    found: defaultdict[Place, Calls], cells: Mapping[tuple[str, str, str], int], times: int = 1
) -> None:
    for (provider, model, what), count in cells.items():
        calls = found[(provider, model)]
        if what == _FAILED:
            calls.failed += times * count
        else:
            calls.answered[int(what)] += times * count


def minute_of(instant: float) -> int:
    """Minutes since the epoch."""
    return math.floor(instant / _MINUTE_S)
