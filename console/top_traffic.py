"""What the events of the last minute come to: rates, and who they are about."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from topology.events import EventType
from topology.messages import Event

SPAN_S: Final = 60
"""How far back rates and lines reach."""
NOW_S: Final = 10
"""What a rate `now` is the mean of."""
_LEAST_S: Final = 1.0
_SETTLED_S: Final = 0.5
"""A second counts as complete after this: events are published in company, a moment later."""


@dataclass(frozen=True)
class Rate:
    """How often something happens, or how much.

    Attributes:
        now: A second, over the last `NOW_S`.
        mean: A second, over the last `SPAN_S`, or since the first look where that is less.
        line: Of each whole second of the last `SPAN_S`, oldest first; fewer at the beginning.
    """

    now: float
    mean: float
    line: tuple[float, ...]


@dataclass(frozen=True)
class AgentTraffic:
    """What an agent did in the last minute; rates are per second, the cost is USD a minute."""

    agent: str
    requests: float
    saved: float
    calls: float
    errors: float
    usd_per_min: float


class Traffic:
    """Counts events by the second in which they happened.

    Instants are epoch seconds on Redis's clock, as in the events. `since` is the one of the first look.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, Counter[Hashable]] = {}

    def hear(self, event: Event, now: float) -> None:
        """Counts one that came by `now`, unless it is too old for any rate. A heartbeat counts nothing."""
        second = min(math.floor(event.at), math.floor(now))
        if second < math.floor(now) - SPAN_S - 1:
            return
        facts = event.model_dump()
        for what, amount in _amounts(event.type, facts):
            self._add(second, what, amount)
            if event.agent is not None:
                self._add(second, (what, event.agent), amount)
        if event.type == EventType.CALL_STARTED:
            self._add(second, ("started", facts.get("provider"), facts.get("model")))

    def forget(self, now: float) -> None:
        """Drops what is too old for any rate."""
        for second in [s for s in self._seconds if s < math.floor(now) - SPAN_S - 1]:
            del self._seconds[second]

    def rate(self, what: str, now: float, since: float) -> Rate:
        """Of `requests`, `hits`, `joins`, `calls`, `failed` (calls), `errors` (requests), `usd`."""
        end = math.floor(now - _SETTLED_S)
        first = max(end - SPAN_S, math.ceil(since))
        line = tuple(self._at(second, what) for second in range(first, end))
        of_late, of_all = (
            self._totals(now, most_s)[what] / _span(now, since, most_s) for most_s in (NOW_S, SPAN_S)
        )
        return Rate(of_late, of_all, line)

    def started_per_s(self, now: float, since: float) -> dict[tuple[str, str], float]:
        """Calls started a second, by provider and model."""
        return {
            (str(key[1]), str(key[2])): total / _span(now, since, SPAN_S)
            for key, total in self._totals(now, SPAN_S).items()
            if isinstance(key, tuple) and key[0] == "started"
        }

    def agents(self, now: float, since: float) -> list[AgentTraffic]:
        """Those who were heard of in the last minute."""
        span_s = _span(now, since, SPAN_S)
        by_agent: dict[str, Counter[str]] = {}
        for key, total in self._totals(now, SPAN_S).items():
            if isinstance(key, tuple) and len(key) == 2:
                by_agent.setdefault(key[1], Counter())[key[0]] = total
        return [
            AgentTraffic(
                agent,
                requests=of["requests"] / span_s,
                saved=(of["hits"] + of["joins"]) / span_s,
                calls=of["calls"] / span_s,
                errors=of["errors"] / span_s,
                usd_per_min=of["usd"] / span_s * 60,
            )
            for agent, of in by_agent.items()
        ]

    def _add(self, second: int, what: Hashable, amount: float = 1) -> None:
        self._seconds.setdefault(second, Counter())[what] += amount  # type: ignore[assignment]

    def _at(self, second: int, what: Hashable) -> float:
        return self._seconds[second][what] if second in self._seconds else 0

    def _totals(self, now: float, most_s: int) -> Counter[Hashable]:
        """The sums of this second and of the `most_s` before it."""
        total: Counter[Hashable] = Counter()
        for second, amounts in self._seconds.items():
            if second >= math.floor(now) - most_s:
                total.update(amounts)
        return total


def _span(now: float, since: float, most_s: int) -> float:
    """How long the seconds from `most_s` ago up to now, this one too, have been watched."""
    return max(_LEAST_S, now - max(since, math.floor(now) - most_s))


def _amounts(type_: str, facts: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What an event adds to which sum. A request that is sent again, and known, counts once."""
    match type_:
        case EventType.CACHE_HIT:
            return [("requests", 1), ("hits", 1)] if facts.get("why") == "fresh" else []
        case EventType.DEDUPE_JOINED:
            return [("requests", 1), ("joins", 1)]
        case EventType.CACHE_MISS:
            return [("requests", 1)]
        case EventType.CALL_STARTED:
            return [("calls", 1)]
        case EventType.CALL_COMPLETED:
            cost = facts.get("cost_usd")
            return [("usd", cost)] if isinstance(cost, int | float) else []
        case EventType.CALL_FAILED:
            return [("failed", 1)]
        case EventType.ERROR:
            return [("errors", 1)]
        case _:
            return []
