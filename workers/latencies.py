"""How long a pool's calls last."""

import math
from collections import defaultdict, deque
from typing import Final

_LAST: Final = 200
_AT_LEAST: Final = 20
"""With fewer, nobody knows what is long."""
_MOST: Final = 0.95


class Latencies:
    """The durations of the last calls of each model, as far as this pool has made them."""

    def __init__(self) -> None:
        self._seconds = defaultdict[str, deque[float]](lambda: deque(maxlen=_LAST))

    def note(self, model: str, seconds: float) -> None:
        """A call was answered; or it was cut, and lasted at least so long."""
        self._seconds[model].append(seconds)

    def most_s(self, model: str) -> float | None:
        """What 95 of 100 calls do not exceed, by rank; None: too few were made."""
        seen = sorted(self._seconds.get(model, ()))
        return seen[math.ceil(_MOST * len(seen)) - 1] if len(seen) >= _AT_LEAST else None
