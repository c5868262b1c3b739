"""The figures of a run, counted from the requests and from the calls that the provider saw.

Words. Requests of equal content are a *group*. The first of a group has to be paid: there is one call
for each *distinct* content. Some requests are paid by their own wish: all with `off`, and those with
`refresh` or `join` that found no running call to share. All others are *repeats*: their content was
sent before, within the lifetime of an answer, and they should cost nothing. A call that was made for a
repeat nevertheless is *unneeded*.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sandbox.demo.agents import Sent
from sandbox.demo.ledger import Call
from sandbox.demo.workload import Content


@dataclass(frozen=True)
class KindFigures:
    """One kind of agent: its requests, and how they were answered."""

    kind: str
    agents: int
    requests: int
    paid: int
    hits: int
    joins: int


@dataclass(frozen=True)
class Figures:
    """What a run came to.

    Attributes:
        distinct: Different contents among the requests that share.
        by_wish: Calls that requests with `refresh` or `join` made beyond the first of their group.
        off: Requests with `off`, each a call of its own.
        repeats: Requests that were sent before, and wished for no call of their own.
        unneeded: Calls for repeats all the same.
        calls: Billed calls for these requests.
        failed_calls: Calls that the provider refused or that failed; not billed.
        strange_calls: Billed calls for requests that are none of ours, such as those of an earlier run.
        twin_calls: Pairs of calls for one content that ran at the same time, `off` apart.
        wrong: Answers that are not those to their question.
        paid: Replies that say that a provider was called for them.
        cost_usd: What the calls cost; None where a price is not known.
        replies_cost_usd: What the replies say they cost.
        unshared_usd: What they would have cost with a call for each request.
        elapsed_s: From the first request to the last answer.
    """

    requests: int
    agents: int
    answered: int
    errors: tuple[str, ...]
    wrong: int
    distinct: int
    by_wish: int
    off: int
    repeats: int
    unneeded: int
    calls: int
    failed_calls: int
    strange_calls: int
    twin_calls: int
    paid: int
    hits: int
    joins: int
    cost_usd: float | None
    replies_cost_usd: float | None
    unshared_usd: float | None
    queued_p50_s: float
    queued_p95_s: float
    total_p50_s: float
    total_p95_s: float
    elapsed_s: float
    kinds: tuple[KindFigures, ...]

    @property
    def expected_calls(self) -> int:
        """One for each distinct content, and those that were wished for."""
        return self.distinct + self.by_wish + self.off

    @property
    def free_repeats(self) -> int:
        """Repeats that cost no call."""
        return self.repeats - self.unneeded

    @property
    def free_repeats_percent(self) -> float:
        """Of all repeats; 100 where there are none."""
        return 100.0 * self.free_repeats / self.repeats if self.repeats else 100.0

    @property
    def saved_calls(self) -> int:
        """Against a call for each request."""
        return self.requests - self.calls

    @property
    def saved_usd(self) -> float | None:
        """Against a call for each request; None where a price is not known."""
        if self.cost_usd is None or self.unshared_usd is None:
            return None
        return self.unshared_usd - self.cost_usd


@dataclass(frozen=True)
class _Group:
    """The requests of one content, `off` apart, and the billed calls that were made for them."""

    requests: tuple[Sent, ...]
    calls: tuple[Call, ...]

    @property
    def by_wish(self) -> int:
        """Requests that wished for a call and got one; not the one that the group's first call is."""
        wishing = {sent.request_id for sent in self.requests if sent.ask.wants_its_own}
        called = {call.request_id for call in self.calls}
        return len(called & wishing) - (1 if called and called <= wishing else 0)

    @property
    def unneeded(self) -> int:
        """Calls that neither the first answer nor a wish explains."""
        return max(0, len(self.calls) - 1 - self.by_wish)

    @property
    def twins(self) -> int:
        """Calls that began before the one before them had ended."""
        spans = sorted((c.began, c.ended) for c in self.calls if c.began is not None and c.ended is not None)
        return sum(later[0] < earlier[1] for earlier, later in pairwise(spans))


