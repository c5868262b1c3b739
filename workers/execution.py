"""Executing a job: claim, call, commit, tell, acknowledge.

Nothing here is lost when this process dies at any line: the delivery is not acknowledged before
everything that follows from it is confirmed, and `claim` knows what was done already.
"""

import asyncio
import logging
from collections import Counter
from typing import Final

from broker.answers import Busy, Done, Expired, Late, Later, Over, Own, Run, Spared, Spent
from broker.flights import ClaimTerms, StateAway
from producer_sdk.transport import Delivery
from topology import names
from topology.errors import Refused
from topology.estimates import AnswerLengths
from topology.fleet import Model, Provider
from topology.messages import Job
from topology.providers.outcomes import Completion, Failure
from workers.answering import AfterAnswer
from workers.calling import ProviderClient
from workers.claimed_calls import ClaimedCalls, Cut, Ended, NotBegun
from workers.claims import Call
from workers.failing import AfterFailure
from workers.hedging import Hedges
from workers.line import Attempt
from workers.means import Means
from workers.moving import AGAIN_S, Executed, GoOn, LaterPlease
from workers.notices import in_words
from workers.underway import Running
from workers.worker import Worker

log = logging.getLogger("optimizer.execution")

_MAY_OPEN_SOON: Final = frozenset({"turn", "round", "circuit", "paused"})
_WORTH_LOOKING_S: Final = 1.0
"""Where it waits for less, no other candidate is asked."""


