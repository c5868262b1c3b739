"""What is in a job's way, as far as the front can know: it is told to callers who ask why they wait."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from broker.flights import StateAway
from topology import names
from topology.messages import Candidate, Job, Waiter
from topology.names import Priority
from workers.notices import TELL_EVERY_S, in_words
from workers.worker import Worker

_MOST_WATCHED: Final = 10_000


@dataclass(frozen=True)
class Obstacle:
    """Why a job would not start now; `until` is an instant (epoch seconds), as far as known."""

    waits_for: str
    until: float | None = None


def obstacle_of(worker: Worker, job: Job) -> Obstacle | None:
    """What the workers' heartbeats say of the line that the job goes to; None: nothing is in its way."""
    provider, roster = job.candidate.provider, worker.roster
    if provider in worker.paused:
        return Obstacle(in_words("paused", provider))
    if not roster.knows_anyone():
        return None
    pools = _pools(worker, provider)
    if not pools:
        return Obstacle(f"a worker for {provider}")
    closed = closed_line(worker, job.candidate, job.waiter.priority)
    return closed and Obstacle(in_words(closed.waits_for, provider), closed.until)


def closed_line(worker: Worker, candidate: Candidate, priority: Priority) -> Obstacle | None:
    """The limit that keeps a candidate's line closed at all its pools, and until when; None: none does."""
    pools = _pools(worker, candidate.provider)
    line = f"{_lane_of(worker, candidate)}.{priority.value}"
    if not pools or not all(line in pool.get("closed", {}) for pool in pools):
        return None
    opens_at = min(pool.get("opens_at", {}).get(line, 0.0) for pool in pools)
    if opens_at <= worker.clock.now():
        return None  # a heartbeat is as old as a second
    return Obstacle(pools[0]["closed"][line], opens_at)


class Lookout:
    """Follows the requests that ask why they wait, from here until a worker has started their jobs.

    What waits in a queue is in nobody's hand: only the heartbeats tell why. Owns one task, while there is
    something to follow. When the front dies it is forgotten, and nothing is lost but words.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._watched: dict[str, tuple[Waiter, Job]] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, waiter: Waiter, job: Job) -> None:
        """Tells `waiter` what is in the way of `job`, now and as that changes."""
        if len(self._watched) >= _MOST_WATCHED:
            return
        self._watched[waiter.key] = (waiter, job)
        if (obstacle := obstacle_of(self._worker, job)) is not None:
            self._worker.notices.tell(waiter, obstacle.waits_for, obstacle.until)
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="lookout")

    def close(self) -> None:
        """Follows nothing any more."""
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        while self._watched:
            await asyncio.sleep(TELL_EVERY_S)
            with suppress(StateAway):
                await self._look()
        self._task = None

    async def _look(self) -> None:
        watched = list(self._watched.items())
        queued = await self._worker.flights.are_queued([(job.fingerprint, w) for _, (w, job) in watched])
        hindered: list[tuple[Waiter, Job, Obstacle]] = []
        for (key, (waiter, job)), is_queued in zip(watched, queued, strict=True):
            if not is_queued:
                self._watched.pop(key, None)
            elif obstacle := obstacle_of(self._worker, job) or _in_use(self._worker, job):
                hindered.append((waiter, job, obstacle))
        outlook = self._worker.outlook(self._worker.fleet)
        places = await outlook.places([job.fingerprint for _, job, _ in hindered])
        for waiter, job, obstacle in hindered:
            place = places.get(job.fingerprint)
            self._worker.notices.tell(waiter, obstacle.waits_for, obstacle.until, place)


def _in_use(worker: Worker, job: Job) -> Obstacle | None:
    """Every call that the pools may make at once is under way."""
    provider = job.candidate.provider
    pools = _pools(worker, provider)
    if pools and all(pool.get("running", 0) >= pool.get("slots", 0) for pool in pools):
        return Obstacle(f"{provider} concurrency")
    return None


def _pools(worker: Worker, provider: str) -> list[Mapping[str, Any]]:
    reports = [report.get("providers") or {} for report in worker.roster.workers()]
    return [report[provider] for report in reports if provider in report]


def _lane_of(worker: Worker, candidate: Candidate) -> str:
    provider = worker.fleet.providers.get(candidate.provider)
    model = provider.model(candidate.model) if provider else None
    return model.lane if model else names.ANY_LANE
