"""Reading a request as it arrives: who speaks, what is asked, where it can go; or why it cannot."""

from dataclasses import dataclass, replace
from typing import Any, Final

from broker.budgets import Budgets
from broker.flights import Admission
from broker.standings import FOR_GOOD
from producer_sdk.transport import Delivery
from topology import names
from topology.errors import ErrorType, Refused
from topology.fingerprint import fingerprint
from topology.messages import Candidate, Envelope, Job, Outcome, Request, Waiter
from topology.names import Priority
from topology.route import static_route
from topology.wire import MAX_BODY_BYTES
from workers.cancelling import Withdrawal, withdrawal_of
from workers.forecasts import Forecasts
from workers.obstacles import Obstacle, closed_line
from workers.prospects import worth_moving_s
from workers.replies import jobs_queue_of
from workers.worker import Worker

_ROUTES_KEPT: Final = 1000
_LOOKED_UP_S: Final = 0.25
_UNSURE: Final = frozenset({"circuit", "paused", "turn", "round"})
"""What may open at any time, whatever instant is told."""
_UNREADABLE: Final = "\ufffd"
"""What stands for bytes of a property that are no UTF-8."""


@dataclass(frozen=True)
class Readable:
    """A request that can be admitted. `route` is the static one, in the order in which it is tried now.

    `lacks` is how it ends if it needs a call: all of its route are known to lack something that it uses.
    """

    delivery: Delivery
    request: Request
    waiter: Waiter
    route: tuple[Candidate, ...]
    admission: Admission
    lacks: Outcome | None = None


@dataclass(frozen=True)
class Unfit:
    """A request that cannot. Its sender is told, if it can be; else a copy is kept for people."""

    delivery: Delivery
    waiter: Waiter | None
    refused: Refused


@dataclass(frozen=True)
class _Standing:
    """How a candidate's line stands: whether its provider is paused, dead, failing; when the line opens."""

    rank: tuple[bool, bool, bool]
    opens_in_s: float
    closed: Obstacle | None


