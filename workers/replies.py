"""Sending what is left when a decision has been made: replies, jobs, messages to a retry tier."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

from broker.budgets import is_budget
from producer_sdk.transport import PUBLISH_TIMEOUT_S, Outgoing, Published, Publisher
from topology import names
from topology.declaration import JOB_REPLY_EXPIRES_S
from topology.errors import ErrorType, Refused
from topology.events import EventType
from topology.fleet import Fleet
from topology.messages import Candidate, ErrorReport, Job, Outcome, Reply, Source, Timings, Waiter
from topology.names import Priority, RetryTier
from topology.turns import presses_at
from workers.events import Clock, Events

PRESSES: Final = "x-presses"
"""The header of a job's message that says when its deadline begins to press, in epoch seconds."""
_AT_ONCE: Final = 100


@dataclass(frozen=True)
class Answer:
    """What one waiter is to be told."""

    waiter: Waiter
    outcome: Outcome
    source: Source | None


class Reached(Enum):
    """What became of a reply."""

    YES = auto()
    """It is in its queue, or nobody can have that queue any more: its waiter is served."""
    AWAY = auto()
    """A durable request's queue is not there, and may come back with its node: to be tried again later."""
    NO = auto()
    """Nobody knows: to be tried again."""


AWAY_S: Final = RetryTier.FIVE_MINUTES.delay_s
"""The pause before a reply whose queue is away is tried again."""


class Replies:
    """Publishes replies to callback queues, each with one bounded try."""

    def __init__(self, publisher: Publisher, events: Events, clock: Clock) -> None:
        self._publisher = publisher
        self._events = events
        self._clock = clock
        self._looking: set[asyncio.Task[None]] = set()

    async def send(self, answers: Sequence[Answer]) -> list[Waiter]:
        """Replies to all; returns those who are served: the reply is confirmed, or its queue is not there."""
        reached = await self.send_all(answers)
        return [a.waiter for a, word in zip(answers, reached, strict=True) if word is not Reached.NO]

    async def send_all(self, answers: Sequence[Answer]) -> list[Reached]:
        """Replies to all; returns what became of each reply."""
        reached: list[Reached] = []
        for start in range(0, len(answers), _AT_ONCE):
            part = answers[start : start + _AT_ONCE]
            reached += await asyncio.gather(*(self._sent(answer) for answer in part))
        return reached

    async def _sent(self, answer: Answer) -> Reached:
        await self._publisher.wait_until_up(PUBLISH_TIMEOUT_S)
        reached: asyncio.Future[Reached] = asyncio.get_running_loop().create_future()
        self.tell(answer, lambda word: None if reached.done() else reached.set_result(word))
        return await reached

    def tell(self, answer: Answer, then: Callable[[Reached], None]) -> None:
        """Replies to one; `then` is told, once, what became of it."""
        waiter = answer.waiter
        if waiter.reply_to is None:
            then(Reached.YES)
            return
        reply = _reply(answer, self._clock.now())
        try:
            body = reply.to_bytes()
        except Refused as refused:  # over 8 MiB: it would close the channel for everybody
            too_large = Outcome(status="error", error=report_of(refused))
            reply = _reply(Answer(waiter, too_large, None), self._clock.now())
            body = reply.to_bytes()

        def published(outcome: Published) -> None:
            match outcome:
                case Published.CONFIRMED:
                    self._tell(waiter, reply)
                    then(Reached.YES)
                # For a queue whose node is down RabbitMQ 4 refuses, and RabbitMQ 3 returns. The client takes
                # another queue and asks again under it: a `hit`.
                case Published.RETURNED | Published.REFUSED if not _may_come_back(waiter, self._clock.now()):
                    then(Reached.YES)
                case Published.RETURNED | Published.REFUSED:
                    self._look_for(waiter.reply_to or "", then)
                case Published.NOWHERE | Published.LOST:
                    then(Reached.NO)

        self._publisher.send(Outgoing("", waiter.reply_to, body, correlation_id=waiter.id), published)

    def _look_for(self, queue: str, then: Callable[[Reached], None]) -> None:
        """A durable request's queue that is gone was deleted by whoever took the reply before."""

        async def look() -> None:
            stands = await self._publisher.has_queue(queue)
            then({True: Reached.NO, False: Reached.YES, None: Reached.AWAY}[stands])

        task = asyncio.create_task(look(), name=f"look for {queue}")
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    def _tell(self, waiter: Waiter, reply: Reply) -> None:
        common = {"agent": waiter.agent, "request_id": waiter.id, "priority": waiter.priority.value}
        if reply.error is not None:
            self._events.emit(
                EventType.ERROR,
                **common,
                error=reply.error.type.value,
                # A provider's own words can quote the prompt.
                message=reply.error.message if reply.provider is None else None,
                provider=reply.provider,
                provider_status=reply.error.provider_status,
            )
        self._events.emit(
            EventType.REQUEST_COMPLETED,
            **common,
            status=reply.status,
            source=reply.source.value if reply.source else None,
            provider=reply.provider,
            model=reply.model,
            cost_usd=reply.cost_usd,
            total_s=round(reply.timings.total_s, 4),
        )


