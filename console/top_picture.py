"""What one frame of `optimizer top` shows, as values; composed from what was read and heard, without I/O."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from broker.standings import ClosedPart, LimitStanding
from console.readings import lanes_of
from console.top_traffic import AgentTraffic, Rate
from console.watching_tables import LiveWorker, QueueDepth, Status
from topology import names
from topology.fleet import Fleet
from topology.names import Priority, RetryTier

RATES = ("requests", "hits", "joins", "errors", "calls", "failed", "usd")


@dataclass(frozen=True)
class Lane:
    """What waits in one place.

    Attributes:
        provider: None: at the entrance.
        lane: Of the provider; none at the entrance.
        waiting: Messages that are ready, by priority; of jobs with those in the queues beside.
        unacked: Messages in somebody's hands; None: not known.
        consumers: Who takes from it.
        started_per_s: Calls; at the entrance requests that came in.
        waits_for: What keeps it waiting: a limit, `closed`, `circuit`; None: nothing does.
        opens_at: When it is looked at again, epoch seconds.
        paused: `pause` or `drain`, where an operator said so.
    """

    provider: str | None
    lane: str | None
    waiting: Mapping[str, int]
    unacked: int | None
    consumers: int
    started_per_s: float
    waits_for: str | None = None
    opens_at: float | None = None
    paused: str | None = None

    @property
    def load(self) -> int:
        """How much there is to do."""
        return sum(self.waiting.values()) + (self.unacked or 0)


@dataclass(frozen=True)
class Agent:
    """An agent in the last minute.

    Attributes:
        saved: Of its requests, those that cost no call.
        waiting: Flights that it has waiting for calls, now.
        share: Its part of all calls, from 0 to 1.
    """

    agent: str
    requests_per_s: float
    saved_per_s: float
    waiting: int
    calls_per_s: float
    share: float
    errors_per_s: float
    usd_per_min: float


@dataclass(frozen=True)
class WorkerSeen:
    """A worker, and when it was last heard; one that is gone is shown for a while."""

    worker: LiveWorker
    heard_s: float
    gone: bool = False


@dataclass(frozen=True)
class Picture:
    """One frame.

    Attributes:
        at: The instant, epoch seconds on Redis's clock.
        watched_s: For how long events have been heard; rates reach back no further.
        rates: By `RATES`; `usd` a second.
        elsewhere: What lies in the other queues: `retry`, `dead`, `dead.kept`, `events.recorder`.
        wrong: What is wrong, each with its remedy; as `optimizer health` says it.
        notes: What is worth knowing; likewise.
        away: Which source does not answer; its figures are the last there were.
    """

    at: float
    watched_s: float
    rates: Mapping[str, Rate]
    lanes: tuple[Lane, ...] = ()
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    limits: tuple[LimitStanding, ...] = ()
    closed: tuple[ClosedPart, ...] = ()
    agents: tuple[Agent, ...] = ()
    workers: tuple[WorkerSeen, ...] = ()
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    away: tuple[str, ...] = ()


def lanes(
    status: Status,
    fleet: Fleet | None,
    *,
    unacked: Mapping[str, int] | None,
    started: Mapping[tuple[str, str], float],
    came_in: float,
) -> tuple[Lane, ...]:
    """The entrance, then each provider's lanes; none before a queue has been measured.

    Args:
        status: As `optimizer status` knows it.
        fleet: Says in which lane a model's calls are; None: all are in `any`.
        unacked: By queue; None: not known.
        started: Calls a second, by provider and model.
        came_in: Requests a second.
    """
    if not status.queues:
        return ()
    depths = _by_common_name(status.queues)
    held = None if unacked is None else _counted((names.common_queue(n), c) for n, c in unacked.items())
    started_in = _counted(((p, _lane_of(fleet, p, model)), per_s) for (p, model), per_s in started.items())
    paused = {name: mode for worker in status.workers for name, mode in worker.paused.items()}

    def lane(queues: Mapping[str, str], provider: str | None, name: str | None, per_s: float) -> Lane:
        found = {priority: depths.get(queue, (0, 0)) for priority, queue in queues.items()}
        waits_for, opens_at = _closed(status.workers, provider, name)
        return Lane(
            provider,
            name,
            {priority: ready for priority, (ready, _) in found.items()},
            None if held is None else int(sum(held[queue] for queue in queues.values())),
            max((consumers for _, consumers in found.values()), default=0),
            per_s,
            waits_for,
            opens_at,
            paused.get(provider or ""),
        )

    return (
        lane({p.value: names.requests_queue(p) for p in Priority}, None, None, came_in),
        *(
            lane(
                {p.value: names.jobs_queue(provider, name, p) for p in Priority},
                provider,
                name,
                started_in[provider, name],
            )
            for provider, found in lanes_of(status.workers, fleet).items()
            for name in found
        ),
    )


def elsewhere(queues: Iterable[QueueDepth]) -> dict[str, int]:
    """What lies in the queues beyond the way of a request, where they stand."""
    tiers = {tier.queue for tier in RetryTier}
    others = (names.DEAD_QUEUE, names.DEAD_KEPT_QUEUE, names.RECORDER_QUEUE)
    found: Counter[str] = Counter()
    for queue in queues:
        if queue.ready is not None and (queue.name in tiers or queue.name in others):
            found["retry" if queue.name in tiers else queue.name] += queue.ready
    return dict(found)


def agents(traffic: Sequence[AgentTraffic], waiting: Mapping[str, int]) -> tuple[Agent, ...]:
    """Those who were heard of in the last minute, or who wait, by their names."""
    calls = sum(one.calls for one in traffic)
    heard = {one.agent: one for one in traffic}
    quiet = AgentTraffic("", 0, 0, 0, 0, 0)
    return tuple(
        Agent(
            name,
            requests_per_s=one.requests,
            saved_per_s=one.saved,
            waiting=waiting.get(name, 0),
            calls_per_s=one.calls,
            share=one.calls / calls if calls else 0.0,
            errors_per_s=one.errors,
            usd_per_min=one.usd_per_min,
        )
        for name in sorted({*heard, *waiting})
        for one in (heard.get(name, quiet),)
    )


def _by_common_name(queues: Iterable[QueueDepth]) -> dict[str, tuple[int, int]]:
    """Ready messages and consumers, those of side queues with the queue that they stand beside."""
    found: dict[str, tuple[int, int]] = {}
    for queue in queues:
        name = names.common_queue(queue.name)
        ready, consumers = found.get(name, (0, 0))
        found[name] = ready + (queue.ready or 0), max(consumers, queue.consumers or 0)
    return found


def _counted(pairs: Iterable[tuple[object, float]]) -> "Counter[object]":
    found: Counter[object] = Counter()
    for key, number in pairs:
        found[key] += number  # type: ignore[assignment]
    return found


def _lane_of(fleet: Fleet | None, provider: str, model: str) -> str:
    known = fleet.providers.get(provider) if fleet else None
    offered = known.model(model) if known else None
    return offered.lane if offered else names.ANY_LANE


def _closed(
    workers: Iterable[LiveWorker], provider: str | None, lane: str | None
) -> tuple[str | None, float | None]:
    """What keeps a lane waiting, of that which its pools say of its most urgent class, and until when."""
    pools = [pool for worker in workers for pool in worker.pools if pool.provider == provider]
    for priority in Priority:
        line = f"{lane}.{priority}"
        for pool in pools:
            if line in pool.closed:
                return pool.closed[line], pool.opens_at.get(line)
    return None, None
