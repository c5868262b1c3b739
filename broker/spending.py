"""What is spent of budgets: the fleet's, those of named agents, and of all who have spent anything."""

from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from broker.away import asking
from broker.budgets import Budgets
from broker.flights import Flights
from topology.fleet import Fleet

_AT_ONCE: Final = 1000


@dataclass(frozen=True)
class Spending:
    """One budget.

    Attributes:
        agent: Whose it is; None: the whole fleet's.
        window: `day` or `month`.
        usd: How much may be spent.
        spent_usd: By calls that have ended, and what running ones are expected to cost.
        resets_at: When it begins anew, epoch seconds.
    """

    agent: str | None
    window: str
    usd: float
    spent_usd: float
    resets_at: float


async def spendings(redis: Redis, fleet: Fleet, prefix: str = "") -> list[Spending]:
    """All budgets of a fleet, the fleet's own first.

    Args:
        redis: Connected with `decode_responses=False`; not closed here.
        fleet: The configuration.
        prefix: Put before every key of Redis, for fleets that share one.

    Raises:
        StateAway: Redis cannot be asked.
    """
    flights = Flights(redis, prefix)
    budgets, now = Budgets(fleet.budgets, flights.prefix), await flights.now()
    begins = f"{flights.prefix}budget:agent:"
    agents = set(fleet.budgets.agents)
    with asking():
        async for key in redis.scan_iter(f"{begins}*", count=_AT_ONCE):
            agents.add(key.decode().removeprefix(begins).partition(":")[0])
    owned: list[tuple[str | None, dict[str, Any]]] = [(None, limit) for limit in budgets.of_fleet(0.0, now)]
    owned += [(agent, limit) for agent in sorted(agents) for limit in budgets.of_agent(agent, 0.0, now)]
    [uses] = await flights.uses([limit for _, limit in owned])
    return [
        Spending(
            agent,
            "month" if ":month:" in limit["key"] else "day",
            limit["amount"],
            use.used,
            now + limit["window_s"] - (now - limit["offset_s"]) % limit["window_s"],
        )
        for (agent, limit), use in zip(owned, uses, strict=True)
    ]
