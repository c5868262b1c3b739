"""Reading a request as it arrives: who speaks, what is asked, where it can go; or why it cannot."""

from dataclasses import dataclass
from typing import Any

from broker.flights import Admission
from producer_sdk.transport import Delivery
from topology import names
from topology.errors import ErrorType, Refused
from topology.fingerprint import fingerprint
from topology.messages import Candidate, Envelope, Request, Waiter
from topology.names import Priority
from topology.route import static_route
from workers.worker import Worker


@dataclass(frozen=True)
class Readable:
    """A request that can be admitted."""

    delivery: Delivery
    request: Request
    waiter: Waiter
    route: tuple[Candidate, ...]
    admission: Admission


@dataclass(frozen=True)
class Unfit:
    """A request that cannot. Its sender is told, if it can be; else a copy is kept for people."""

    delivery: Delivery
    waiter: Waiter | None
    refused: Refused


class Reader:
    """Reads what agents publish, and what comes back from a retry tier."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._fleet = worker.fleet

    def read(self, delivery: Delivery) -> Readable | Unfit:
        """Reads one delivery; whatever is wrong with it is a value."""
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
            return Unfit(delivery, waiter, refused)
        return Readable(delivery, request, waiter, route, admission)

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
        max_age_s, keep_s = self._fleet.cache.freshness(request)
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


def _speaker(delivery: Delivery) -> tuple[Priority, str]:
    try:
        return names.speaker_of(delivery.routing_key)
    except ValueError as error:
        raise Refused(ErrorType.INVALID_REQUEST, f"routing key: {error}") from None
