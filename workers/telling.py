"""Telling what a flight came to: its events, and the replies to everybody who waits."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgpack

from broker.answers import Done, Expired, Late, Living, Spent, Stored
from broker.flights import LEASE_S, Result, StateAway
from producer_sdk.transport import Delivery
from topology.errors import ErrorType
from topology.events import EventType
from topology.messages import Job, Source, Waiter
from workers.claims import Call, Claims
from workers.moving import Executed, GoOn, Moving
from workers.replies import AWAY_S, Answer, Reached, Replies, error_outcome, passes_too_late
from workers.worker import Worker

_CLOCKS_APART_S: Final = 1.0
"""Redis judged the deadline; our copy of its clock is read each second."""
_NOTHING_OWED: Final = Expired()
_TOO_LATE: Final = error_outcome(
    ErrorType.DEADLINE_EXCEEDED,
    "deadline: it passed before a provider's permit or answer was there; submit the request again, with more "
    "time",
    retryable=True,
)


class Telling:
    """Publishes for a pool, or for the undertaker."""

    def __init__(self, worker: Worker, moving: Moving) -> None:
        self._worker = worker
        self._moving = moving
        self._claims = Claims(worker)
        self._replies = Replies(worker.publisher, worker.events, worker.clock)

    async def tell(self, delivery: Delivery, job: Job, ended: Done | Stored) -> Executed:
        """Publishes the events and every reply that is owed, marks who is served, acknowledges."""
        published = await self._publish(ended.events)
        answers = [Answer(w, ended.outcome, _source(w, ended)) for w in ended.waiters]
        reached = await self._replies.send_all(answers)
        served = [w for w, word in zip(ended.waiters, reached, strict=True) if word is Reached.YES]
        # What is owed to a queue that is away outlives the deadline: until the next try, with some to spare.
        keep_s = 3 * AWAY_S if Reached.AWAY in reached else 0.0
        try:
            await self._worker.flights.settle(job.fingerprint, served, events=published, keep_s=keep_s)
        except StateAway:
            return await self._moving.park(delivery, job, 0.0)
        if Reached.NO in reached or published != ended.events:
            return await self._moving.park(delivery, job, 0.0)  # the rest later: it is `done` then
        if Reached.AWAY in reached:
            return await self._moving.park(delivery, job, AWAY_S)
        delivery.ack()
        return GoOn()

    async def tell_spent(self, delivery: Delivery, job: Job, token: str, spent: Spent) -> Executed:
        """The flight was bought as often as it may be, and nobody knows an end: its waiters get an error."""
        doubts = b"".join(self._doubt(job, call) for call in spent.doubts)
        candidate = job.candidate
        outcome = error_outcome(
            ErrorType.PROVIDER_ERROR,
            f"{candidate.provider}/{candidate.model}: {spent.spends} calls ended without a known result, and "
            "each may have been billed; max_spends allows no more",
        )
        ended = await self._claims.until_decided(
            lambda: self._worker.flights.commit(
                job.fingerprint, job.waiter, token, spent.started, Result(outcome, events=doubts)
            )
        )
        if isinstance(ended, Stored):
            return await self.tell(delivery, job, ended)
        return await self._moving.park(delivery, job, 0.0)

    async def tell_late(self, delivery: Delivery, job: Job, token: str, late: Late) -> Executed:
        """A limit opens only after all deadlines; where somebody came with a later one, it waits."""
        doubts = b"".join(self._doubt(job, call) for call in late.doubts)
        outcome = passes_too_late(late.limit, late.until, self._worker.clock.now())
        ended = await self._claims.until_decided(
            lambda: self._worker.flights.commit(
                job.fingerprint,
                job.waiter,
                token,
                late.started,
                Result(outcome, events=doubts, retry_at=late.until),
            )
        )
        match ended:
            case Stored():
                return await self.tell(delivery, job, ended)
            case Living():
                await self.enter_doubtful(job, *late.doubts)
                await self._claims.give_back(job.fingerprint, token, sent=True)
        return await self._moving.park(delivery, job, 0.0)

    async def tell_expired(self, delivery: Delivery, job: Job, expired: Expired = _NOTHING_OWED) -> Executed:
        """Nobody waits any more: whoever did was told by its own timer; but a durable request has none.

        One that was called off, and not too late, was told so then. What the books are owed goes to them.
        """
        await self.enter_doubtful(job, *expired.doubts)
        published = await self._publish(expired.events)
        if published:
            with suppress(StateAway):  # then it goes out once more, some day
                await self._worker.flights.settle(job.fingerprint, [], events=published)
        if published != expired.events:
            return await self._moving.park(delivery, job, 0.0)
        late_s = self._worker.clock.now() - job.waiter.deadline
        if job.waiter.durable and late_s > -_CLOCKS_APART_S:
            answer = Answer(job.waiter, _TOO_LATE, None)
            if await self._replies.send_all([answer]) == [Reached.NO]:
                return await self._moving.park(delivery, job, 0.0)
        delivery.ack()
        return GoOn()

    async def write_ahead(self, call: Call, timeout_s: float) -> bool:
        """Enters a call in the books before its first byte leaves; False: RabbitMQ took no entry in time.

        `timeout_s` is the provider's: how long the call can last.
        """
        until = self._worker.clock.now() + timeout_s + LEASE_S
        return await self._worker.books.enter(
            EventType.CALL_STARTED, f"{call.id}:started", **self.facts(call), until=until
        )

    async def enter_failed(self, call: Call, seconds: float, **facts: Any) -> None:
        """Enters that a call ended in something else than an answer."""
        await self._worker.books.enter(
            EventType.CALL_FAILED,
            f"{call.id}:failed",
            **self.facts(call),
            latency_s=round(seconds, 4),
            **facts,
        )

    async def enter_doubtful(self, job: Job, *calls: Mapping[str, Any], **facts: Any) -> None:
        """Enters calls of which nobody knows whether they were billed."""
        for call in calls:
            await self._worker.books.enter_packed(self._doubt(job, call, **facts))

    async def _publish(self, events: bytes) -> bytes:
        """Publishes events, packed one after the other, and returns those that RabbitMQ took.

        The first that it does not take ends it: what is left keeps its order.
        """
        unpacker, taken = msgpack.Unpacker(), 0
        unpacker.feed(events)
        while taken < len(events):
            unpacker.skip()
            if not await self._worker.events.publish(events[taken : unpacker.tell()]):
                break
            taken = unpacker.tell()
        return events[:taken]

    def _doubt(self, job: Job, call: Mapping[str, Any], **facts: Any) -> bytes:
        """The packed entry about a doubtful call, which `job` has found out."""
        known = {k: v for k, v in call.items() if k in {"call", "provider", "model", "account", "worker"}}
        event = self._worker.events.event(
            EventType.SPEND_DOUBTFUL,
            id=f"{call['call']}:doubtful",
            **_about(job),
            called_for=call["request_id"],
            **known,
            **facts,
        )
        return event.to_bytes()

    def facts(self, call: Call) -> dict[str, Any]:
        """What every event about a call says of it."""
        job = call.job
        return {
            "call": call.id,
            "agent": job.waiter.agent,
            "request_id": job.waiter.id,
            "agent_type": job.request.agent_type,
            "flight": job.fingerprint,
            "provider": job.candidate.provider,
            "model": call.model.id,
            "account": call.run.account,
            "task": job.request.task,
            "priority": job.waiter.priority.value,
            "attempt": call.run.attempt,
            "worker": self._worker.id,
        }

    def tell_of(self, type_: EventType, job: Job, **facts: Any) -> None:
        """An event about a job."""
        self._worker.events.emit(type_, **_about(job), **facts)


def _about(job: Job) -> dict[str, Any]:
    return {"agent": job.waiter.agent, "request_id": job.waiter.id, "flight": job.fingerprint}


def _source(waiter: Waiter, ended: Done | Stored) -> Source | None:
    if ended.outcome.provider is None:
        return None
    return Source.PROVIDER if waiter.key == ended.payer else Source.DEDUPE
