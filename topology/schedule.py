"""When the next permits are granted, as far as the limits alone decide it.

The rules are those of `broker/scripts/limits.lua`, followed into the future: whatever may start does, and
every call takes what calls have taken on average.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Final, Protocol

_LITTLE: Final = 1e-6


class Meter(Protocol):
    """One limit on its way through time. Instants are asked and taken in their order."""

    def next_at(self, at: float) -> float:
        """The first instant, not before `at`, at which one more call is granted; inf: nobody knows."""
        ...

    def take(self, at: float) -> None:
        """A call is granted at this instant."""
        ...


class Sliding:
    """No window of `span_s` seconds, wherever it begins, holds more than `amount`.

    Args:
        log: Who took how much: instants and costs, the oldest first.
        cost: Of each call to come, in the end.
        reserves: What each takes until it ends; None: no more than that.
        lasts_s: For how long it takes that.
    """

    def __init__(
        self,
        amount: float,
        span_s: float,
        log: Iterable[tuple[float, float]] = (),
        cost: float = 1,
        *,
        reserves: float | None = None,
        lasts_s: float = 0,
    ) -> None:
        self._amount, self._span_s, self._cost = amount, span_s, min(cost, amount)
        self._back = max(0.0, min(reserves or 0.0, amount) - self._cost)
        self._lasts_s = lasts_s
        self._log = deque(log)
        self._running: deque[float] = deque()
        self._used = sum(cost for _, cost in self._log)

    def next_at(self, at: float) -> float:
        while self._running and self._running[0] <= at:
            self._running.popleft()
            self._used -= self._back
        while self._log and self._log[0][0] + self._span_s <= at:
            self._used -= self._log.popleft()[1]
        excess = self._used + self._cost + self._back - self._amount
        returns = heapq.merge(
            ((since + self._span_s, cost) for since, cost in self._log),
            ((ends_at, self._back) for ends_at in self._running),
        )
        for instant, cost in returns:
            if excess <= _LITTLE:
                break
            at = instant
            excess -= cost
        return at

    def take(self, at: float) -> None:
        self._log.append((at, self._cost))
        self._used += self._cost
        if self._back > 0:
            self._running.append(at + self._lasts_s)
            self._used += self._back


class Fixed:
    """Windows of `window_s`, one after the other, each with its `amount`.

    Args:
        starts: When the window of now began; `used` is what has gone of it.
        at_once: The share of a window that may be used at once; the rest comes as time passes.
    """

    def __init__(
        self,
        amount: float,
        window_s: float,
        starts: float,
        used: float = 0,
        cost: float = 1,
        *,
        at_once: float = 1,
        slack_s: float = 0,
    ) -> None:
        self._amount, self._window_s, self._cost = amount, window_s, min(cost, amount)
        self._starts, self._used = starts, used
        self._at_once, self._slack_s = at_once, slack_s

    def next_at(self, at: float) -> float:
        self._roll(at)
        if self._used + self._cost > self._amount + _LITTLE:
            at = self._starts + self._window_s + self._slack_s
            self._roll(at)
        return max(at, self._paced())

    def take(self, at: float) -> None:
        self._roll(at)
        self._used += self._cost

    def _roll(self, at: float) -> None:
        if at >= self._starts + self._window_s:
            self._starts += math.floor((at - self._starts) / self._window_s) * self._window_s
            self._used = 0.0

    def _paced(self) -> float:
        if self._at_once == 1:
            return self._starts
        share = (self._used + self._cost) / self._amount
        return self._starts + (share - self._at_once) / (1 - self._at_once) * self._window_s


class Bucket:
    """It holds `burst`, and `amount` flows in within `window_s`, as in the generic cell rate algorithm.

    Args:
        full_at: The instant at which it will be full.
    """

    def __init__(
        self,
        amount: float,
        window_s: float,
        burst: float,
        full_at: float = 0,
        cost: float = 1,
        *,
        slack_s: float = 0,
    ) -> None:
        per_unit_s = window_s / amount
        self._cost_s, self._holds_s = min(cost, burst) * per_unit_s, burst * per_unit_s
        self._full_at, self._slack_s = full_at, slack_s

    def next_at(self, at: float) -> float:
        return max(at, self._full_at + self._cost_s - self._holds_s)

    def take(self, at: float) -> None:
        self._full_at = max(self._full_at, at + self._slack_s) + self._cost_s


class Lease:
    """At most `allowed` calls at once, of `takes_s` seconds each; None: nobody knows how long they take.

    Args:
        held: How many are in flight at `now`; they are taken to have begun evenly spread.
    """

    def __init__(self, allowed: int, takes_s: float | None, held: int = 0, now: float = 0) -> None:
        self._allowed = allowed
        self.takes_s = math.inf if takes_s is None else takes_s
        self._ends = [now + self.takes_s * (n + 1) / (held + 1) for n in range(held)]
        heapq.heapify(self._ends)

    def next_at(self, at: float) -> float:
        while self._ends and self._ends[0] <= at:
            heapq.heappop(self._ends)
        free = self._allowed - len(self._ends)
        return at if free > 0 else max(at, heapq.nsmallest(1 - free, self._ends)[-1])

    def take(self, at: float) -> None:
        heapq.heappush(self._ends, at + self.takes_s)


class Closed:
    """Nothing before this instant."""

    def __init__(self, until: float) -> None:
        self._until = until

    def next_at(self, at: float) -> float:
        return max(at, self._until)

    def take(self, at: float) -> None:
        pass


def grants(now: float, shared: Sequence[Meter], accounts: Sequence[Sequence[Meter]]) -> Iterator[float]:
    """The instants of the next permits, the first first; each from the account that grants soonest.

    Endless, unless nobody knows: then it ends.

    Args:
        now: Nothing is granted before.
        shared: The limits of all of them.
        accounts: The limits of each.
    """
    order = count()
    bounds = [(now, next(order), account) for account in accounts]  # none of them grants before
    heapq.heapify(bounds)
    at = now
    while bounds:
        bound, _, account = heapq.heappop(bounds)
        own_at = _earliest(max(at, bound), account)
        if bounds and own_at > max(at, bounds[0][0]):  # another one may be sooner
            heapq.heappush(bounds, (own_at, next(order), account))
            continue
        at = _earliest(own_at, [*shared, *account])
        if math.isinf(at):
            return
        for meter in (*shared, *account):
            meter.take(at)
        heapq.heappush(bounds, (at, next(order), account))
        yield at


def _earliest(at: float, meters: Sequence[Meter]) -> float:
    """The first instant at which all of them grant."""
    while True:
        latest = max((meter.next_at(at) for meter in meters), default=at)
        if latest <= at or math.isinf(latest):
            return max(at, latest)
        at = latest
