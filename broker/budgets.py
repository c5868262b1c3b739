"""Budgets, as limits that a claim must pass: what the fleet and each agent may spend in a day or a month."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from topology.limits import day_offset_s
from topology.sections import Budget, BudgetsSection

PREFIX: Final = "budget of "
"""How the name of a budget begins where it refuses."""
_DAY_S: Final = 86400.0
_SLACK_S: Final = 5.0
"""Near midnight a call counts in both days: whoever reads the provider's books may have another clock."""
_ANYTHING: Final = 1e-5
"""Something must be left: what a call will cost is not known at the entrance."""

Limits = tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Budgets:
    """Builds them from the configuration.

    Args:
        section: The configuration's.
        prefix: What all keys begin with, as `Flights.prefix`.
    """

    section: BudgetsSection
    prefix: str

    def of_fleet(self, cost_usd: float, now: float) -> Limits:
        """What a call of any agent must pass, at this cost and at this instant (epoch seconds)."""
        return tuple(self._limits("the fleet", "fleet", self.section, cost_usd, now))

    def of_agent(self, agent: str, cost_usd: float, now: float) -> Limits:
        """What a call of this agent must pass besides."""
        return tuple(self._limits(f"agent {agent}", f"agent:{agent}", self.section.of(agent), cost_usd, now))

    def at_entrance(self, agent: str, now: float) -> Limits:
        """All of them, to ask whether anything is left."""
        own = ({**limit, "own": True} for limit in self.of_agent(agent, _ANYTHING, now))
        return (*own, *self.of_fleet(_ANYTHING, now))

    def _limits(
        self, whose: str, scope: str, budget: Budget, cost_usd: float, now: float
    ) -> Iterator[dict[str, Any]]:
        if budget.usd_per_day is not None:
            offset_s = day_offset_s(self.section.day_resets_at)
            name = f"{PREFIX}{whose}, {budget.usd_per_day:g} USD a day"
            yield self._limit(f"{scope}:day", name, budget.usd_per_day, cost_usd, _DAY_S, offset_s)
        if budget.usd_per_month is not None:
            begins, length_s = _month_of(now)
            name = f"{PREFIX}{whose}, {budget.usd_per_month:g} USD a month"
            yield self._limit(f"{scope}:month", name, budget.usd_per_month, cost_usd, length_s, begins)

    def _limit(
        self, scope: str, name: str, amount: float, cost_usd: float, window_s: float, offset_s: float
    ) -> dict[str, Any]:
        """As `limits.lua` describes a fixed window; months differ in length, so each has a key of its own."""
        month = f":{offset_s:.0f}" if window_s != _DAY_S else ""
        return {
            "kind": "fixed",
            "key": f"{self.prefix}budget:{scope}{month}",
            "amount": amount,
            "window_s": window_s,
            "slack_s": _SLACK_S,
            "offset_s": offset_s,
            "unit": "usd",
            "cost": cost_usd,
            "name": name,
        }


def is_budget(limit: str) -> bool:
    """Whether what refused is a budget, by its name."""
    return limit.startswith(PREFIX)


def _month_of(now: float) -> tuple[float, float]:
    """When this calendar month began, in UTC, and how many seconds it has."""
    begins = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    ends = (begins + timedelta(days=32)).replace(day=1)
    return begins.timestamp(), (ends - begins).total_seconds()
