"""What `optimizer status` and `optimizer top` read of RabbitMQ and of the workers' words, in one place."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiormq
import httpx
from aio_pika.abc import AbstractConnection

from broker.declaring import virtual_host
from broker.managing import management
from console.watching_tables import LivePool, LiveWorker, QueueDepth, Status
from producer_sdk.roster import Report, what_is_missing
from producer_sdk.settings import masked
from topology import names
from topology.fleet import Fleet
from topology.names import Priority, RetryTier
from workers.running import RECORDER

_MOST_NAMED: Final = 5
_ANSWER_S: Final = 5.0
_PAGE_SIZE: Final = 500
_OURS: Final = r"^(requests|jobs|retry|dead)(\.|$)"
"""The queues of the fleet, as against those of agents and workers, of which there can be thousands."""


def status_of(
    reports: Sequence[Report],
    queues: Sequence[QueueDepth],
    fleet: Fleet | None,
    *,
    missing: Sequence[str] = (),
    alarm: str | None = None,
) -> Status:
    """Who lives, what waits, and what is wrong.

    Args:
        reports: What each living worker said last.
        queues: As `measure` found those of `queue_names`.
        fleet: Whose providers must have pools; None: any pool will do.
        missing: What else is not in RabbitMQ.
        alarm: Why RabbitMQ takes no messages; heartbeats are messages, too.
    """
    workers = live_workers(reports)
    stand = tuple(q for q in queues if q.ready is not None or q.name != names.RECORDER_QUEUE)
    gone = [*missing, *(q.name for q in stand if q.ready is None and q.name not in missing)]
    wrong = what_is_missing(reports, fleet.providers if fleet else ())
    if alarm and not reports:
        wrong = [alarm]
    return Status(workers, stand, [*_topology_problems(gone), *wrong, *_unrecorded(stand, workers)])


def live_workers(reports: Iterable[Report]) -> tuple[LiveWorker, ...]:
    """What the workers say of themselves, by their ids."""
    return tuple(sorted(map(_live_worker, reports), key=lambda worker: worker.id))


def queue_names(workers: Sequence[LiveWorker], fleet: Fleet | None) -> list[str]:
    """The queues of a fleet and of its workers' pools, in the order a request passes them."""
    return [
        *(names.requests_queue(priority) for priority in Priority),
        *(
            names.jobs_queue(provider, lane, priority)
            for provider, lanes in lanes_of(workers, fleet).items()
            for lane in lanes
            for priority in Priority
        ),
        *(tier.queue for tier in RetryTier),
        names.DEAD_QUEUE,
        names.DEAD_KEPT_QUEUE,
        names.RECORDER_QUEUE,
    ]


def lanes_of(workers: Sequence[LiveWorker], fleet: Fleet | None) -> dict[str, list[str]]:
    """The lanes of each provider, by name, `any` first."""
    lanes = {name: set(provider.lanes) for name, provider in (fleet.providers if fleet else {}).items()}
    for pool in (pool for worker in workers for pool in worker.pools):
        lanes.setdefault(pool.provider, {names.ANY_LANE}).update(pool.lanes)
    return {
        provider: sorted(lanes[provider], key=lambda lane: (lane != names.ANY_LANE, lane))
        for provider in sorted(lanes)
    }


async def measure(connection: AbstractConnection, queues: Sequence[str]) -> tuple[QueueDepth, ...]:
    """What waits in each of these queues, and how many consume it. Raises one of `AWAY`."""
    measured = []
    channel = await connection.channel()
    for name in queues:
        try:
            answer = (await channel.declare_queue(name, passive=True)).declaration_result
            measured.append(QueueDepth(name, answer.message_count, answer.consumer_count))
        except aiormq.exceptions.ChannelNotFoundEntity:
            measured.append(QueueDepth(name, None, None))
            channel = await connection.channel()  # a failed passive declaration closes its channel
    await channel.close()
    return tuple(measured)


async def unacknowledged(amqp_url: str, management_url: str) -> dict[str, int] | None:
    """What somebody holds of each queue; None where RabbitMQ's management API does not say.

    Its figures are as old as 5 s, which is how often RabbitMQ counts.
    """
    path = f"/api/queues/{quote(virtual_host(amqp_url), safe='')}"
    chosen = {"columns": "name,messages_unacknowledged", "name": _OURS, "use_regex": "true"}
    found: dict[str, int] = {}
    page, pages = 1, 1
    try:
        async with management(management_url, _ANSWER_S) as client:
            while page <= pages:
                paged = {"page": str(page), "page_size": str(_PAGE_SIZE)}
                answer = (await client.get(path, params={**chosen, **paged})).raise_for_status().json()
                found |= {q["name"]: q.get("messages_unacknowledged", 0) for q in answer["items"]}
                page, pages = page + 1, answer["page_count"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return None
    return found


def unreachable(what: str, url: str, error: BaseException) -> str:
    """One sentence on a broker that does not answer; no password is in it."""
    reason = str(error) or type(error).__name__
    try:
        where = f" at {masked(url)}"
    except ValueError:  # no URL, which is what the error says
        where = ""
    return f"{what}{where} cannot be reached ({reason})"


def _live_worker(report: Mapping[str, Any]) -> LiveWorker:
    return LiveWorker(
        id=str(report.get("worker")),
        roles=tuple(str(role) for role in report.get("roles") or ()),
        host=str(report.get("host")),
        pid=int(report.get("pid") or 0),
        redis=str(report.get("redis", "unknown")),
        pools=tuple(
            LivePool(
                provider=provider,
                running=pool.get("running", 0),
                slots=pool.get("slots", 0),
                waiting=pool.get("waiting", 0),
                closed=dict(pool.get("closed") or {}),
                lanes=tuple(pool.get("lanes") or ()),
                opens_at=dict(pool.get("opens_at") or {}),
            )
            for provider, pool in (report.get("providers") or {}).items()
        ),
        paused=dict(report.get("paused") or {}),
        config=report.get("config"),
        config_error=report.get("config_error"),
        sides=dict(report.get("sides") or {}),
    )


def _topology_problems(missing: Sequence[str]) -> list[str]:
    if not missing:
        return []
    named = ", ".join(missing[:_MOST_NAMED])
    more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    return [f"topology: RabbitMQ has no {named}{more}; run: optimizer topology apply"]


def _unrecorded(queues: Iterable[QueueDepth], workers: Iterable[LiveWorker]) -> list[str]:
    """Where there was a recorder once, its queue stands."""
    if any(RECORDER in worker.roles for worker in workers):
        return []
    remedy = "run: optimizer worker recorder, or delete that queue"
    return [
        f"no recorder is alive, so events pile up in {queue.name}; {remedy}"
        for queue in queues
        if queue.name == names.RECORDER_QUEUE
    ]
