"""Moving what waits in a pool's hands to the candidate that starts it sooner, where that is worth it."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from broker.flights import StateAway
from topology.errors import Refused
from topology.messages import Job
from workers.hand import Held
from workers.line import Line
from workers.moving import Moving
from workers.prospects import Prospect, Prospects, worth_moving_s
from workers.worker import Worker

log = logging.getLogger("optimizer.rebalancing")

_EVERY_S: Final = 0.5
_REST: Final = 10
"""So many times as long as looking took, nothing is looked at."""
_AT_ONCE: Final = 40
"""Of what a line holds, the last are looked at: they wait the longest."""
_WHY: Final = "sooner"


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
        own, elsewhere = await outlook.newcomers(line.queue, 1), Prospects(self._worker, _AT_ONCE)
        for held, job in jobs.items():
            place = places.get(job.fingerprint)
            if place is not None and place.starts_at is not None:
                here = Prospect(job, line.queue, place.starts_at, place.starts_at + (own.takes_s or 0.0))
                better = await self._better(here, elsewhere)
                if better is not None and line.hand.let_go(held):
                    elsewhere.take(better)
                    await self._move(held, job, better.job)

    async def _better(self, here: Prospect, elsewhere: Prospects) -> Prospect | None:
        """The candidate that is worth moving to: it starts the job sooner, or answers it in time at all."""
        now, deadline = self._worker.clock.now(), here.job.waiter.deadline
        worth_s = worth_moving_s(deadline - now)
        better = [
            there
            for there in await elsewhere.of(self._moving.living(here.job))
            if here.starts_at - max(there.starts_at, now) > worth_s
            or (here.ends_at > deadline >= there.ends_at and here.starts_at > there.starts_at)
        ]
        return min(better, key=lambda there: there.starts_at, default=None)

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
