"""Moving on what was delivered: to another candidate, to a retry tier, to the copies kept for people."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from producer_sdk.transport import Delivery, Outgoing, Published
from topology import names
from topology.events import EventType
from topology.messages import Job
from topology.names import RetryTier
from workers.replies import job_message, kept, parked
from workers.worker import Worker

log = logging.getLogger("optimizer.moving")

AGAIN_S: Final = 0.5
"""The pause before something that failed for want of a broker is tried again."""


@dataclass(frozen=True)
class GoOn:
    """The delivery is dealt with, or is somebody else's now."""


@dataclass(frozen=True)
class LaterPlease:
    """It cannot be started for `seconds`; it keeps its place. `limit` says what it waits for."""

    seconds: float
    limit: str


Executed = GoOn | LaterPlease


class Moving:
    """Publishes what becomes of a delivery, and only then acknowledges it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def hand_on(self, delivery: Delivery, job: Job, why: str) -> Executed:
        """To the route's next candidate."""
        moved = job.at_next_candidate()
        self._worker.events.emit(
            EventType.FAILOVER,
            agent=job.waiter.agent,
            request_id=job.waiter.id,
            flight=job.fingerprint,
            provider=job.candidate.provider,
            to=moved.candidate.provider,
            why=why,
        )
        return await self.send_on(delivery, job_message(self._worker.fleet, moved))

    async def park(self, delivery: Delivery, job: Job, seconds: float) -> Executed:
        """To the longest retry tier that is over within `seconds`."""
        return await self.send_on(delivery, self.to_tier(names.largest_tier_within(seconds), job))

    def to_tier(self, tier: RetryTier, job: Job) -> Outgoing:
        """The message that brings the job back to its candidate's pool after the tier's time."""
        home = job_message(self._worker.fleet, job)
        return parked(tier, home.routing_key, home.body, job.waiter.id)

    async def set_aside(self, delivery: Delivery) -> None:
        """After a fault of ours: out of the way for a while, for another worker perhaps."""
        home = delivery.queue
        await self.send_on(delivery, parked(RetryTier.HALF_A_MINUTE, home, delivery.body, ""))

    async def keep(self, delivery: Delivery, reason: str) -> Executed:
        """A copy for people, with the reason; nobody can be answered."""
        return await self.send_on(delivery, kept(delivery.queue, delivery.body, reason))

    async def send_on(self, delivery: Delivery, message: Outgoing) -> Executed:
        """Publishes until confirmed, or until the delivery is handed out again; then acknowledges."""
        while delivery.is_held:
            outcome = await self._worker.publisher.publish(message)
            if outcome is Published.CONFIRMED:
                delivery.ack()
                break
            log.warning("publish failed", extra={"to": message.routing_key, "how": outcome.name})
            await asyncio.sleep(AGAIN_S)
        return GoOn()
