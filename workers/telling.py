"""Telling what a flight came to: its events, and the replies to everybody who waits."""

from collections.abc import Mapping
from typing import Any

from broker.answers import Done, Stored
from broker.flights import LEASE_S, StateAway
from producer_sdk.transport import Delivery
from topology.events import EventType
from topology.fleet import Provider
from topology.messages import Job, Source, Waiter
from workers.claims import Call
from workers.moving import Executed, GoOn, Moving
from workers.replies import Answer, Replies
from workers.worker import Worker


class Telling:
    """Publishes for one provider's pool."""

    def __init__(self, worker: Worker, provider: Provider, moving: Moving) -> None:
        self._worker = worker
        self._provider = provider
        self._moving = moving
        self._replies = Replies(worker.publisher, worker.events, worker.clock)

    async def tell(self, delivery: Delivery, job: Job, ended: Done | Stored) -> Executed:
        """Publishes the events and every reply that is owed, marks who is served, acknowledges."""
        published = bool(ended.events) and await self._worker.events.publish(ended.events)
        answers = [Answer(w, ended.outcome, _source(w, ended)) for w in ended.waiters]
        served = await self._replies.send(answers)
        try:
            await self._worker.flights.settle(job.fingerprint, served, events=published)
        except StateAway:
            return await self._moving.park(delivery, job, 0.0)
        if len(served) < len(ended.waiters) or (ended.events and not published):
            return await self._moving.park(delivery, job, 0.0)  # the rest later: it is `done` then
        delivery.ack()
        return GoOn()

    async def write_ahead(self, call: Call) -> bool:
        """Enters a call in the books before its first byte leaves; False: RabbitMQ took no entry in time."""
        until = self._worker.clock.now() + self._provider.timeout_s + LEASE_S
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

    async def enter_doubtful(self, job: Job, call: Mapping[str, Any] | None, **facts: Any) -> None:
        """Enters a call of which nobody knows whether it was billed; None: there was none."""
        if call:
            await self._worker.books.enter_packed(self.doubt(job, call, **facts))

    def doubt(self, job: Job, call: Mapping[str, Any], **facts: Any) -> bytes:
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
            "provider": self._provider.name,
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
