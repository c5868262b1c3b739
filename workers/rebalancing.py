"""Moving what waits in a pool's hands to the candidate that starts it sooner, where that is worth it."""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker.flights import StateAway
from broker.outlook import Newcomers, Outlook
from topology.errors import Refused
from topology.messages import Job
from workers.hand import Held
from workers.line import Line
from workers.moving import Moving, worth_moving_s
from workers.replies import job_message
from workers.worker import Worker

log = logging.getLogger("optimizer.rebalancing")

_EVERY_S: Final = 0.5
_REST: Final = 10
"""So many times as long as looking took, nothing is looked at."""
_AT_ONCE: Final = 40
"""Of what a line holds, the last are looked at: they wait the longest."""
_WHY: Final = "sooner"


@dataclass
class _Elsewhere:
    """When newcomers would start in other lines; whoever is sent there takes the first place."""

    outlook: Outlook
    lines: dict[str, Newcomers] = field(default_factory=dict)
    starts: dict[str, deque[float]] = field(default_factory=dict)

    async def at(self, queue: str) -> tuple[float, float] | None:
        """When the next newcomer starts, and when it is answered; None: nobody knows."""
        if queue not in self.lines:
            self.lines[queue] = await self.outlook.newcomers(queue, _AT_ONCE)
            self.starts[queue] = deque(self.lines[queue].starts)
        starts = self.starts[queue]
        return (starts[0], starts[0] + (self.lines[queue].takes_s or 0.0)) if starts else None


class Rebalancing:
    """Looks at a pool's lines again and again; the furthest back move first, so that the others start sooner.

    Whatever is wrong, they stay where they are and are answered from there.
    """

    def __init__(self, worker: Worker, lines: Sequence[Line]) -> None:
        self._worker = worker
        self._lines = lines
        self._moving = Moving(worker)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                for line in self._lines:
                    if jobs := _movable(line):
                        await self._look(line, jobs)
            except StateAway:
                pass
            except Exception:  # a fault of ours
                log.exception("nothing is moved")
            await asyncio.sleep(max(_EVERY_S, _REST * (loop.time() - began)))

    async def _look(self, line: Line, jobs: Mapping[Held, Job]) -> None:
        outlook = self._worker.outlook(self._worker.fleet)
        places = await outlook.places([job.fingerprint for job in jobs.values()])
        own, elsewhere = await outlook.newcomers(line.queue, 1), _Elsewhere(outlook)
        for held, job in jobs.items():
            place = places.get(job.fingerprint)
            if place is not None and place.starts_at is not None:
                ends_at = place.starts_at + (own.takes_s or 0.0)
                better = await self._better(job, place.starts_at, ends_at, elsewhere)
                if better is not None and line.hand.let_go(held):
                    elsewhere.starts[job_message(self._worker.fleet, better).routing_key].popleft()
                    await self._move(held, job, better)

    async def _better(self, job: Job, starts_at: float, ends_at: float, elsewhere: _Elsewhere) -> Job | None:
        """The candidate that is worth moving to: it starts the job sooner, or answers it in time at all."""
        now, deadline = self._worker.clock.now(), job.waiter.deadline
        best, best_at = None, starts_at
        for other in self._moving.living(job):
            found = await elsewhere.at(job_message(self._worker.fleet, other).routing_key)
            if found is None:
                continue
            other_at, other_ends_at = found
            is_sooner = starts_at - max(other_at, now) > worth_moving_s(deadline - now)
            saves_it = ends_at > deadline >= other_ends_at
            if (is_sooner or saves_it) and other_at < best_at:
                best, best_at = other, other_at
        return best

    async def _move(self, held: Held, job: Job, better: Job) -> None:
        moved = False
        try:
            message = await self._moving.handed_on(job, better, _WHY)
            moved = await self._moving.published(held.delivery, message)
        finally:
            if moved:
                held.delivery.ack()
            else:
                held.delivery.give_back()


def _movable(line: Line) -> dict[Held, Job]:
    """What of it has another candidate, the last first."""
    jobs = {}
    for held in line.hand.last(_AT_ONCE):
        try:
            job = Job.from_bytes(held.delivery.body)
        except Refused:
            continue  # the pool finds out
        if len(job.route) > 1:
            jobs[held] = job
    return jobs