class Reader:
    """Reads what agents publish, and what comes back from a retry tier.

    Args:
        worker: Whose fleet, roster and clock it goes by.
        forecasts: When a newcomer would start in each line; None: nobody knows.
    """

    def __init__(self, worker: Worker, forecasts: Forecasts | None = None) -> None:
        self._worker = worker
        self._forecasts = forecasts
        self._fleet = worker.fleet
        self._routes: dict[object, tuple[Candidate, ...]] = {}
        self._standings: dict[tuple[Candidate, Priority], _Standing] = {}
        self._looked_up: object = None

    def read(self, delivery: Delivery, exchange: str | None = None) -> Readable | Withdrawal | Unfit:
        """Reads one delivery; whatever is wrong with it is a value.

        `exchange` is where it was published, if it has come another way since.
        """
        waiter: Waiter | None = None
        try:
            # Agents cannot publish there: it went round inside.
            if (exchange or delivery.exchange) == names.JOBS:
                envelope = Envelope.from_bytes(delivery.body)
                request, waiter = envelope.request, envelope.waiter
                self._in_time(waiter.deadline, self._worker.clock.now())
            else:
                priority, agent = _speaker(delivery)
                if delivery.properties.message_type == names.CANCEL_TYPE:
                    return withdrawal_of(delivery, agent)
                waiter = self._addressee(delivery, priority, agent)
                request = Request.from_bytes(delivery.body)
                waiter = self._waiter(delivery, request, waiter)
            route, lacks = self._worker.learning.around(request, self._route(request))
            route = self._soonest_first(route, waiter)
            admission = self._admission(request, waiter, route)
            if lacks is not None:  # a stored answer may do, or a call that runs; no new one starts
                admission = replace(admission, earliest=(FOR_GOOD, "lesson"))
            if len(delivery.body) > MAX_BODY_BYTES // 2:
                _check_size(
                    Job(fingerprint=admission.fingerprint, request=request, waiter=waiter, route=route)
                )
        except Refused as refused:
            return Unfit(delivery, waiter, refused)
        return Readable(delivery, request, waiter, route, admission, lacks)

    def _addressee(self, delivery: Delivery, priority: Priority, agent: str) -> Waiter | None:
        """Who can be told of an error, before the body has been read."""
        properties = delivery.properties
        if not properties.correlation_id or not properties.reply_to:
            return None
        if not names.may_reply_to(agent, properties.reply_to) or _UNREADABLE in properties.reply_to:
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
        self._in_time(deadline, now)
        return sender.model_copy(
            update={
                "deadline": min(deadline, now + section.max_deadline_s),
                "stream": request.stream,
                "durable": request.durable,
                "tell_waits": request.tell_waits,
            }
        )

    @staticmethod
    def _in_time(deadline: float, now: float) -> None:
        if deadline <= now:
            raise Refused(
                ErrorType.DEADLINE_EXCEEDED,
                f"deadline: it passed {now - deadline:.1f} s before the request arrived; give more time, "
                "or set this machine's clock",
                retryable=True,
            )

    def _admission(self, request: Request, waiter: Waiter, route: tuple[Candidate, ...]) -> Admission:
        max_age_s, keep_s = self._fleet.cache.freshness(request)
        return Admission(
            fingerprint(request),
            waiter,
            max_age_s,
            keep_s,
            self._limits(waiter.agent),
            jobs_queue_of(self._fleet, route[0], waiter.priority),
            self._earliest(route, waiter.priority),
            self._budgets(waiter.agent, route),
        )

    def _budgets(self, agent: str, route: tuple[Candidate, ...]) -> tuple[dict[str, Any], ...]:
        """Of which something must be left; none where a candidate may cost nothing."""
        providers = self._fleet.providers
        models = (providers[one.provider].model(one.model) for one in route if one.provider in providers)
        if not all(model is not None and model.price for model in models):
            return ()
        budgets = Budgets(self._fleet.budgets, self._worker.flights.prefix)
        return budgets.at_entrance(agent, self._worker.clock.now())

    def _earliest(self, route: tuple[Candidate, ...], priority: Priority) -> tuple[float, str] | None:
        """When the first of these lines opens, and its limit; None: one may be open at any time."""
        closed = [self._standing(candidate, priority).closed for candidate in route]
        opening = [
            (c.until, c.waits_for)
            for c in closed
            if c and c.until and c.until < FOR_GOOD and c.waits_for not in _UNSURE
        ]
        return min(opening) if len(opening) == len(route) else None

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

    def _route(self, request: Request) -> tuple[Candidate, ...]:
        """The static route: the same for all requests that ask for the same model on the same terms."""
        if request.constraints.max_cost_usd is not None:  # depends on the size of the prompt
            return static_route(self._fleet, request)
        key = (request.operation, request.model, request.task, request.constraints)
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= _ROUTES_KEPT:
                self._routes.clear()
            route = self._routes[key] = static_route(self._fleet, request)
        return route

    def _soonest_first(self, route: tuple[Candidate, ...], waiter: Waiter) -> tuple[Candidate, ...]:
        """Pools with a heartbeat before those without, or whose calls fail; paused providers last.

        Among the others those that are expected to answer in time, and of these those that start it sooner:
        10 s sooner, or a tenth of the time that it has, where that is less. What is alike stays in the
        route's order. A job for a dead or a paused one waits in its queue.
        """
        if len(route) == 1:
            return route
        left_s = max(0.0, waiter.deadline - self._worker.clock.now())
        step_s = worth_moving_s(left_s)

        def rank(candidate: Candidate) -> tuple[tuple[bool, bool, bool], bool, int]:
            standing = self._standing(candidate, waiter.priority)
            wait_s = max(standing.opens_in_s, self._wait_s(candidate, waiter.priority))
            is_late = wait_s + self._takes_s(candidate, waiter.priority) > left_s
            return standing.rank, is_late, int(wait_s // step_s)

        chosen = tuple(sorted(route, key=rank))
        if self._forecasts is not None:
            self._forecasts.take(jobs_queue_of(self._fleet, chosen[0], waiter.priority))
        return chosen

    def _wait_s(self, candidate: Candidate, priority: Priority) -> float:
        if self._forecasts is None:
            return 0.0
        queue = jobs_queue_of(self._fleet, candidate, priority)
        return self._forecasts.wait_s(queue, self._worker.clock.now())

    def _takes_s(self, candidate: Candidate, priority: Priority) -> float:
        if self._forecasts is None:
            return 0.0
        return self._forecasts.takes_s(jobs_queue_of(self._fleet, candidate, priority))

    def _standing(self, candidate: Candidate, priority: Priority) -> _Standing:
        """As the heartbeats tell it, looked up a few times a second, and when an operator says a word."""
        now, paused, roster = self._worker.clock.now(), self._worker.paused, self._worker.roster
        if self._looked_up != (paused, int(now / _LOOKED_UP_S)):
            self._looked_up = (paused, int(now / _LOOKED_UP_S))
            self._standings.clear()
        key = (candidate, priority)
        if key not in self._standings:
            closed, name = closed_line(self._worker, candidate, priority), candidate.provider
            opens_in_s = closed.until - now if closed and closed.until else 0.0
            is_dead = roster.knows_anyone() and not roster.pools(name)
            rank = (name in paused, is_dead, roster.is_broken(name))
            self._standings[key] = _Standing(rank, opens_in_s, closed)
        return self._standings[key]


def _check_size(job: Job) -> None:
    """A number of five bytes may take nine when it is packed again."""
    try:
        job.to_bytes()
    except Refused as refused:
        raise Refused(ErrorType.INVALID_REQUEST, f"request: it grows inside ({refused.message})") from None


def _speaker(delivery: Delivery) -> tuple[Priority, str]:
    try:
        return names.speaker_of(delivery.routing_key)
    except ValueError as error:
        raise Refused(ErrorType.INVALID_REQUEST, f"routing key: {error}") from None
