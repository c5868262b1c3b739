"""Telling what a flight came to: its events, and the replies to everybody who waits."""

from collections.abc import Mapping
from typing import Any

from broker.answers import Done, Stored
from broker.flights import StateAway
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

    def report_doubtful(self, job: Job, call: Mapping[str, Any] | None) -> None:
        """An earlier call of which nobody knows the end; None: there was none."""
        if call:
            facts = {k: v for k, v in call.items() if k in {"provider", "model", "account", "worker"}}
            self.tell_of(EventType.SPEND_DOUBTFUL, job, called_for=call.get("request_id"), **facts)

    def facts(self, call: Call, seconds: float) -> dict[str, Any]:
        """What a learning event says of a call, however it ended."""
        job = call.job
        return {
            "id": f"{job.fingerprint}-{call.terms.token}",
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
            "latency_s": round(seconds, 4),
            "worker": self._worker.id,
        }

    def tell_of(self, type_: EventType, job: Job, **facts: Any) -> None:
        """An event about a job."""
        self._worker.events.emit(
            type_,
            agent=job.waiter.agent,
            request_id=job.waiter.id,
            flight=job.fingerprint,
            **facts,
        )


def _source(waiter: Waiter, ended: Done | Stored) -> Source | None:
    if ended.outcome.provider is None:
        return None
    return Source.PROVIDER if waiter.key == ended.payer else Source.DEDUPE
