"""An order of calls that keeps every limit: how near to the bound one can come.

Whoever knows all quotas, asks no network and starts each call the moment it may: at any instant the request
with the earliest deadline that can still be answered in time goes to the first provider that takes it. The
limits are the simulated provider's own (`sandbox.simulator.limits`), tokens included.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.goodput.asks import Ask
from benchmarks.goodput.offers import MODEL, Offer
from sandbox.simulator.limits import Limits

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


def answered_at(asks: Sequence[Ask], offers: Sequence[Offer], faster: float) -> dict[str, float]:
    """When each request that is answered in time has its answer, by its name."""
    providers = [_Provider(offer, faster) for offer in offers]
    to_come = sorted(asks, key=lambda asked: -asked.at_s)
    waiting: list[Ask] = []
    answers: dict[str, float] = {}
    now = 0.0
    while to_come or waiting:
        while to_come and to_come[-1].at_s <= now:
            waiting.append(to_come.pop())
        waiting = sorted((w for w in waiting if w.deadline_s > now), key=lambda asked: asked.deadline_s)
        for provider in providers:
            for asked in _started(waiting, provider, now):
                answers[asked.name] = now + provider.latency_s
        now += _STEP_S
    return answers


def _started(waiting: list[Ask], provider: _Provider, now: float) -> Iterator[Ask]:
    """What this provider starts now; it is taken out of `waiting`."""
    refused = 0
    for asked in list(waiting):
        if asked.deadline_s < now + provider.latency_s:
            continue
        if provider.takes(charge_of(asked), now):
            waiting.remove(asked)
            yield asked
        elif (refused := refused + 1) == provider.looks:
            return
