"""When a job would start at its other candidates, as far as is known."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from topology.messages import Job
from workers.replies import jobs_queue_of
from workers.worker import Worker

if TYPE_CHECKING:
    from broker.outlook import Newcomers

_WORTH_MOVING_S: Final = 10.0
_PART_OF_THE_TIME: Final = 0.1
_LEAST_WORTH_S: Final = 0.2


def worth_moving_s(left_s: float) -> float:
    """So many seconds sooner must a request start elsewhere, to go there: 10, or a tenth of its time."""
    return max(_LEAST_WORTH_S, min(_WORTH_MOVING_S, _PART_OF_THE_TIME * left_s))


@dataclass(frozen=True)
class Prospect:
    """A job at another candidate.

    Attributes:
        job: The job as it goes there.
        queue: The line that it waits in.
        starts_at: When it is expected to start there, epoch seconds.
        ends_at: When it is expected to be answered.
    """

    job: Job
    queue: str
    starts_at: float
    ends_at: float


class Prospects:
    """Looks once at each line; whoever goes there takes the first of so many places behind all who wait."""

    def __init__(self, worker: Worker, places: int = 1) -> None:
        self._fleet = worker.fleet
        self._outlook = worker.outlook(worker.fleet)
        self._places = places
        self._lines: dict[str, Newcomers] = {}
        self._taken: Counter[str] = Counter()

    async def of(self, others: Iterable[Job]) -> list[Prospect]:
        """Of each of which it is known when it starts; raises `StateAway`."""
        prospects = []
        for job in others:
            queue = jobs_queue_of(self._fleet, job.candidate, job.waiter.priority)
            if queue not in self._lines:
                self._lines[queue] = await self._outlook.newcomers(queue, self._places)
            line, place = self._lines[queue], self._taken[queue]
            if place < len(line.starts):
                at = line.starts[place]
                prospects.append(Prospect(job, queue, at, at + (line.takes_s or 0.0)))
        return prospects

    def take(self, prospect: Prospect) -> None:
        """It goes there: who is sent after it stands behind it."""
        self._taken[prospect.queue] += 1