class Execution:
    """Takes single jobs of one provider from delivery to acknowledgement."""

    def __init__(
        self, worker: Worker, provider: Provider, client: ProviderClient, answers: AnswerLengths
    ) -> None:
        means = Means.of(worker, provider, answers)
        self._worker, self._provider = worker, provider
        self._permits, self._claims = means.permits, means.claims
        self._telling, self._moving = means.telling, means.moving
        self._calls = ClaimedCalls(means, client)
        self._answered = AfterAnswer(means)
        self._failing = AfterFailure(means)
        self._hedges = Hedges(means, self._calls, self._answered, self._failing)
        self._underway = worker.underway

    async def execute(self, attempt: Attempt) -> Executed:
        """Executes one delivered job."""
        delivery = attempt.held.delivery
        if delivery.exchange != names.JOBS:  # all that goes round inside comes back through it
            return await self._moving.keep(delivery, f"exchange: jobs are believed from {names.JOBS} alone")
        try:
            job = Job.from_bytes(delivery.body)
        except Refused as refused:
            return await self._moving.keep(delivery, refused.message)
        is_ours = job.candidate.provider == self._provider.name
        model = self._provider.model(job.candidate.model) if is_ours else None
        if job.hedges is not None:
            return await self._hedges.execute(attempt, job, job.hedges, model)
        if model is None:
            return await self._elsewhere(delivery, job)
        if (away := self._away()) is not None:
            return LaterPlease(AGAIN_S, away)
        if job.not_before > self._worker.clock.now():
            return await self._moving.pause(delivery, job, job.not_before)
        return await self._claim(attempt, job, model)

    async def _claim(self, attempt: Attempt, job: Job, model: Model) -> Executed:
        delivery = attempt.held.delivery
        place = attempt.place(self._worker.clock.now())
        terms = self._permits.terms(job, model, more=attempt.line.waiting > 0, place=place)
        asked_at = asyncio.get_running_loop().time()
        self._underway.claiming[job.fingerprint] += 1
        try:
            claimed = await self._worker.flights.claim(job.fingerprint, job.waiter, terms)
        except StateAway as error:
            log.warning("Redis is away, starting nothing", extra={"error": str(error)})
            self._worker.redis_failed()
            return LaterPlease(AGAIN_S, "Redis")
        finally:
            self._underway.claiming -= Counter({job.fingerprint: 1})
            attempt.decided()
        if isinstance(claimed, Run):
            with attempt.calling():
                return await self._run(delivery, Call(job, model, terms, claimed, asked_at))
        return await self._follow(delivery, job, terms, claimed)

    def _away(self) -> str | None:
        """The broker for want of which nothing can be started; None: both are there."""
        if not self._worker.may_claim():
            return "Redis"
        return None if self._worker.publisher.is_up else "RabbitMQ"  # the call is entered in the books first

    async def _follow(
        self,
        delivery: Delivery,
        job: Job,
        terms: ClaimTerms,
        claimed: Busy | Done | Expired | Late | Later | Over | Own | Spared | Spent,
    ) -> Executed:
        match claimed:
            case Done():
                return await self._telling.tell(delivery, job, claimed)
            case Own(token=token):
                return await self._wait_for_own(delivery, job, token)
            case Busy(until=until):
                return await self._moving.park(delivery, job, until - self._worker.clock.now())
            case Later():
                return await self._later(delivery, job, claimed)
            case Late():
                return await self._too_late(delivery, job, terms, claimed)
            case Over() | Spared():
                return await self._apart(delivery, job, claimed)
            case Spent():
                return await self._telling.tell_spent(delivery, job, terms.token, claimed)
            case Expired():
                return await self._telling.tell_expired(delivery, job, claimed)

    async def _later(self, delivery: Delivery, job: Job, later: Later) -> Executed:
        if later.limit == "circuit" and (moved := await self._moving.around(job, "circuit")) is not None:
            return await self._moving.send_on(delivery, moved)
        wait_s = later.until - self._worker.clock.now()
        if len(job.route) > 1 and later.limit not in _MAY_OPEN_SOON and wait_s > _WORTH_LOOKING_S:
            sooner = await self._moving.sooner(job, later.until)
            if sooner is not None:
                message = await self._moving.handed_on(job, sooner, "sooner")
                return await self._moving.send_on(delivery, message)
        why = in_words(later.limit, self._provider.name)
        for waiter in later.waiters:
            if waiter.key != job.waiter.key:  # who is told with its place in the line
                self._worker.notices.tell(waiter, why, later.until)
        return LaterPlease(max(0.0, wait_s), later.limit)

    async def _apart(self, delivery: Delivery, job: Job, alone: Over | Spared) -> Executed:
        """Apart from the line: it costs more than its agent has left, or would be a retry too many."""
        if isinstance(alone, Spared):
            return await self._failing.spare(delivery, job, alone)
        limit, until = alone.limit, alone.until
        await self._worker.notices.tell_flight(self._worker.flights, job.fingerprint, limit, until)
        return await self._moving.park(delivery, job, until - self._worker.clock.now())

    async def _too_late(self, delivery: Delivery, job: Job, terms: ClaimTerms, late: Late) -> Executed:
        """Waiting cannot help here. Perhaps another of its route can; else its waiters are told at once."""
        moved = await self._moving.in_time(job) or self._moving.onward(job)
        if moved is None:
            return await self._telling.tell_late(delivery, job, terms.token, late)
        await self._telling.enter_doubtful(job, *late.doubts)
        await self._claims.give_back(job.fingerprint, terms.token, sent=True)
        return await self._moving.send_on(delivery, await self._moving.handed_on(job, moved, late.limit))

    async def _run(self, delivery: Delivery, call: Call) -> Executed:
        job = call.job
        # An earlier call of this flight may still be on its way out: it has lost its claim and its place.
        mine = self._underway.running[job.fingerprint] = Running(job.waiter.key, [delivery])
        try:
            ended, seconds = await self._calls.make(call, mine.hurry)
            # Whatever happened to the connection meanwhile: one of these the broker counts as ours.
            carrier = next((d for d in mine.deliveries if d.is_held), delivery)
            executed = mine.executed = await self._after(carrier, call, ended, seconds)
        finally:
            if self._underway.running.get(job.fingerprint) is mine:
                del self._underway.running[job.fingerprint]
            mine.ended.set()
        return executed

    async def _after(self, delivery: Delivery, call: Call, ended: Ended, seconds: float) -> Executed:
        match ended:
            case NotBegun(later=later):
                await self._calls.end_unsent(call)
                return later  # it keeps its place
            case Cut(answered=answered):
                await self._calls.end_cut(call, ended, seconds)
                if answered:  # by a worker that may die before it has told everybody
                    return await self._moving.park(delivery, call.job, 0.0)
                delivery.ack()
                return GoOn()
            case Completion():
                return await self._answered.follow(delivery, call, ended, seconds)
            case Failure():
                return await self._failing.follow(delivery, call, ended, seconds)

    async def set_aside(self, delivery: Delivery) -> None:
        """After a fault of ours: out of the way for a while, for another worker perhaps."""
        await self._moving.set_aside(delivery)

    async def _elsewhere(self, delivery: Delivery, job: Job) -> Executed:
        """The configuration has changed since the job was published: this pool has no such model."""
        if self._moving.elsewhere(job) is not None:
            return await self._moving.hand_on(delivery, job, "the pool does not offer this model")
        if job.waiter.deadline <= self._worker.clock.now():
            return await self._telling.tell_expired(delivery, job)
        return await self._moving.back_to_entrance(delivery, job)

    async def _wait_for_own(self, delivery: Delivery, job: Job, token: str) -> Executed:
        mine = self._underway.running.get(job.fingerprint)
        if mine is None:
            if not self._underway.claiming[job.fingerprint]:
                # Granted, but the answer was lost on its way from Redis: no call was ever made.
                await self._claims.give_back(job.fingerprint, token, sent=False)
            return LaterPlease(AGAIN_S, "own claim")
        if job.waiter.key != mine.waiter:
            # The call's end is told to its own waiter, and to whom Redis knows: this one may be neither.
            await mine.ended.wait()
            return await self._moving.park(delivery, job, 0.0)
        mine.deliveries.append(delivery)
        await mine.ended.wait()
        if not isinstance(mine.executed, GoOn):  # not dealt with: this copy may be the one that counts
            return mine.executed or LaterPlease(AGAIN_S, "own call")
        delivery.ack()
        return GoOn()
