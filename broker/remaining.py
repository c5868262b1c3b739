"""What is left of quotas: of limits that count over an hour or more."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from broker.budgets import Budgets
from broker.flights import Flights
from broker.permits import KEYLESS, Permits
from topology.alerts import About
from topology.fleet import Fleet, Provider
from topology.limits import Limit, Unit, day_offset_s

_QUOTA_S: Final = 3600.0
"""What opens sooner is a matter of pace, and no news."""
_AT_ONCE: Final = 200
"""Redis runs one script at a time, and calls wait for theirs."""


@dataclass(frozen=True)
class Remaining:
    """What is left of one limit.

    Attributes:
        kind: `quota`: a provider's. `budget`: one of our own.
        amount: How much fits into a window, in `unit`.
        left: How much of it may still be spent.
        opens_at: When it is whole again, epoch seconds; None where it opens little by little.
    """

    kind: Literal["quota", "budget"]
    about: About
    unit: Unit
    window_s: float
    amount: float
    left: float
    opens_at: float | None

    @property
    def share(self) -> float:
        """What is left, as a share of the whole: 0 to 1."""
        return self.left / self.amount

    @property
    def is_gone(self) -> bool:
        """Whether what is left makes no call: no request, or less than a two-hundredth of anything else."""
        return self.left < 1 if self.unit == "requests" else self.share < 0.005


@dataclass(frozen=True)
class _Watched:
    kind: Literal["quota", "budget"]
    about: About
    limit: Limit
    offset_s: float
    asked: Mapping[str, Any]


class Quotas:
    """All quotas of a fleet.

    Args:
        flights: Which Redis is asked.
        fleet: The configuration that states them.
    """

    def __init__(self, flights: Flights, fleet: Fleet) -> None:
        self.fleet = fleet
        self._flights = flights
        self._watched = tuple(_watched(fleet, flights.prefix))

    async def remaining(self, now: float) -> list[Remaining]:
        """What is left of each, at the instant `now` of Redis's clock.

        Raises:
            StateAway: Redis cannot be asked.
        """
        found: list[Remaining] = []
        watched = [*self._watched, *_budgets(self.fleet, self._flights.prefix, now)]
        for start in range(0, len(watched), _AT_ONCE):
            some = watched[start : start + _AT_ONCE]
            [uses] = await self._flights.uses([one.asked for one in some])
            found += [_remaining(one, use.left, now) for one, use in zip(some, uses, strict=True)]
        return found


def _watched(fleet: Fleet, prefix: str) -> Iterator[_Watched]:
    """The providers' limits that alerts are about."""
    for provider in fleet.providers.values():
        yield from _quotas(fleet, provider, prefix)


def _budgets(fleet: Fleet, prefix: str, now: float) -> Iterator[_Watched]:
    """The fleet's budgets, and those of agents that are named, in the day and the month of this instant."""
    budgets = Budgets(fleet.budgets, prefix)
    owned: list[tuple[str | None, dict[str, Any]]] = [(None, limit) for limit in budgets.of_fleet(0.0, now)]
    owned += [(agent, limit) for agent in fleet.budgets.agents for limit in budgets.of_agent(agent, 0.0, now)]
    for agent, asked in owned:
        limit = Limit(usd=asked["amount"], window_s=asked["window_s"], counting="fixed")
        yield _Watched("budget", About(agent=agent, limit=limit.name), limit, asked["offset_s"], asked)


def _quotas(fleet: Fleet, provider: Provider, prefix: str) -> Iterator[_Watched]:
    permits = Permits(fleet, provider, prefix, "")
    offset_s = day_offset_s(provider.day_resets_at)
    for limit, scope in _limits_of(provider):
        if limit.window_s >= _QUOTA_S:
            about = About(
                provider=provider.name,
                limit=limit.name,
                **dict(zip(("account", "model"), scope, strict=False)),
            )
            yield _Watched("quota", about, limit, offset_s, permits.limit_of(limit, *scope))


def _limits_of(provider: Provider) -> Iterator[tuple[Limit, tuple[str, ...]]]:
    """Each limit with whose it is: nobody's for the provider's own, an account, an account and a model."""
    yield from ((limit, ()) for limit in provider.limits)
    owners = {account.name: account.limits for account in provider.quota_owners} or {KEYLESS: ()}
    for account, limits in owners.items():
        yield from ((limit, (account,)) for limit in limits)
        for model in provider.models:
            yield from ((limit, (account, model.id)) for limit in model.limits)


def _remaining(watched: _Watched, left: float, now: float) -> Remaining:
    limit = watched.limit
    opens_at = None
    if limit.counting == "fixed":
        window = math.floor((now - watched.offset_s) / limit.window_s)
        opens_at = (window + 1) * limit.window_s + watched.offset_s
    amount = limit.burst or limit.amount if limit.counting == "bucket" else limit.amount
    return Remaining(watched.kind, watched.about, limit.unit, limit.window_s, amount, left, opens_at)
