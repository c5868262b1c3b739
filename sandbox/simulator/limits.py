"""Rate limits judged the plain way: keep every charge, add them up at each call.

Deliberately naive. The limiter under test is clever; this one is to be obviously right.
"""

from collections import deque
from dataclasses import dataclass
from math import floor
from typing import Protocol

from sandbox.simulator.ledger import LimitUsage
from sandbox.simulator.settings import Limit, Settings


@dataclass(frozen=True, slots=True)
class Standing:
    """A limit as a response's headers state it."""

    limit: Limit
    capacity: int
    used: float
    reset_s: float
    """Seconds until nothing is used, if no call comes."""

    @property
    def remaining(self) -> int:
        """What is left now, rounded down."""
        return max(0, floor(self.capacity - self.used + 1e-9))


@dataclass(frozen=True, slots=True)
class Excess:
    """Why a call is refused: the limit that asks for the longest wait."""

    standing: Standing
    cost: int
    wait_s: float


class _Meter(Protocol):
    limit: Limit
    max_used: float

    @property
    def capacity(self) -> int: ...
    def used(self, now: float) -> float: ...
    def wait_s(self, cost: int, now: float) -> float: ...
    def take(self, cost: int, now: float) -> None: ...
    def reset_s(self, now: float) -> float: ...


class Limits:
    """All limits of a provider, with what has been used of each.

    Args:
        settings: Whose `limits` and `accounts` apply; `settings` may be replaced at any time, and a
            limit whose amount changes keeps its history.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._meters: dict[str, _Meter] = {}

    def clear(self) -> None:
        """Forget all use."""
        self._meters.clear()

    def excess(self, account: str, model: str, tokens: int, now: float) -> Excess | None:
        """What forbids a call of `tokens` at `now` (epoch seconds), or `None`. Charges nothing."""
        found: list[Excess] = []
        for meter in self._of(account, model):
            cost = _cost(meter.limit, tokens)
            wait_s = meter.wait_s(cost, now)
            if wait_s > 0.0:
                found.append(Excess(_standing(meter, now), cost, wait_s))
        return max(found, key=lambda excess: excess.wait_s, default=None)

    def charge(self, account: str, model: str, tokens: int, now: float) -> None:
        """Charge one request and `tokens` tokens to every limit that the call is under."""
        for meter in self._of(account, model):
            meter.take(_cost(meter.limit, tokens), now)
            meter.max_used = max(meter.max_used, meter.used(now))

    def standings(self, account: str, model: str, now: float) -> list[Standing]:
        """For requests and for tokens, the limit with the smallest share left."""
        tightest: dict[str, Standing] = {}
        for meter in self._of(account, model):
            standing = _standing(meter, now)
            known = tightest.get(meter.limit.kind)
            if known is None or _share_left(standing) < _share_left(known):
                tightest[meter.limit.kind] = standing
        return list(tightest.values())

    def usage(self) -> list[LimitUsage]:
        """The most that was ever used of each limit."""
        return [
            LimitUsage(
                name=name,
                kind=meter.limit.kind,
                counting=meter.limit.counting,
                amount=meter.limit.amount,
                window_s=meter.limit.window_s,
                capacity=meter.capacity,
                max_used=meter.max_used,
            )
            for name, meter in self._meters.items()
        ]

    def _of(self, account: str, model: str) -> list[_Meter]:
        meters = []
        for place, limit in enumerate(self.settings.limits):
            owner = {"provider": "all", "account": f"account {account}", "model": f"model {model}"}
            meters.append(self._meter(f"{place}: {owner[limit.scope]}", limit))
        own = next((one.limits for one in self.settings.accounts if one.name == account), ())
        for place, limit in enumerate(own):
            part = f", model {model}" if limit.scope == "model" else ""
            meters.append(self._meter(f"account {account} {place}{part}", limit))
        return meters

    def _meter(self, owner: str, limit: Limit) -> _Meter:
        name = f"{owner}: {limit.kind} in {limit.window_s:g} s, {limit.counting}"
        meter = self._meters.get(name)
        if meter is None:
            meter = _Bucket(limit) if limit.counting == "bucket" else _Log(limit)
            self._meters[name] = meter
        meter.limit = limit
        return meter


class _Log:
    """Charges in a sliding or a calendar-aligned window: every charge, with when it was made."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.max_used = 0.0
        self._times: deque[float] = deque()
        self._costs: deque[int] = deque()

    @property
    def capacity(self) -> int:
        return self.limit.amount

    def used(self, now: float) -> float:
        while self._times and self._expiry(self._times[0]) <= now:
            self._times.popleft()
            self._costs.popleft()
        return sum(self._costs)

    def wait_s(self, cost: int, now: float) -> float:
        excess = self.used(now) + cost - self.capacity
        if excess <= 0:
            return 0.0
        for time, spent in zip(self._times, self._costs, strict=True):
            excess -= spent
            if excess <= 0:
                return self._expiry(time) - now
        return self.limit.window_s  # larger than the limit itself: no wait helps

    def take(self, cost: int, now: float) -> None:
        self._times.append(now)
        self._costs.append(cost)

    def reset_s(self, now: float) -> float:
        return max(0.0, self._expiry(self._times[-1]) - now) if self._times else 0.0

    def _expiry(self, time: float) -> float:
        window_s = self.limit.window_s
        if self.limit.counting == "fixed":
            return (time // window_s + 1) * window_s
        return time + window_s


class _Bucket:
    """A bucket that starts full and refills evenly."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.max_used = 0.0
        self._spent = 0.0
        self._at = 0.0

    @property
    def capacity(self) -> int:
        return self.limit.burst or self.limit.amount

    @property
    def _per_second(self) -> float:
        return self.limit.amount / self.limit.window_s

    def used(self, now: float) -> float:
        return max(0.0, self._spent - (now - self._at) * self._per_second)

    def wait_s(self, cost: int, now: float) -> float:
        if cost > self.capacity:
            return self.limit.window_s
        excess = self.used(now) + cost - self.capacity
        return excess / self._per_second if excess > 1e-9 else 0.0

    def take(self, cost: int, now: float) -> None:
        self._spent = self.used(now) + cost
        self._at = now

    def reset_s(self, now: float) -> float:
        return self.used(now) / self._per_second


def _cost(limit: Limit, tokens: int) -> int:
    return 1 if limit.kind == "requests" else tokens


def _standing(meter: _Meter, now: float) -> Standing:
    return Standing(meter.limit, meter.capacity, meter.used(now), meter.reset_s(now))


def _share_left(standing: Standing) -> float:
    return standing.remaining / standing.capacity
