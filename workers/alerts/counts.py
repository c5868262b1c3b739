"""How calls went, minute by minute: how many failed, and how long the others took."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
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
            if reached >= wanted:
                return float(2 ** (bucket / _PER_DOUBLING))
        return None


class CallCounts:
    """Counts of the last two hours. What was counted since it was last taken is written elsewhere, too."""

    def __init__(self) -> None:
        self._minutes: defaultdict[int, Counter[tuple[str, str, str]]] = defaultdict(Counter)
        self._new: Counter[Cell] = Counter()
        self._normal: tuple[int, dict[Place, Calls]] = (0, {})

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

    def within(self, now: float, window_s: float) -> dict[Place, Calls]:
        """The calls of the minutes that this window touches, by model."""
        last = minute_of(now)
        return self._sum(range(minute_of(now - window_s), last + 1))

    def before(self, now: float, window_s: float) -> dict[Place, Calls]:
        """The calls of the hour before that window: what is normal. Added up once a minute."""
        first = minute_of(now - window_s)
        if self._normal[0] != first:
            self._normal = first, self._sum(range(first - _NORMAL_MINUTES, first))
        return self._normal[1]

    def forget(self, now: float) -> None:
        """Lets go of what is too old to matter."""
        for minute in [m for m in self._minutes if m < minute_of(now) - KEPT_MINUTES]:
            del self._minutes[minute]

    def _add(self, at: float, place: Place, what: str) -> None:
        cell = (*place, what)
        self._minutes[minute_of(at)][cell] += 1
        self._new[(minute_of(at), *cell)] += 1

    def _sum(self, minutes: range) -> dict[Place, Calls]:
        found: defaultdict[Place, Calls] = defaultdict(Calls)
        for provider, model, what, count in self._cells(minutes):
            calls = found[(provider, model)]
            if what == _FAILED:
                calls.failed += count
            else:
                calls.answered[int(what)] += count
        return dict(found)

    def _cells(self, minutes: range) -> Iterator[tuple[str, str, str, int]]:
        for minute in minutes:
            for cell, count in self._minutes.get(minute, {}).items():
                yield *cell, count


def minute_of(instant: float) -> int:
    """Minutes since the epoch."""
    return math.floor(instant / _MINUTE_S)
