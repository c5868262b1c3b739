"""Where a request stands: at the entrance, in a line, in a retry tier, at a provider."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgpack
from redis.asyncio import Redis

from broker.away import asking
from broker.controls import Controls
from broker.finding import find_waiters
from broker.flights import Flights
from broker.outlook import Outlook
from topology.fleet import Fleet
from topology.messages import Waiter

State = Literal["limited", "queued", "parked", "running", "answered"]
"""`limited`: a rate of its agent or of the fleet lets it pass later. `queued`: its job waits for a permit.
`parked`: its job comes back from a retry tier. `running`: a provider is being called. `answered`: it is being
told."""


@dataclass(frozen=True)
class Whereabouts:
    """One request. Instants are epoch seconds; None: not known, or not of this state.

    Attributes:
        agent: Who asked.
        priority: Its class.
        deadline: When its caller gives up.
        provider: Where its job waits, or is called.
        lane: The part of the provider with limits of its own.
        model: What is called.
        position: How many of its class are expected to start before it.
        starts_at: When its call is expected to start, or did.
        until: When a `limited` or `parked` one goes on.
        attempts: Calls made for it so far.
        shared_by: How many requests wait for the same answer, itself included.
        worker: Who calls the provider.
        paused: Whether an operator has paused the provider.
    """

    request: str
    agent: str
    state: State
    priority: str | None = None
    queued_at: float | None = None
    deadline: float | None = None
    provider: str | None = None
    lane: str | None = None
    model: str | None = None
    position: int | None = None
    starts_at: float | None = None
    until: float | None = None
    attempts: int = 0
    shared_by: int = 1
    worker: str | None = None
    paused: bool = False

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


class Tracer:
    """Finds requests by their ids. Raises `StateAway`.

    Args:
        redis: Connected with `decode_responses=False`; not closed here.
        fleet: Whose limits hold; without a provider, nothing is expected of its lines.
        prefix: Put before every key of Redis, for fleets that share one.
    """

    def __init__(self, redis: Redis, fleet: Fleet, prefix: str = "") -> None:
        self._redis = redis
        self._flights = Flights(redis, prefix)
        self._outlook = Outlook(redis, fleet, prefix)
        self._controls = Controls(redis, self._flights.prefix)

    async def of(self, request_id: str, agent: str | None = None) -> list[Whereabouts]:
        """All that wait under this id, at most one of each agent; of this agent only, where one is named."""
        found = await find_waiters(self._redis, self._flights.prefix, request_id)
        return [
            await self._standing(key, waiter)
            for key, waiter in sorted(found.items())
            if agent is None or key.partition("/")[0] == agent
        ]

    async def _standing(self, key: str, waiter: Waiter | None) -> Whereabouts:
        name, _, id_ = key.partition("/")
        known: dict[str, Any] = {"request": id_, "agent": name}
        if waiter is not None:
            known |= {
                "priority": waiter.priority.value,
                "queued_at": waiter.queued_at,
                "deadline": waiter.deadline,
            }
        now, passes_at = await self._flights.now(), await self._passes_at(name, key)
        if passes_at is not None and passes_at > now:
            return Whereabouts(**known, state="limited", until=passes_at)
        with asking():
            fingerprint = await self._redis.get(f"{self._flights.prefix}request:{key}")
        name = fingerprint.decode() if isinstance(fingerprint, bytes) else ""
        return Whereabouts(**known, **await self._of_flight(name, now))

    async def _passes_at(self, agent: str, key: str) -> float | None:
        """The instant that a rate at the entrance has booked for it."""
        rates = (f"{self._flights.prefix}rate:agent:{agent}", f"{self._flights.prefix}rate:fleet")
        with asking():
            booked = [await self._redis.zscore(rate, key) for rate in rates]
        return max((float(instant) for instant in booked if instant is not None), default=None)

    async def _of_flight(self, fingerprint: str, now: float) -> dict[str, Any]:
        flight = f"{self._flights.prefix}flight:{fingerprint}"
        with asking():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hmget(flight, "state", "parked_until", "attempts", "call", "started", "worker")
                pipeline.hlen(f"{self._flights.prefix}waiters:{fingerprint}")
                fields, waiters = await pipeline.execute()
        state, parked_until, attempts, call, started, worker = fields
        facts: dict[str, Any] = {"attempts": int(attempts or 0), "shared_by": max(1, waiters)}
        if state == b"running":
            of_call = msgpack.unpackb(call) if call else {}
            named = {name: of_call.get(name) for name in ("provider", "model")}
            return {
                **facts,
                **named,
                "state": "running",
                "starts_at": float(started),
                "worker": worker.decode(),
            }
        if state not in {b"queued", None}:
            return {**facts, "state": "answered"}
        if float(parked_until or 0) > now:
            return {**facts, "state": "parked", "until": float(parked_until)}
        return {**facts, "state": "queued", **await self._place(fingerprint)}

    async def _place(self, fingerprint: str) -> dict[str, Any]:
        place = (await self._outlook.places([fingerprint])).get(fingerprint)
        if place is None:
            return {}
        _, provider, lane, _ = place.queue.split(".")
        paused = provider in (await self._controls.read()).paused
        return {
            "provider": provider,
            "lane": lane,
            "position": place.ahead,
            "starts_at": None if paused else place.starts_at,
            "paused": paused,
        }
