"""Hedging: a second provider is called while the first takes long, and the first answer counts.

It pays twice on purpose, so it is for few calls (`workers/offering.py`). Whoever gets the copy of the job
asks Redis, and calls at once or drops it. The flight's own claim and job stay as they are, and bring it to
its end whatever becomes of the copy.
"""

import asyncio
import logging

from broker.answers import Run
from broker.flights import StateAway
from broker.permits import call_id
from producer_sdk.transport import Delivery
from topology.events import EventType
from topology.fleet import Model
from topology.messages import Job
from topology.providers.outcomes import Completion, Failure
from workers.answering import AfterAnswer
from workers.claimed_calls import ClaimedCalls, Cut, NotBegun
from workers.claims import Call
from workers.failing import AfterFailure
from workers.line import Attempt
from workers.means import Means
from workers.moving import Executed, GoOn
from workers.underway import Running

log = logging.getLogger("optimizer.hedging")


class Hedges:
    """Takes copies of jobs from delivery to acknowledgement, for one provider's pool."""

    def __init__(
        self, means: Means, calls: ClaimedCalls, answered: AfterAnswer, failing: AfterFailure
    ) -> None:
        self._worker, self._permits = means.worker, means.permits
        self._claims, self._telling = means.claims, means.telling
        self._calls, self._answered, self._failing = calls, answered, failing

    async def execute(self, attempt: Attempt, job: Job, hedges: str, model: Model | None) -> Executed:
        """Calls the provider beside the claim with the token `hedges`, if that may be, now.

        `model` is None where it is on offer no more.
        """
        delivery = attempt.held.delivery
        call = await self._asked(job, hedges, model)
        attempt.decided()
        if call is not None:
            with attempt.calling():
                return await self._run(delivery, call)
        delivery.ack()
        return GoOn()

    async def _asked(self, job: Job, hedges: str, model: Model | None) -> Call | None:
        """The call to be made; None: none."""
        if model is None or not self._worker.may_claim() or not self._worker.publisher.is_up:
            return None
        terms = self._permits.terms(job, model)
        asked_at = asyncio.get_running_loop().time()
        try:
            answer = await self._worker.flights.hedge(job.fingerprint, hedges, terms)
        except StateAway as error:
            log.warning("Redis is away, starting nothing", extra={"error": str(error)})
            self._worker.redis_failed()
            await self._claims.give_back(job.fingerprint, terms.token, sent=False)  # it may have been granted
            return None
        if not isinstance(answer, Run):
            log.debug("not hedged", extra={"flight": job.fingerprint, "why": answer.why})
            return None
        # Once it has an answer, this job is as good as any other of its flight for telling it.
        job = job.model_copy(update={"hedges": None})
        return Call(job, model, terms, answer, asked_at, hedges)

    async def _run(self, delivery: Delivery, call: Call) -> Executed:
        job, hedges = call.job, call.hedges or ""
        self._telling.tell_of(
            EventType.HEDGE,
            job,
            call=call.id,
            beside=call_id(job.fingerprint, hedges),
            provider=job.candidate.provider,
            model=call.model.id,
        )
        mine = self._worker.underway.hedges[job.fingerprint] = Running(job.waiter.key, [delivery])
        try:
            ended, seconds = await self._calls.make(call, mine.hurry)
            match ended:
                case NotBegun():
                    await self._calls.end_unsent(call)
                case Cut():
                    await self._calls.end_cut(call, ended, seconds)
                case Failure():
                    await self._failing.note(call, ended, seconds)
                case Completion():
                    return await self._answered.follow(delivery, call, ended, seconds)
        finally:
            if self._worker.underway.hedges.get(job.fingerprint) is mine:
                del self._worker.underway.hedges[job.fingerprint]
        delivery.ack()
        return GoOn()
