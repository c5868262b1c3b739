"""Moving on what was delivered: to another candidate, to a retry tier, to the copies kept for people."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from broker.flights import StateAway
from broker.permits import closed_key, retries_key
from producer_sdk.transport import Delivery, Outgoing, Published
from topology import names
from topology.events import EventType
from topology.messages import Candidate, Job
from topology.names import RetryTier
from workers.keeping import kept
from workers.obstacles import closed_line
from workers.prospects import Prospect, Prospects, worth_moving_s
from workers.replies import job_message, parked
from workers.returning import returned
from workers.worker import Worker

log = logging.getLogger("optimizer.moving")

AGAIN_S: Final = 0.5
"""The pause before something that failed for want of a broker is tried again."""


@dataclass(frozen=True)
class GoOn:
    """The delivery is dealt with."""


@dataclass(frozen=True)
class LaterPlease:
    """It cannot be started for `seconds`; it keeps its place. `limit` says what it waits for.

    The same where it was handed out again before it could be moved: whoever has it now looks at it anew.
    """

    seconds: float
    limit: str


Executed = GoOn | LaterPlease


class Moving:
    """Publishes what becomes of a delivery, and only then acknowledges it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def hand_on(self, delivery: Delivery, job: Job, why: str) -> Executed:
        """To the route's next candidate."""
        return await self.send_on(delivery, await self.handed_on(job, self.next_of(job), why))

    async def handed_on(self, job: Job, moved: Job, why: str) -> Outgoing:
        """The message that carries the job to another candidate's line; the event is published soon."""
        self._worker.events.emit(
            EventType.FAILOVER,
            agent=job.waiter.agent,
            request_id=job.waiter.id,
            flight=job.fingerprint,
            provider=job.candidate.provider,
            to=moved.candidate.provider,
            why=why,
        )
        message = job_message(self._worker.fleet, moved)
        try:
            spot = await self._worker.flights.enter(moved.fingerprint, message.routing_key, moved.waiter)
        except StateAway:
            return message
        return await self._worker.sides.placed(message, spot)

    def next_of(self, job: Job) -> Job:
        """Where the job is tried next: elsewhere if something starts there, else where it is, if it does."""
        moved = self.elsewhere(job)
        if moved is None:
            moved = job if self._is_open(job.candidate) else job.at_next_candidate()
        return moved

    def elsewhere(self, job: Job) -> Job | None:
        """The job for the nearest other candidate at which something starts; pools that live come first."""
        return next(iter(self._others(job)), None)

    def onward(self, job: Job) -> Job | None:
        """The job for a later candidate of its route, not round to the first, that can start it in time."""
        for position in range(job.position + 1, len(job.route)):
            moved = job.model_copy(update={"position": position})
            closed = closed_line(self._worker, moved.candidate, job.waiter.priority)
            opens_at = closed.until if closed and closed.until else 0.0
            if self._is_open(moved.candidate) and opens_at < job.waiter.deadline:
                return moved
        return None

    async def sooner(self, job: Job, until: float) -> Job | None:
        """The job for the candidate that starts it soonest, where that is worth it; here it waits until then.

        Candidates of which nothing is known are left alone.
        """
        best = min(await self._prospects(job), key=lambda one: one.starts_at, default=None)
        worth_s = worth_moving_s(job.waiter.deadline - self._worker.clock.now())
        return best.job if best is not None and until - best.starts_at > worth_s else None

    async def in_time(self, job: Job) -> Job | None:
        """The job for another candidate that is expected to answer it in time, the first of them.

        It comes back to this one no more: what is expected knows nothing of budgets, nor of closed models, so
        that two of them might send it to each other until its deadline.
        """
        first = min(await self._prospects(job), key=lambda one: one.ends_at, default=None)
        if first is None or first.ends_at >= job.waiter.deadline:
            return None
        left = tuple(candidate for candidate in job.route if candidate != job.candidate)
        return job.model_copy(update={"route": left, "position": left.index(first.job.candidate)})

    async def _prospects(self, job: Job) -> list[Prospect]:
        try:
            return await Prospects(self._worker).of(self.living(job))
        except StateAway:
            return []

    def living(self, job: Job) -> list[Job]:
        """The job for each other candidate that somebody serves, and whose calls do not fail."""
        roster = self._worker.roster
        return [
            other
            for other in self._others(job)
            if roster.pools(other.candidate.provider) and not roster.is_broken(other.candidate.provider)
        ]

    async def around(self, job: Job, why: str, failed: Collection[str] = ()) -> Outgoing | None:
        """The message that carries the job past a provider whose calls fail, to a living one not closed.

        To one of those that have `failed` its flight only where that may be asked once more.
        """
        own, prefix, roster = job.candidate.provider, self._worker.flights.prefix, self._worker.roster
        others = [
            o for o in self._others(job) if roster.pools(o.candidate.provider) and o.candidate.provider != own
        ]
        providers = list(dict.fromkeys(other.candidate.provider for other in others))
        keys = {closed_key(prefix, provider): provider for provider in providers}
        keys |= {retries_key(prefix, provider): provider for provider in providers if provider in failed}
        try:
            closed = await self._worker.flights.are_closed(list(keys)) if keys else []
        except StateAway:
            return None
        shut = {provider for provider, is_closed in zip(keys.values(), closed, strict=True) if is_closed}
        moved = next((other for other in others if other.candidate.provider not in shut), None)
        return await self.handed_on(job, moved, why) if moved else None

    def _others(self, job: Job) -> list[Job]:
        places = len(job.route)
        others = [
            job.model_copy(update={"position": (job.position + step) % places}) for step in range(1, places)
        ]
        open_ = [other for other in others if self._is_open(other.candidate)]
        return sorted(open_, key=lambda o: not self._worker.roster.pools(o.candidate.provider))

    def _is_open(self, candidate: Candidate) -> bool:
        """Whether the candidate is still on offer, and no operator has paused its provider."""
        provider = self._worker.fleet.providers.get(candidate.provider)
        offered = provider is not None and provider.model(candidate.model) is not None
        return offered and candidate.provider not in self._worker.paused

    async def back_to_entrance(self, delivery: Delivery, job: Job) -> Executed:
        """To the front, which routes anew or says that nobody can answer.

        By way of a retry tier: a front that does not know the new configuration yet sends it here again.
        """
        own, *others = await returned(job, self._worker.flights, RetryTier.FIVE_SECONDS)
        for message in others:  # at most once: their agents ask again, as they do without us
            await self._worker.publisher.publish(message)
        return await self.send_on(delivery, own)

    async def park(self, delivery: Delivery, job: Job, seconds: float) -> Executed:
        """To the longest retry tier that is over within `seconds`."""
        return await self.send_on(delivery, self.to_tier(names.largest_tier_within(seconds), job))

    async def pause(self, delivery: Delivery, job: Job, until: float) -> Executed:
        """To retry tiers, one after the other, until that instant (epoch seconds)."""
        waiting = job.model_copy(update={"not_before": until})
        return await self.park(delivery, waiting, until - self._worker.clock.now())

    def to_tier(self, tier: RetryTier, job: Job) -> Outgoing:
        """The message that brings the job back to its candidate's pool after the tier's time."""
        home = job_message(self._worker.fleet, job)
        return parked(tier, home.routing_key, home.body, job.waiter.id, job.waiter.agent)

    async def set_aside(self, delivery: Delivery) -> None:
        """After a fault of ours: out of the way for a while, for another worker perhaps."""
        home = delivery.queue
        await self.send_on(delivery, parked(RetryTier.HALF_A_MINUTE, home, delivery.body, ""))

    async def keep(self, delivery: Delivery, reason: str) -> Executed:
        """A copy for people, with the reason; nobody can be answered."""
        return await self.send_on(delivery, kept(delivery.queue, delivery.body, reason, delivery=delivery))

    async def send_on(self, delivery: Delivery, message: Outgoing) -> Executed:
        """Publishes until confirmed, then acknowledges; or until the delivery is handed out again.

        That may be to this very worker, where it waits for what becomes of this one.
        """
        if not await self.published(delivery, message):
            return LaterPlease(0.0, "own call")
        delivery.ack()
        return GoOn()

    async def published(self, delivery: Delivery, message: Outgoing) -> bool:
        """Publishes until confirmed; False when the delivery is handed out again before."""
        while delivery.is_held:
            outcome = await self._worker.publisher.publish(message)
            if outcome is Published.CONFIRMED:
                return True
            log.warning("publish failed", extra={"to": message.routing_key, "how": outcome.name})
            await asyncio.sleep(AGAIN_S)
        return False
