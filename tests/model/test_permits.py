"""The limits, against the provider's own plain log.

Calls that arrive whenever they may are never refused, and nearly all of what is allowed is used.
"""

import random
from collections.abc import Callable
from typing import Any, Final

import limits
import pytest
import token_bucket
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.scripting import pack
from sandbox.simulator.limits import Limits
from sandbox.simulator.settings import Limit as ProvidersLimit
from sandbox.simulator.settings import Settings
from tests.model.lua import LuaScripts, sources
from topology.limits import Limit

_WINDOWS: Final = 4
_STARTS: Final = 1_000_000.0
_SCRIPTS: Final = LuaScripts(sources())


def as_claimed(limit: Limit, cost: float) -> dict[str, Any]:
    return {
        "kind": limit.counting, "key": "rate", "amount": limit.amount, "window_s": limit.window_s,
        "slack_s": limit.slack_s, "offset_s": 0.0, "burst": limit.burst, "unit": limit.unit, "cost": cost,
        "name": "rate",
    }  # fmt: skip


def claim(number: int, limit: Limit, cost: float, now: float) -> float | None:
    """None when it is granted, else the instant to come back."""
    account = {"name": "main", "limits": [], "keys": [{"closed": []}], "closed": []}
    arguments = {
        "key": f"a/{number}", "waiter": pack({"deadline": now + 1e6}), "deadline": now + 1e6, "worker": "w",
        "token": f"t{number}", "lease_s": 15.0, "max_spends": 2, "call": pack({}), "closed": [],
        "permit_key": f"permit:{number}", "paused": [], "accounts": [account], "used_key": "used",
        "rotation": "least_used", "notes_key": "", "rank": 0, "shares": [1.0], "seat": "w", "budgets": [],
        "own_budgets": [], "lines": [], "retries": {},
        "limits": [as_claimed(limit, cost)],
    }  # fmt: skip
    _SCRIPTS.now = now
    answer = _SCRIPTS.evaluate("claim", f"f{number}", pack(arguments))
    _SCRIPTS.frozen = tuple(entry for entry in _SCRIPTS.frozen if entry[0].startswith("rate"))
    return None if answer[0] == b"run" else float(answer[1])


def microseconds(instant: float) -> float:
    """As Redis tells the time; the scripts take what is less than one apart for the same instant."""
    return round(instant, 6)


def calls_under_load(limit: Limit, costs: list[int], draws: random.Random) -> list[tuple[float, int]]:
    """When each call arrives at the provider, and its cost; there is always one that waits."""
    _SCRIPTS.frozen = ()
    now, arrivals = _STARTS, list[tuple[float, int]]()
    while now < _STARTS + _WINDOWS * limit.window_s:
        cost = draws.choice(costs)
        while (again := claim(len(arrivals), limit, cost, now)) is not None:
            assert again > now
            # Not everybody was told to wait: others ask in between.
            now = again if draws.random() < 0.5 else microseconds(now + draws.random() * (again - now))
        arrivals.append((now + draws.choice([0.0, limit.slack_s]), cost))
    return sorted(arrivals)


def refused(limit: Limit, arrivals: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Those that the provider would answer with a 429."""
    burst = None if limit.burst is None else int(limit.burst)
    theirs = ProvidersLimit(
        tokens=int(limit.amount), window_s=limit.window_s, counting=limit.counting, burst=burst
    )
    log, wrong = Limits(Settings(limits=(theirs,))), []
    for at, cost in arrivals:
        if log.excess("a", "m", cost, at):
            wrong.append((at, cost))
        else:
            log.charge("a", "m", cost, at)
    return wrong


LIMITS = {
    "sliding": Limit(tokens=120, window_s=60),
    "fixed": Limit(tokens=120, window_s=60, counting="fixed"),
    "bucket": Limit(tokens=120, window_s=60, counting="bucket", burst=30),
    "a short window": Limit(tokens=20, window_s=10),
    "a day": Limit(tokens=50, window_s=86400, counting="fixed"),
}


@pytest.mark.parametrize("kind", LIMITS)
@given(seed=st.integers(0, 10**6), costs=st.lists(st.integers(1, 6), min_size=1, max_size=3))
@settings(max_examples=12, deadline=None)
def test_no_call_is_refused_whenever_it_arrives(kind: str, seed: int, costs: list[int]) -> None:
    limit = LIMITS[kind]

    arrivals = calls_under_load(limit, costs, random.Random(seed))

    assert refused(limit, arrivals) == []


class Clock:
    """In place of the libraries' module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    monotonic = time


def taken_by_a_library(limit: Limit, clock: Clock) -> Callable[[float, int], bool]:
    """Whether a limiter that is not ours lets a call of this cost pass at this instant."""
    if limit.counting == "bucket":
        buckets = token_bucket.Limiter(
            limit.amount / limit.window_s, int(limit.burst or limit.amount), token_bucket.MemoryStorage()
        )
        return lambda _, cost: buckets.consume("a", cost)
    item = limits.RateLimitItemPerSecond(int(limit.amount), int(limit.window_s))
    storage = limits.storage.MemoryStorage()
    if limit.counting == "sliding":
        sliding = limits.strategies.MovingWindowRateLimiter(storage)
        return lambda _, cost: sliding.hit(item, "a", cost=cost)
    fixed = limits.strategies.FixedWindowRateLimiter(storage)
    return lambda at, cost: fixed.hit(item, str(at // limit.window_s), cost=cost)


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("seed", range(3))
def test_a_limiter_that_is_not_ours_lets_every_call_pass_and_not_one_more(
    monkeypatch: pytest.MonkeyPatch, kind: str, seed: int
) -> None:
    limit, clock = LIMITS[kind], Clock()
    for module in ("limits.storage.memory", "token_bucket.storage"):
        monkeypatch.setattr(f"{module}.time", clock)
    takes = taken_by_a_library(limit, clock)
    arrivals = calls_under_load(limit, [1, 2, 5], random.Random(seed))

    for at, cost in arrivals:
        clock.now = at * (1 + 1e-9)  # a call of exactly one window ago still counts there
        assert takes(at, cost)
    assert not takes(clock.now, int(limit.amount))


@pytest.mark.parametrize("kind", LIMITS)
def test_nearly_all_of_a_limit_is_used(kind: str) -> None:
    limit = LIMITS[kind]
    arrivals = calls_under_load(limit, [1], random.Random(7))

    used = [0.0] * _WINDOWS
    for at, cost in arrivals:
        window = int((at - _STARTS) // limit.window_s)
        if window < _WINDOWS:
            used[window] += cost

    assert min(used[1:]) >= 0.97 * limit.amount


def test_without_slack_late_arrivals_would_be_refused() -> None:
    limit = LIMITS["sliding"]
    draws, rushed = random.Random(1), limit.model_copy(update={"window_s": limit.window_s - limit.slack_s})

    arrivals = calls_under_load(rushed, [1], draws)

    assert refused(limit, arrivals)


def test_a_sliding_window_ends_when_a_late_call_has_left_it_too() -> None:
    limit = Limit(tokens=1, window_s=60)
    _SCRIPTS.frozen = ()

    assert claim(0, limit, 1, _STARTS) is None
    assert claim(1, limit, 1, _STARTS + 60.1) == pytest.approx(_STARTS + 60.6)
    assert claim(2, limit, 1, _STARTS + 60.7) is None
