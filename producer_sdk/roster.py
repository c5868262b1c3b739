"""Who is alive: what the workers say of themselves each second, and who has fallen silent."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Final

from aiormq import Channel
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from producer_sdk.transport import Delivery, Subscriber, Subscription
from topology import names
from topology.errors import Refused
from topology.events import EventType
from topology.messages import Event

Report = Mapping[str, Any]
"""What a worker says of itself: the fields of `optimizer.worker.health`."""

SILENCE_S: Final = 5.0
BEAT_S: Final = 1.0
_FRONT: Final = "front"
_PREFETCH: Final = 100
_QUEUE_EXPIRES_MS: Final = 60_000


_Tokens = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _PoolShape(BaseModel):
    closed: dict[str, str] = {}
    opens_at: dict[str, float] = {}
    answers: dict[str, tuple[NonNegativeInt, _Tokens, _Tokens]] = {}


class _Shape(BaseModel):
    """What must hold of a report: anybody may publish an event."""

    worker: str
    roles: list[str] = []
    providers: dict[str, _PoolShape] = {}
    sides: dict[str, int] = {}


class Roster:
    """The workers of the fleet, by what they publish as `optimizer.worker.health`.

    Args:
        watcher: A name of its own for the queue it listens on.
        on_change: Called when a worker appears, leaves or takes other roles.
    """

    def __init__(self, watcher: str, on_change: Callable[[], None] | None = None) -> None:
        self._queue = f"watch.{watcher}"
        self._on_change = on_change
        self._seen: dict[str, tuple[float, Report]] = {}

    async def listen(self, subscriber: Subscriber) -> None:
        """Listens from now on."""
        await subscriber.add(
            Subscription(self._queue, _PREFETCH, self._on_delivery, self._declare, self._rename)
        )

    def workers(self) -> list[Report]:
        """What each living worker said last."""
        now = asyncio.get_running_loop().time()
        for worker, (at, _) in list(self._seen.items()):
            if now - at > SILENCE_S:
                del self._seen[worker]
        return [report for _, report in self._seen.values()]

    def knows_anyone(self) -> bool:
        """Whether any worker has been heard at all lately."""
        return bool(self.workers())

    def pools(self, provider: str) -> list[str]:
        """The living workers that have a pool for this provider."""
        return [str(r["worker"]) for r in self.workers() if provider in (r.get("providers") or {})]

    def is_broken(self, provider: str) -> bool:
        """Whether one of its pools waits for the provider's circuit to close."""
        pools = [(report.get("providers") or {}).get(provider) or {} for report in self.workers()]
        return any("circuit" in (pool.get("closed") or {}).values() for pool in pools)

    def ages(self) -> dict[str, float]:
        """How many seconds ago each living worker was heard, by its id."""
        now = asyncio.get_running_loop().time()
        return {str(r["worker"]): now - self._seen[str(r["worker"])][0] for r in self.workers()}

    def hear(self, event: Event) -> None:
        """Takes in a heartbeat; one that is none is passed over, since anybody may publish an event."""
        report = event.model_dump()
        try:
            _Shape.model_validate(report)
        except ValidationError:
            return
        worker = str(report.get("worker"))
        before = self._seen.get(worker)
        if report.get("leaving"):
            self._seen.pop(worker, None)
        else:
            self._seen[worker] = (asyncio.get_running_loop().time(), report)
        known = before is not None and before[1].get("roles") == report.get("roles")
        if self._on_change is not None and (report.get("leaving") or not known):
            self._on_change()

    def _on_delivery(self, delivery: Delivery) -> None:
        delivery.ack()
        with suppress(Refused):
            self.hear(Event.from_bytes(delivery.body))

    def _rename(self, queue: str) -> None:
        self._queue = queue

    async def _declare(self, channel: Channel) -> None:
        await channel.queue_declare(
            self._queue,
            durable=True,
            arguments={
                "x-queue-type": "classic",
                "x-expires": _QUEUE_EXPIRES_MS,
                "x-message-ttl": 5000,
            },
        )
        await channel.queue_bind(self._queue, names.EVENTS, EventType.WORKER_HEALTH.value)


def what_is_missing(reports: Iterable[Report], providers: Iterable[str]) -> list[str]:
    """Why the fleet is not whole, a sentence each: roles that nobody has, workers without what they need.

    Args:
        reports: What each living worker said last.
        providers: Those that must have a pool; where there are none, any pool will do.
    """
    living = list(reports)
    problems = []
    served = {provider for report in living for provider in report.get("providers") or ()}
    if not any(_FRONT in (report.get("roles") or ()) for report in living):
        problems.append("no front is alive, so requests wait; run: optimizer worker front")
    if not served:
        problems.append("no backend is alive, so jobs wait; run: optimizer worker backend:all")
    else:
        problems += [
            f"{name} has no pool alive, so its jobs wait; run: optimizer worker backend:{name}"
            for name in providers
            if name not in served
        ]
    for report in sorted(living, key=lambda report: str(report.get("worker"))):
        who = f"{report.get('worker')} on {report.get('host')}"
        if (redis := report.get("redis", "unknown")) != "up":
            problems.append(f"{who} does not reach Redis ({redis})")
        if (database := report.get("database", "up")) != "up":
            problems.append(f"{who} records nothing, so events wait in {names.RECORDER_QUEUE} ({database})")
    return problems