def _may_come_back(waiter: Waiter, now: float) -> bool:
    """Whether a queue that is not there may stand on a node that is down; in the end it has expired."""
    return waiter.durable and now < waiter.deadline + JOB_REPLY_EXPIRES_S


def _reply(answer: Answer, now: float) -> Reply:
    waiter, outcome = answer.waiter, answer.outcome
    total_s = max(0.0, now - waiter.queued_at)
    paid = answer.source is Source.PROVIDER
    provider_s = outcome.provider_s if paid else 0.0
    return Reply(
        id=waiter.id,
        status=outcome.status,
        source=answer.source,
        body=outcome.body,
        provider=outcome.provider,
        model=outcome.model,
        usage=outcome.usage,
        cost_usd=outcome.cost_usd if paid or outcome.cost_usd is None else 0.0,
        timings=Timings(queued_s=max(0.0, total_s - provider_s), provider_s=provider_s, total_s=total_s),
        attempts=outcome.attempts,
        error=outcome.error,
    )


def report_of(refused: Refused) -> ErrorReport:
    """A refusal as it travels in a reply."""
    return ErrorReport(type=refused.type, message=refused.message, retryable=refused.retryable)


def error_outcome(
    type_: ErrorType, message: str, *, retryable: bool = False, retry_after_s: float | None = None
) -> Outcome:
    """An outcome that is an error."""
    report = ErrorReport(type=type_, message=message, retryable=retryable, retry_after_s=retry_after_s)
    return Outcome(status="error", error=report)


def passes_too_late(limit: str, until: float, now: float) -> Outcome:
    """The error of whom a limit lets pass only after his deadline; `time`: a call would end only then."""
    if limit == "time":
        return error_outcome(
            ErrorType.DEADLINE_EXCEEDED,
            f"deadline: a call lasts {until - now:.1f} s on average, which is more than is left, and others "
            "wait for its permit; submit the request again, with more time",
            retryable=True,
        )
    return error_outcome(
        ErrorType.BUDGET_EXHAUSTED if is_budget(limit) else ErrorType.RATE_LIMITED,
        f"the {limit} lets this request pass in {until - now:.0f} s, at "
        f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S} UTC, after its deadline",
        retryable=True,
        retry_after_s=until - now,
    )


def job_message(fleet: Fleet, job: Job) -> Outgoing:
    """The job on its way to its candidate's pool, in the lane of its model and its waiter's priority."""
    waiter = job.waiter
    return Outgoing(
        names.JOBS,
        jobs_queue_of(fleet, job.candidate, waiter.priority),
        job.to_bytes(),
        correlation_id=waiter.id,
        app_id=waiter.agent,
        headers={PRESSES: f"{presses_at(waiter.queued_at, waiter.deadline):.3f}"},
    )


def jobs_queue_of(fleet: Fleet, candidate: Candidate, priority: Priority) -> str:
    """The queue of a candidate for jobs of this priority."""
    provider = fleet.providers.get(candidate.provider)
    model = provider.model(candidate.model) if provider else None
    lane = model.lane if model else names.ANY_LANE
    return names.jobs_queue(candidate.provider, lane, priority)


def parked(
    tier: RetryTier, target_queue: str, body: bytes, correlation_id: str, agent: str | None = None
) -> Outgoing:
    """A message that comes back to `target_queue` when the tier's time is over."""
    return Outgoing(tier.exchange, target_queue, body, correlation_id=correlation_id, app_id=agent)
