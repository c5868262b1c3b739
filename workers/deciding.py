"""What becomes of a request, once Redis has said how it stands; `front.py` carries it out."""

from dataclasses import dataclass, replace
from typing import Any

from broker.answers import Admitted, Hit, Joined, Lead, Spot, Wait
from producer_sdk.transport import Delivery, Outgoing
from topology import names
from topology.errors import ErrorType
from topology.events import EventType
from topology.messages import CacheMode, Envelope, Job, Outcome, Source, Waiter
from workers.keeping import kept
from workers.obstacles import Lookout
from workers.reading import Readable, Unfit
from workers.replies import AWAY_S, Answer, error_outcome, job_message, parked, passes_too_late, report_of
from workers.worker import Worker


@dataclass(frozen=True)
class Plan:
    """What becomes of a delivery: messages to publish, an answer to give, then the acknowledgement.

    `again` brings the request back later, should the answer's queue be away. A job goes to its `spot`.
    """

    delivery: Delivery
    publish: Outgoing | None = None
    answer: Answer | None = None
    settle: tuple[str, Waiter] | None = None
    again: Outgoing | None = None
    spot: Spot | None = None


class Deciding:
    """Makes the front's plans, with an event for each; who wants to know of waits is given to `lookout`."""

    def __init__(self, worker: Worker, lookout: Lookout) -> None:
        self._worker = worker
        self._lookout = lookout

    def decide(self, read: Readable, admitted: Admitted) -> Plan:
        """The plan for a request that could be read."""
        plan = Plan(read.delivery)
        match admitted:
            case Hit(outcome=outcome) as hit:
                if outcome is None:
                    return replace(plan, answer=_called_off(read, hit.why))
                self._tell(EventType.CACHE_HIT, read, why=hit.why)
                answer = Answer(read.waiter, outcome, _source(read, hit))
                again = _parked(read, AWAY_S) if read.waiter.durable and hit.why != "served" else None
                return replace(plan, answer=answer, settle=_settlement(read, hit), again=again)
            case Joined():
                self._tell(EventType.DEDUPE_JOINED, read)
                self._watch(read)
                return plan
            case Lead(leads=leads, spot=spot):
                if leads == 1:
                    self._tell(EventType.CACHE_MISS, read)
                self._watch(read)
                message = job_message(self._worker.fleet, self._job(read))
                is_its_line = message.routing_key == read.admission.queue
                return replace(plan, publish=message, spot=spot if is_its_line else None)
            case Wait() if read.lacks is not None:
                answer = Answer(read.waiter, read.lacks, None)
                return replace(plan, answer=answer, settle=(read.admission.fingerprint, read.waiter))
            case Wait() as wait:
                self._tell(EventType.RATE_LIMIT, read, limit=wait.limit, until=wait.until)
                return self._wait(plan, read, wait)

    def refuse(self, unfit: Unfit) -> Plan:
        """The plan for one that could not: its agent is told, or people have a look."""
        if unfit.waiter is None:
            at = unfit.delivery
            return Plan(at, publish=kept(at.queue, at.body, unfit.refused.message, delivery=at))
        outcome = Outcome(status="error", error=report_of(unfit.refused))
        return Plan(unfit.delivery, answer=Answer(unfit.waiter, outcome, None))

    def _wait(self, plan: Plan, read: Readable, wait: Wait) -> Plan:
        now = self._worker.clock.now()
        if not wait.booked:
            answer = Answer(read.waiter, passes_too_late(wait.limit, wait.until, now), None)
            return replace(plan, answer=answer, settle=(read.admission.fingerprint, read.waiter))
        self._worker.notices.tell(read.waiter, wait.limit, wait.until)
        return replace(plan, publish=_parked(read, min(wait.until, read.waiter.deadline) - now))

    def _watch(self, read: Readable) -> None:
        if read.waiter.tell_waits:
            self._lookout.watch(read.waiter, self._job(read))

    def _job(self, read: Readable) -> Job:
        return Job(
            fingerprint=read.admission.fingerprint,
            request=read.request,
            waiter=read.waiter,
            route=read.route,
        )

    def _tell(self, type_: EventType, read: Readable, **fields: Any) -> None:
        self._worker.events.emit(
            type_,
            agent=read.waiter.agent,
            request_id=read.waiter.id,
            agent_type=read.request.agent_type,
            priority=read.waiter.priority.value,
            model=read.request.model,
            task=read.request.task,
            flight=read.admission.fingerprint,
            **fields,
        )


def _parked(read: Readable, seconds: float) -> Outgoing:
    """What brings a request back to the entrance: after the longest retry tier within `seconds`."""
    body = Envelope(request=read.request, waiter=read.waiter).to_bytes()
    queue = names.requests_queue(read.waiter.priority)
    return parked(names.largest_tier_within(seconds), queue, body, read.waiter.id)


def _called_off(read: Readable, why: str) -> Answer | None:
    """What is left to say where nothing is kept; a caller that is gone or was told drops it."""
    if why == "served" and read.delivery.exchange == names.JOBS:
        return None  # it was settled while it went round inside
    message = "a request of this id was called off, or refused, before: ask again under another id"
    return Answer(read.waiter, error_outcome(ErrorType.CANCELLED, message), None)


def _source(read: Readable, hit: Hit) -> Source | None:
    if hit.why != "fresh":  # it waited for this flight: told again what it was told, or would have been
        return Source.PROVIDER if hit.payer == read.waiter.key else Source.DEDUPE
    return Source.DEDUPE if read.request.cache is CacheMode.JOIN else Source.CACHE


def _settlement(read: Readable, hit: Hit) -> tuple[str, Waiter] | None:
    return (read.admission.fingerprint, read.waiter) if hit.why == "known" else None
