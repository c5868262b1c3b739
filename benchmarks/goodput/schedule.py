"""Orders of calls that keep every limit: how near to the bound one can come, and how near by fair rules.

Whoever knows all quotas, asks no network and starts each call the moment it may: at any instant the request
with the earliest deadline that can still be answered in time goes to the first provider that takes it.
`Fairly` has the optimizer's own rules in place of deadlines. The limits are the simulated provider's own
(`sandbox.simulator.limits`), tokens included.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from benchmarks.goodput.asks import Ask
from benchmarks.goodput.offers import MODEL, Offer
from sandbox.simulator.limits import Limits
from topology.turns import ROUNDS_AHEAD, FairTurns, presses_at

_STEP_S: Final = 0.005
_LOOKS: Final = 20
"""So many requests are offered to a provider that has too few tokens left for the first."""


class _Provider:
    """One provider, and what it is doing."""

    def __init__(self, offer: Offer, faster: float) -> None:
        self.latency_s = offer.latency_s / faster
        self.looks = 1 if offer.tokens is None else _LOOKS
        self._concurrency = offer.concurrency
        self._limits = Limits(offer.settings(faster))
        self._ends: list[float] = []

    def takes(self, tokens: int, now: float) -> bool:
        """Starts a call of so many tokens, if it may."""
        self._ends = [ends for ends in self._ends if ends > now]
        if self._concurrency is not None and len(self._ends) >= self._concurrency:
            return False
        if self._limits.excess("default", MODEL, tokens, now) is not None:
            return False
        self._limits.charge("default", MODEL, tokens, now)
        self._ends.append(now + self.latency_s)
        return True


def charge_of(asked: Ask) -> int:
    """The tokens that a request is charged: a quarter of its characters, and the bound on its answer."""
    return max(1, len(asked.prompt) // 4) + asked.max_tokens


Order = Callable[[list[Ask], _Provider, float], Iterator[Ask]]
"""What a provider starts at an instant, of what waits; it is taken out of that."""


def earliest_deadline(waiting: list[Ask], provider: _Provider, now: float) -> Iterator[Ask]:
    """Of what can still be answered in time."""
    waiting.sort(key=lambda asked: asked.deadline_s)
    refused = 0
    for asked in list(waiting):
        if asked.deadline_s < now + provider.latency_s:
            continue
        if provider.takes(charge_of(asked), now):
            waiting.remove(asked)
            yield asked
        elif (refused := refused + 1) == provider.looks:
            return


class Fairly:
    """At each provider the classes have their shares, and the agents of a class go round.

    Whose deadline presses goes before its turn, as far as `topology.turns` allows.

    Args:
        shares: Of each class, the most urgent first.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = shares
        self._classes: dict[_Provider, FairTurns[str]] = defaultdict(FairTurns)
        self._agents: dict[str, FairTurns[str]] = defaultdict(FairTurns)
        self._turns: dict[str, float] = {}

    def __call__(self, waiting: list[Ask], provider: _Provider, now: float) -> Iterator[Ask]:
        """In the class whose turn it is, the request whose turn it is."""
        for asked in waiting:
            if asked.name not in self._turns:
                self._turns[asked.name] = self._agents[asked.priority].take(asked.agent)
        while in_time := [asked for asked in waiting if asked.deadline_s >= now + provider.latency_s]:
            known = {asked.priority for asked in in_time}
            classes = [name for name in self._shares if name in known]
            turns = self._classes[provider]
            priority = classes[turns.first(classes) or 0]
            asked = self._next([one for one in in_time if one.priority == priority], now)
            if not provider.takes(charge_of(asked), now):
                return
            turns.use(turns.take(priority, self._shares[priority]))
            waiting.remove(asked)
            yield asked

    def _next(self, waiting: Sequence[Ask], now: float) -> Ask:
        first = min(waiting, key=lambda asked: self._turns[asked.name])
        self._agents[first.priority].use(self._turns[first.name])
        furthest = self._turns[first.name] + ROUNDS_AHEAD
        pressing = [
            asked
            for asked in waiting
            if presses_at(asked.at_s, asked.deadline_s) <= now and self._turns[asked.name] <= furthest
        ]
        return min(pressing, key=lambda asked: asked.deadline_s, default=first)


def answered_at(
    asks: Sequence[Ask], offers: Sequence[Offer], faster: float, order: Order = earliest_deadline
) -> dict[str, float]:
    """When each request that is answered in time has its answer, by its name."""
    providers = [_Provider(offer, faster) for offer in offers]
    to_come = sorted(asks, key=lambda asked: asked.at_s)[::-1]
    waiting: list[Ask] = []
    answers: dict[str, float] = {}
    now = 0.0
    while to_come or waiting:
        while to_come and to_come[-1].at_s <= now:
            waiting.append(to_come.pop())
        waiting = [asked for asked in waiting if asked.deadline_s > now]
        for provider in providers:
            for asked in order(waiting, provider, now):
                answers[asked.name] = now + provider.latency_s
        now += _STEP_S
    return answers
