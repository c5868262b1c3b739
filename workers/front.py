"""The front: admits requests. Duplicates are answered from Redis; the rest become jobs.

The way of a request through here: read, route, `admit`, carry out. Never an acknowledgement before the
broker has confirmed the next hop; whatever dies in between is handed out again and decided again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from broker.answers import Admitted, Hit, Joined, Lead, Wait
from broker.flights import Admission, StateAway
from producer_sdk.transport import Delivery, Outgoing, Published, Subscription
from topology import names
from topology.errors import ErrorType, Refused
from topology.events import EventType
from topology.fingerprint import fingerprint
from topology.messages import (
    CacheMode,
    Candidate,
    Envelope,
    Job,
    Outcome,
    Request,
    Source,
    Waiter,
)
from topology.names import Priority
from topology.route import static_route
from topology.turns import WeightedTurns
from workers.replies import Answer, Replies, error_outcome, job_message, kept, parked, report_of
from workers.worker import Worker

log = logging.getLogger("optimizer.front")

PREFETCH: Final = 200
_BATCH: Final = 64
_AGAIN_S: Final = 0.5


@dataclass(frozen=True)
class _Read:
    """A request that can be admitted."""

    delivery: Delivery
    request: Request
    waiter: Waiter
    route: tuple[Candidate, ...]
    admission: Admission


@dataclass(frozen=True)
class _Unfit:
    """A request that cannot. Its sender is told, if it can be; else a copy is kept for people."""

    delivery: Delivery
    waiter: Waiter | None
    refused: Refused


@dataclass(frozen=True)
class _Plan:
    """What becomes of a delivery: messages to publish, an answer to give, then the acknowledgement."""

    delivery: Delivery
    publish: Outgoing | None = None
    answer: Answer | None = None
    settle: tuple[str, Waiter] | None = None


class Front:
    """The role `front`.

    Owns its buffers and tasks. It takes from the queues what its prefetch allows, admits in batches, and
    lets any number of publishes wait for their confirms at once.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._fleet = worker.fleet
        self._replies = Replies(worker.publisher, worker.events, worker.clock)
        self._buffers: dict[Priority, deque[Delivery]] = {p: deque() for p in Priority}
        shares = worker.fleet.priorities
        self._turns = WeightedTurns({p: float(getattr(shares, p.value)) for p in Priority})
        self._stirred = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []
        self.admitted = 0
        worker.on_lost.append(self._forget)
        worker.reports.append(lambda: {"admitted": self.admitted})

    async def start(self) -> None:
        """Consumes from now on."""
        for priority, buffer in self._buffers.items():
            subscription = Subscription(names.requests_queue(priority), PREFETCH, partial(self._take, buffer))
            self._subscriptions.append(subscription)
            await self._worker.subscriber.add(subscription)

    async def run(self) -> None:
        """Admits what comes, until cancelled."""
        while True:
            await self._stirred.wait()
            batch = self._next_batch()
            if not batch:
                self._stirred.clear()
                continue
            await self._serve(batch)

    async def drain(self) -> None:
        """Stops consuming, hands back what was not begun, and finishes what was."""
        for subscription in self._subscriptions:
            await self._worker.subscriber.drop(subscription)
        for buffer in self._buffers.values():
            while buffer:
                await buffer.popleft().give_back()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _take(self, buffer: deque[Delivery], delivery: Delivery) -> None:
        buffer.append(delivery)
        self._stirred.set()

    def _forget(self) -> None:
        for buffer in self._buffers.values():
            buffer.clear()

    def _next_batch(self) -> list[Delivery]:
        batch: list[Delivery] = []
        while len(batch) < _BATCH:
            priority = self._turns.next([p for p, buffer in self._buffers.items() if buffer])
            if priority is None:
                break
            batch.append(self._buffers[priority].popleft())
        return batch

    async def _serve(self, batch: Sequence[Delivery]) -> None:
        try:
            await self._serve_together(batch)
        except Exception as error:  # a fault of ours; find the request it is about, and go on with the rest
            log.exception("a batch failed unexpectedly", extra={"requests": len(batch)})
            if len(batch) > 1:
                for delivery in batch:
                    await self._serve([delivery])
                return
            copy = kept(batch[0].queue, batch[0].body, f"internal: {type(error).__name__}")
            self._own(self._publish(_Plan(batch[0]), copy))

    async def _serve_together(self, batch: Sequence[Delivery]) -> None:
        reads = [self._read(delivery) for delivery in batch]
        fit = [read for read in reads if isinstance(read, _Read)]
        answers = await self._admit([read.admission for read in fit])
        plans = [self._decide(read, answer) for read, answer in zip(fit, answers, strict=True)]
        plans += [self._refuse(read) for read in reads if isinstance(read, _Unfit)]
        self.admitted += len(fit)
        self._own(self._carry_out(plans))

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="front publishes")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _admit(self, admissions: Sequence[Admission]) -> list[Admitted]:
        """Waits as long as Redis is away: the messages are held, and safe in RabbitMQ."""
        while True:
            try:
                return await self._worker.flights.admit(admissions)
            except StateAway as error:
                log.warning("Redis is away, admitting nothing", extra={"error": str(error)})
                await asyncio.sleep(_AGAIN_S)

    # Reading -----------------------------------------------------------------------------------

    def _read(self, delivery: Delivery) -> _Read | _Unfit:
        waiter: Waiter | None = None
        try:
            if delivery.exchange == names.JOBS:  # agents cannot publish there: it went round inside
                envelope = Envelope.from_bytes(delivery.body)
                request, waiter = envelope.request, envelope.waiter
            else:
                priority, agent = _speaker(delivery)
                waiter = self._addressee(delivery, priority, agent)
                request = Request.from_bytes(delivery.body)
                waiter = self._waiter(delivery, request, waiter)
            admission = self._admission(request, waiter)
            route = self._live_first(static_route(self._fleet, request))
        except Refused as refused:
            return _Unfit(delivery, waiter, refused)
        return _Read(delivery, request, waiter, route, admission)

    def _addressee(self, delivery: Delivery, priority: Priority, agent: str) -> Waiter | None:
        """Who can be told of an error, before the body has been read."""
        properties = delivery.properties
        if not properties.correlation_id or not properties.reply_to:
            return None
        if not names.may_reply_to(agent, properties.reply_to):
            raise Refused(
                ErrorType.INVALID_REQUEST,
                f"reply_to: {properties.reply_to!r} is not a queue of agent {agent!r}; "
                f"it begins with 'reply.{agent}.'",
            )
        now = self._worker.clock.now()
        return Waiter(
            agent=agent,
            id=properties.correlation_id,
            reply_to=properties.reply_to,
            priority=priority,
            deadline=now + self._fleet.fleet.timeout_s,
            queued_at=now,
        )

    def _waiter(self, delivery: Delivery, request: Request, sender: Waiter | None) -> Waiter:
        if sender is None:
            raise Refused(
                ErrorType.INVALID_REQUEST, "properties: a request needs correlation_id and reply_to"
            )
        for field, said in (("agent", request.agent), ("app_id", delivery.properties.app_id)):
            if said and said != sender.agent:
                raise Refused(
                    ErrorType.INVALID_REQUEST,
                    f"{field}: {said!r} is not the agent of the routing key, {sender.agent!r}",
                )
        if request.id != sender.id:
            raise Refused(
                ErrorType.INVALID_REQUEST, f"id: {request.id!r} is not the message's correlation_id"
            )
        now, section = sender.queued_at, self._fleet.fleet
        deadline = request.deadline or now + section.timeout_s
        if deadline <= now:
            raise Refused(
                ErrorType.DEADLINE_EXCEEDED,
                f"deadline: it passed {now - deadline:.1f} s before the request arrived; give more time, "
                "or set this machine's clock",
                retryable=True,
            )
        return sender.model_copy(
            update={
                "deadline": min(deadline, now + section.max_deadline_s),
                "stream": request.stream,
                "durable": request.durable,
            }
        )

    def _admission(self, request: Request, waiter: Waiter) -> Admission:
        cache = self._fleet.cache
        ttl_s = cache.ttl_s if request.cache_ttl_s is None else request.cache_ttl_s
        max_age_s, keep_s = {
            CacheMode.USE: (ttl_s, ttl_s),
            CacheMode.REFRESH: (0.0, ttl_s),
            CacheMode.JOIN: (cache.dedupe_window_s, cache.dedupe_window_s),
            CacheMode.OFF: (0.0, 0.0),
        }[request.cache]
        return Admission(fingerprint(request), waiter, max_age_s, keep_s, self._limits(waiter.agent))

    def _limits(self, agent: str) -> tuple[dict[str, Any], ...]:
        prefix, section = self._worker.flights.prefix, self._fleet.fleet
        limits = (
            (f"{prefix}rate:agent:{agent}", section.agent_requests_per_minute, "agent's rate"),
            (f"{prefix}rate:fleet", section.requests_per_minute, "fleet's rate"),
        )
        return tuple(
            # Whole requests: half a request a minute is one in two.
            {"key": key, "amount": max(1, int(rate)), "window_s": 60.0 / min(1.0, rate), "name": name}
            for key, rate, name in limits
            if rate is not None
        )

    def _live_first(self, route: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """Pools with a heartbeat before those without; a job for a dead one waits in its queue."""
        if not self._worker.roster.knows_anyone():
            return route
        return tuple(sorted(route, key=lambda c: not self._worker.roster.pools(c.provider)))

    # Deciding ----------------------------------------------------------------------------------

    def _decide(self, read: _Read, admitted: Admitted) -> _Plan:
        plan = _Plan(read.delivery)
        match admitted:
            case Hit(outcome=outcome) as hit:
                if outcome is None:
                    return plan  # answered before, and called off: nothing is left to say
                self._tell(EventType.CACHE_HIT, read, why=hit.why)
                answer = Answer(read.waiter, outcome, _source(read, hit))
                return replace(plan, answer=answer, settle=_settlement(read, hit))
            case Joined():
                self._tell(EventType.DEDUPE_JOINED, read)
                return plan
            case Lead(leads=leads):
                if leads == 1:
                    self._tell(EventType.CACHE_MISS, read)
                return replace(plan, publish=job_message(self._fleet, self._job(read)))
            case Wait() as wait:
                self._tell(EventType.RATE_LIMIT, read, limit=wait.limit, until=wait.until)
                return self._wait(plan, read, wait)

    def _wait(self, plan: _Plan, read: _Read, wait: Wait) -> _Plan:
        now = self._worker.clock.now()
        if not wait.booked:
            outcome = error_outcome(
                ErrorType.RATE_LIMITED,
                f"the {wait.limit} lets this request pass in {wait.until - now:.0f} s, after its deadline",
                retryable=True,
            )
            answer = Answer(read.waiter, outcome, None)
            return replace(plan, answer=answer, settle=(read.admission.fingerprint, read.waiter))
        tier = names.largest_tier_within(min(wait.until, read.waiter.deadline) - now)
        envelope = Envelope(request=read.request, waiter=read.waiter)
        queue = names.requests_queue(read.waiter.priority)
        return replace(plan, publish=parked(tier, queue, envelope.to_bytes(), read.waiter.id))

    def _job(self, read: _Read) -> Job:
        return Job(
            fingerprint=read.admission.fingerprint,
            request=read.request,
            waiter=read.waiter,
            route=read.route,
        )

    def _refuse(self, unfit: _Unfit) -> _Plan:
        if unfit.waiter is None:
            copy = kept(unfit.delivery.queue, unfit.delivery.body, unfit.refused.message)
            return _Plan(unfit.delivery, publish=copy)
        outcome = Outcome(status="error", error=report_of(unfit.refused))
        return _Plan(unfit.delivery, answer=Answer(unfit.waiter, outcome, None))

    def _tell(self, type_: EventType, read: _Read, **fields: Any) -> None:
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

    # Carrying out ------------------------------------------------------------------------------

    async def _carry_out(self, plans: Sequence[_Plan]) -> None:
        await asyncio.gather(
            self._answer([plan for plan in plans if plan.publish is None]),
            *(self._publish(plan, plan.publish) for plan in plans if plan.publish is not None),
        )

    async def _answer(self, plans: Sequence[_Plan]) -> None:
        served = await self._replies.send([plan.answer for plan in plans if plan.answer])
        keys = {waiter.key for waiter in served}
        done = [plan for plan in plans if plan.answer is None or plan.answer.waiter.key in keys]
        try:
            await self._worker.flights.settle_all(
                [(plan.settle[0], [plan.settle[1]], False) for plan in done if plan.settle]
            )
        except StateAway:
            done = []  # decided again, and then known to be done
        for plan in done:
            await plan.delivery.ack()
        if len(done) < len(plans):
            await asyncio.sleep(_AGAIN_S)
            for plan in plans:
                await plan.delivery.give_back()

    async def _publish(self, plan: _Plan, message: Outgoing) -> None:
        """Publishes until it is confirmed, or the delivery is somebody else's; then acknowledges."""
        while plan.delivery.is_held:
            outcome = await self._worker.publisher.publish(message)
            if outcome is Published.CONFIRMED:
                await plan.delivery.ack()
                return
            log.warning("publish failed", extra={"to": message.routing_key, "how": outcome.name})
            await asyncio.sleep(_AGAIN_S)


def _speaker(delivery: Delivery) -> tuple[Priority, str]:
    try:
        return names.speaker_of(delivery.routing_key)
    except ValueError as error:
        raise Refused(ErrorType.INVALID_REQUEST, f"routing key: {error}") from None


def _source(read: _Read, hit: Hit) -> Source | None:
    if hit.why != "fresh":  # it waited for this flight: told again what it was told, or would have been
        return Source.PROVIDER if hit.payer == read.waiter.key else Source.DEDUPE
    return Source.DEDUPE if read.request.cache is CacheMode.JOIN else Source.CACHE


def _settlement(read: _Read, hit: Hit) -> tuple[str, Waiter] | None:
    return (read.admission.fingerprint, read.waiter) if hit.why == "known" else None