def figures(requests: Sequence[Sent], calls: Sequence[Call], elapsed_s: float) -> Figures:
    """Counts a run.

    Args:
        requests: All of the workload, with what became of them.
        calls: All calls that the provider saw.
        elapsed_s: From the first request to the last answer.
    """
    ids = {sent.request_id for sent in requests if sent.request_id is not None}
    billed = [call for call in calls if call.is_billed and call.request_id in ids]
    groups = _groups(requests, billed)
    answers = [sent for sent in requests if sent.error is None]
    off = sum(sent.ask.cache == "off" for sent in requests)
    by_wish = sum(group.by_wish for group in groups)
    queued, total = [s.queued_s for s in answers], [s.total_s for s in answers]
    return Figures(
        requests=len(requests),
        agents=len({sent.ask.agent for sent in requests}),
        answered=len(answers),
        errors=tuple(sent.error for sent in requests if sent.error is not None),
        wrong=sum(not sent.is_right for sent in answers),
        distinct=len(groups),
        by_wish=by_wish,
        off=off,
        repeats=len(requests) - off - len(groups) - by_wish,
        unneeded=sum(group.unneeded for group in groups),
        calls=len(billed),
        failed_calls=sum(not call.is_billed for call in calls),
        strange_calls=sum(call.is_billed for call in calls) - len(billed),
        twin_calls=sum(group.twins for group in groups),
        paid=_from(answers, "provider"),
        hits=_from(answers, "cache"),
        joins=_from(answers, "dedupe"),
        cost_usd=_sum(call.cost_usd for call in billed),
        replies_cost_usd=_sum(sent.cost_usd for sent in answers),
        unshared_usd=_unshared_usd(requests, billed),
        queued_p50_s=percentile(queued, 50),
        queued_p95_s=percentile(queued, 95),
        total_p50_s=percentile(total, 50),
        total_p95_s=percentile(total, 95),
        elapsed_s=elapsed_s,
        kinds=_kinds(requests),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many percent of all do not exceed; 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100.0) - 1)]


def _groups(requests: Sequence[Sent], billed: Sequence[Call]) -> list[_Group]:
    calls_of: dict[str | None, list[Call]] = defaultdict(list)
    for call in billed:
        calls_of[call.request_id].append(call)
    members: dict[Content, list[Sent]] = defaultdict(list)
    for sent in requests:
        if sent.ask.cache != "off":
            members[sent.ask.content].append(sent)
    return [
        _Group(tuple(sents), tuple(call for sent in sents for call in calls_of[sent.request_id]))
        for sents in members.values()
    ]


def _from(answers: Sequence[Sent], source: str) -> int:
    return sum(sent.source == source for sent in answers)


def _sum(amounts: Iterable[float | None]) -> float | None:
    known = list(amounts)
    return None if None in known else math.fsum(amount or 0.0 for amount in known)


def _unshared_usd(requests: Sequence[Sent], billed: Sequence[Call]) -> float | None:
    """Each request at what a call for its content cost; None where such a price is not known.

    A content without a call, answered from an earlier run's, counts as the average of the others.
    """
    price = _prices(requests, billed)
    if not price or any(call.cost_usd is None for call in billed):
        return None
    average = math.fsum(price.values()) / len(price)
    return math.fsum(price.get(sent.ask.content, average) for sent in requests)


def _prices(requests: Sequence[Sent], billed: Sequence[Call]) -> dict[Content, float]:
    """What a call for each content cost on average, in USD."""
    content_of = {sent.request_id: sent.ask.content for sent in requests}
    costs: dict[Content, list[float]] = defaultdict(list)
    for call in billed:
        costs[content_of[call.request_id]].append(call.cost_usd or 0.0)
    return {content: math.fsum(one) / len(one) for content, one in costs.items()}


def _kinds(requests: Sequence[Sent]) -> tuple[KindFigures, ...]:
    members: dict[str, list[Sent]] = defaultdict(list)
    for sent in requests:
        members[sent.ask.agent.kind].append(sent)
    return tuple(
        KindFigures(
            kind=kind,
            agents=len({sent.ask.agent for sent in sents}),
            requests=len(sents),
            paid=_from(sents, "provider"),
            hits=_from(sents, "cache"),
            joins=_from(sents, "dedupe"),
        )
        for kind, sents in sorted(members.items(), key=lambda item: -len(item[1]))
    )
