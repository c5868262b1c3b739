"""The most requests that anybody could answer in time under these quotas, whatever he knew beforehand.

A provider's n-th call cannot start before the n-th request has been asked, nor before its limits allow an
n-th call. They only say how long after earlier calls the next may start, so calls that start sooner never
make a later one start later. By induction the n-th call of any schedule starts no sooner than the n-th of
this one: the provider alone is asked everything, and starts each call the moment that it may.

sliding window     the n-th no sooner than a window after the one that came its amount before
calls in flight    the same: with a constant latency, a window of that length
bucket             the generic cell rate algorithm: a call takes one interval of the refill, and as many
                   intervals as it holds may be taken ahead of the time

So all permits are known in advance, each with the first instant at which its answer can be there, and a
request can use those up to its deadline. Then the most that fit is found by taking the requests in the order
of their deadlines, each with the earliest permit that is left: a maximum matching of nested neighbourhoods,
the simplest case of F. Glover, "Maximum matching in a convex bipartite graph", Naval Research Logistics
Quarterly 14 (1967).

This is a bound from above. It looks at no tokens, and lets a permit that nobody needed at its time serve
later. Where more is asked than the quotas allow, hardly any is left over and the bound is close;
`schedule.py` has a schedule that keeps every limit, and so says how close.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Bucket:
    """Holds `burst` calls, is full at first, and gets one more in each `interval_s`."""

    interval_s: float
    burst: int


@dataclass(frozen=True)
class Supply:
    """What one provider allows.

    Attributes:
        latency_s: From a call's start to its answer.
        windows: Of sliding windows, the amount and the length in seconds.
        concurrency: Calls in flight; None: any number.
        bucket: Its bucket of calls, if it has one.
    """

    latency_s: float
    windows: tuple[tuple[int, float], ...] = ()
    concurrency: int | None = None
    bucket: Bucket | None = None


def most_in_time(asked: Iterable[tuple[float, float]], supplies: Iterable[Supply]) -> int:
    """How many requests at most have an answer by their deadline.

    Args:
        asked: For each request, when it is asked and its deadline, both in seconds.
        supplies: What each provider allows.
    """
    asked = list(asked)
    instants = sorted(at for at, _ in asked)
    deadlines = sorted(deadline for _, deadline in asked)
    answers = sorted(
        start + supply.latency_s for supply in supplies for start in earliest_starts(supply, instants)
    )
    served = 0
    for deadline in deadlines:
        if served < len(answers) and answers[served] <= deadline:
            served += 1
    return served


def earliest_starts(supply: Supply, instants: Sequence[float]) -> list[float]:
    """When the calls of a provider start that alone is asked everything, at these instants in order."""
    windows = list(supply.windows)
    if supply.concurrency is not None:
        windows.append((supply.concurrency, supply.latency_s))
    starts: list[float] = []
    full_at = -inf
    for number, asked_at in enumerate(instants):
        start = max([asked_at, *(starts[number - n] + window_s for n, window_s in windows if n <= number)])
        if supply.bucket is not None:
            interval_s = supply.bucket.interval_s
            start = max(start, full_at - (supply.bucket.burst - 1) * interval_s)
            full_at = max(full_at, start) + interval_s
        starts.append(start)
    return starts
