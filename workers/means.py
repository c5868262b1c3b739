"""What the steps of one provider's pool share: claiming, calling, and what follows from a call."""

from dataclasses import dataclass

from broker.permits import Permits
from topology.estimates import AnswerLengths
from topology.fleet import Provider
from workers.claims import Claims
from workers.moving import Moving
from workers.offering import Offers
from workers.telling import Telling
from workers.worker import Worker


@dataclass(frozen=True)
class Means:
    """Made once for each pool, and handed to its steps."""

    worker: Worker
    provider: Provider
    permits: Permits
    claims: Claims
    telling: Telling
    moving: Moving
    offers: Offers

    @classmethod
    def of(cls, worker: Worker, provider: Provider, answers: AnswerLengths) -> "Means":
        """Those of a provider's pool on this worker; it estimates calls by these answers."""
        moving = Moving(worker)
        return cls(
            worker,
            provider,
            Permits(worker.fleet, provider, worker.flights.prefix, worker.id, answers),
            Claims(worker),
            Telling(worker, moving),
            moving,
            Offers(worker, moving),
        )
