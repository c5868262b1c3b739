"""Executing a job: claim, call, commit, tell, acknowledge.

Nothing here is lost when this process dies at any line: the delivery is not acknowledged before
everything that follows from it is confirmed, and `claim` knows what was done already.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from broker.flights import (
    RENEW_EVERY_S,
    Busy,
    Claimed,
    ClaimTerms,
    Committed,
    Done,
    Expired,
    Later,
    Living,
    Own,
    Result,
    Run,
    Spent,
    Stale,
    StateAway,
    Stored,
)
from broker.permits import Permits
from producer_sdk.transport import Delivery, Outgoing, Published
from topology import names
from topology.errors import ErrorType, Refused
from topology.events import EventType
from topology.fleet import Model, Provider
from topology.messages import CacheMode, ErrorReport, Job, Outcome, Source, Waiter
from topology.names import RetryTier
from topology.providers.outcomes import Completion, Failure, FailureKind
from topology.route import cost_usd
from workers.calling import ProviderClient
from workers.replies import Answer, Replies, error_outcome, job_message, kept, parked
from workers.worker import Worker

log = logging.getLogger("optimizer.execution")
T = TypeVar("T")

_AGAIN_S: Final = 0.5
_THROTTLED_S: Final = 1.0
"""How long an account is left alone after a 429 that names no time."""
_QUOTA_GONE_S: Final = 3600.0
_KEY_REFUSED_S: Final = 300.0
_BACKOFF: Final = (RetryTier.ONE_SECOND, RetryTier.FIVE_SECONDS, RetryTier.HALF_A_MINUTE)


@dataclass(frozen=True)
class GoOn:
    """The delivery is dealt with, or is somebody else's now."""


@dataclass(frozen=True)
class LaterPlease:
    """It cannot be started for `seconds`; it keeps its place. `limit` says what it waits for."""

    seconds: float
    limit: str


Executed = GoOn | LaterPlease


@dataclass(frozen=True)
class _Call:
    """A claim with all that belongs to it."""

    job: Job
    model: Model
    terms: ClaimTerms
    run: Run


@dataclass
class _Running:
    """A call in this process, with every delivery of its job: the broker may hand it out again meanwhile.

    `executed` is what it came to, for all of them.
    """

    deliveries: list[Delivery] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    executed: "Executed | None" = None


class Execution:
    """Takes single jobs of one provider from delivery to acknowledgement."""

    def __init__(self, worker: Worker, provider: Provider, client: ProviderClient) -> None:
        self._worker = worker
        self._provider = provider
        self._client = client
        self._permits = Permits(worker.fleet, provider, worker.flights.prefix, worker.id)
        self._replies = Replies(worker.publisher, worker.events, worker.clock)
        self._running: dict[str, _Running] = {}
        self._claiming: Counter[str] = Counter()

    async def execute(self, delivery: Delivery) -> Executed:
        """Executes one delivered job."""
        try:
            job = Job.from_bytes(delivery.body)
        except Refused as refused:
            return await self._keep(delivery, refused.message)
        model = self._provider.model(job.candidate.model)
        if model is None or job.candidate.provider != self._provider.name:
            return await self._hand_on(delivery, job, "the pool does not offer this model")
        if not self._worker.may_claim():
            return LaterPlease(_AGAIN_S, "Redis")
        terms = self._permits.terms(job, model)
        self._claiming[job.fingerprint] += 1
        try:
            claimed = await self._worker.flights.claim(job.fingerprint, job.waiter, terms)
        except StateAway as error:
            log.warning("Redis is away, starting nothing", extra={"error": str(error)})
            self._worker.redis_failed()
            return LaterPlease(_AGAIN_S, "Redis")
        finally:
            self._claiming -= Counter({job.fingerprint: 1})
        return await self._follow(delivery, job, model, terms, claimed)

    async def _follow(
        self, delivery: Delivery, job: Job, model: Model, terms: ClaimTerms, claimed: Claimed
    ) -> Executed:
        match claimed:
            case Run():
                return await self._run(delivery, _Call(job, model, terms, claimed))
            case Done(outcome=outcome, payer=payer, events=events, waiters=waiters):
                return await self._tell(delivery, job, outcome, payer, events, waiters)
            case Own(token=token):
                return await self._wait_for_own(delivery, job, token)
            case Busy(until=until):
                return await self._park(delivery, job, until - self._worker.clock.now())
            case Later(until=until, limit=limit):
                return LaterPlease(max(0.0, until - self._worker.clock.now()), limit)
            case Spent():
                return await self._give_up_spent(delivery, job, model, terms, claimed)
            case Expired():
                await delivery.ack()
                return GoOn()

    # The call ----------------------------------------------------------------------------------

    async def _run(self, delivery: Delivery, call: _Call) -> Executed:
        job = call.job
        self._report_doubtful(job, call.run.doubtful)
        mine = self._running.setdefault(job.fingerprint, _Running())
        mine.deliveries.append(delivery)
        try:
            ended, seconds = await self._call_provider(call)
            # Whatever happened to the connection meanwhile: one of these the broker counts as ours.
            carrier = next((d for d in mine.deliveries if d.is_held), delivery)
            match ended:
                case None:
                    executed: Executed = await self._called_off(carrier, call)
                case Completion():
                    executed = await self._completed(carrier, call, ended, seconds)
                case Failure():
                    executed = await self._failed(carrier, call, ended, seconds)
            mine.executed = executed
        finally:
            self._running.pop(job.fingerprint, None)
            mine.ended.set()
        return executed

    async def _call_provider(self, call: _Call) -> tuple[Completion | Failure | None, float]:
        """The call and its duration in seconds; None in place of an end when nobody wants it any more."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            ending = group.create_task(
                self._client.call(call.job, call.run.account, call.run.key_index),
                name="provider call",
            )
            renewing = group.create_task(self._renew(call, ending), name="renew claim")
            await asyncio.wait({ending})
            renewing.cancel()
        ended = None if ending.cancelled() else ending.result()
        return ended, loop.time() - began

    async def _renew(self, call: _Call, ending: "asyncio.Task[Any]") -> None:
        leases = self._permits.leases_of(call.run.account, call.model, call.terms)
        pause_s = RENEW_EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = RENEW_EVERY_S
            try:
                verdict = await self._worker.flights.renew(
                    call.job.fingerprint, call.job.waiter, call.terms, call.run, leases
                )
            except StateAway:
                pause_s = _AGAIN_S  # the call goes on, and renewing is the first thing when Redis is back
                continue
            if verdict == "unwanted":
                ending.cancel()
                return

    async def _completed(
        self, delivery: Delivery, call: _Call, completion: Completion, seconds: float
    ) -> Executed:
        usage, job = completion.usage, call.job
        price = cost_usd(call.model, usage.prompt_tokens, usage.completion_tokens)
        outcome = Outcome(
            status="ok",
            body=completion.body,
            provider=self._provider.name,
            model=call.model.id,
            usage=usage,
            cost_usd=price,
            provider_s=seconds,
            attempts=call.run.attempt,
        )
        bill = {"requests": 1.0}
        if usage.prompt_tokens is not None and usage.completion_tokens is not None:
            bill["tokens"] = float(usage.prompt_tokens + usage.completion_tokens)
        if price is not None:
            bill["usd"] = price
        event = self._worker.events.event(
            EventType.CALL_COMPLETED,
            **self._facts(call, seconds),
            status=200,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cost_usd=price,
        ).to_bytes()
        result = Result(outcome, event, keep_s=self._keep_s(job), bill=bill)
        stored = await self._commit(call, result)
        match stored:
            case Stored(duplicate=True):
                self._tell_of(EventType.SPEND_DUPLICATE, job, cost_usd=price, provider=self._provider.name)
                await self._until_there(lambda: self._worker.events.publish([event]))
            case Stored():
                pass
            case Stale() | Living():
                raise AssertionError("a result is taken from anyone")
        return await self._tell(delivery, job, stored.outcome, stored.payer, stored.events, stored.waiters)

    async def _failed(self, delivery: Delivery, call: _Call, failure: Failure, seconds: float) -> Executed:
        self._worker.events.emit(
            EventType.CALL_FAILED,
            **self._facts(call, seconds),
            status=failure.status,
            error=failure.error_type.value,
            kind=failure.kind.value,
            message=failure.message,
        )
        if failure.may_be_billed:
            self._report_doubtful(call.job, {**call.terms.call, "account": call.run.account})
        match failure.kind:
            case FailureKind.REQUEST_AT_FAULT:
                shared_s = self._worker.fleet.cache.error_ttl_s
                return await self._end_in_error(delivery, call, failure, shared_s=shared_s)
            case FailureKind.THROTTLED | FailureKind.QUOTA_GONE:
                return await self._throttled(delivery, call, failure)
            case FailureKind.KEY_REFUSED:
                return await self._key_refused(delivery, call, failure)
            case FailureKind.CAPACITY | FailureKind.UNSENT | FailureKind.AMBIGUOUS:
                return await self._try_again(delivery, call, failure)

    async def _called_off(self, delivery: Delivery, call: _Call) -> Executed:
        await self._release(call, billed=True)
        await delivery.ack()
        return GoOn()

    # After a failure ---------------------------------------------------------------------------

    async def _throttled(self, delivery: Delivery, call: _Call, failure: Failure) -> Executed:
        """A limit: closed for every replica until it opens; a healthy alternative before waiting."""
        gone = failure.kind is FailureKind.QUOTA_GONE
        wait_s = failure.retry_after_s
        if wait_s is None:
            wait_s = _QUOTA_GONE_S if gone else _THROTTLED_S
        scope = (call.run.account,) if gone else (call.run.account, call.model.id)
        until = self._worker.clock.now() + wait_s
        self._tell_of(
            EventType.LIMIT_TIGHTENED,
            call.job,
            provider=self._provider.name,
            account=call.run.account,
            until=until,
            message=failure.message,
        )
        await self._release(call, closed={self._permits.closed_key(*scope): until})
        if len(call.job.route) > 1:
            return await self._hand_on(delivery, call.job, failure.kind.value)
        return LaterPlease(0.0, failure.kind.value)  # the next claim knows which account opens when

    async def _key_refused(self, delivery: Delivery, call: _Call, failure: Failure) -> Executed:
        owner = next(a for a in call.terms.accounts if a["name"] == call.run.account)
        key = owner["keys"][call.run.key_index]["closed"][0]
        self._worker.events.emit(
            EventType.KEY_DISABLED,
            provider=self._provider.name,
            account=call.run.account,
            key=key.rpartition(f":{call.run.account}:")[2],
            status=failure.status,
            message=failure.message,
        )
        others = sum(len(a["keys"]) for a in call.terms.accounts) - 1
        if others == 0 and len(call.job.route) == 1:
            # Nobody else to ask: waiting would only hide that the key is wrong.
            return await self._end_in_error(delivery, call, failure)
        closed = {key: self._worker.clock.now() + _KEY_REFUSED_S}
        await self._release(call, closed=closed)
        if others == 0:
            return await self._hand_on(delivery, call.job, failure.kind.value)
        return LaterPlease(0.0, failure.kind.value)

    async def _try_again(self, delivery: Delivery, call: _Call, failure: Failure) -> Executed:
        """The route's next candidate at once; after a whole round, a pause that grows."""
        job, attempt = call.job, call.run.attempt
        if attempt % len(job.route):
            await self._release(call, billed=failure.may_be_billed, sent=_was_sent(failure))
            return await self._hand_on(delivery, job, failure.kind.value)
        tier = _BACKOFF[min(attempt // len(job.route), len(_BACKOFF)) - 1]
        back_at = self._worker.clock.now() + tier.delay_s
        ended = await self._commit(call, self._error_result(call, failure, retry_at=back_at))
        match ended:
            case Stored():
                return await self._tell(
                    delivery, job, ended.outcome, ended.payer, ended.events, ended.waiters
                )
            case Stale():
                await delivery.ack()
                return GoOn()
            case Living():
                await self._release(
                    call,
                    billed=failure.may_be_billed,
                    sent=_was_sent(failure),
                    parked_until=back_at,
                )
                self._tell_of(
                    EventType.RETRY, job, provider=self._provider.name, attempt=attempt,
                    wait_s=tier.delay_s, message=failure.message,
                )  # fmt: skip
                return await self._send_on(delivery, self._to_tier(tier, job.at_next_candidate()))

    async def _end_in_error(
        self, delivery: Delivery, call: _Call, failure: Failure, *, shared_s: float = 0.0
    ) -> Executed:
        ended = await self._commit(call, self._error_result(call, failure, shared_s=shared_s))
        if isinstance(ended, Stored):
            return await self._tell(
                delivery, call.job, ended.outcome, ended.payer, ended.events, ended.waiters
            )
        await delivery.ack()
        return GoOn()

    def _error_result(
        self, call: _Call, failure: Failure, *, shared_s: float = 0.0, retry_at: float = 0.0
    ) -> Result:
        report = ErrorReport(
            type=failure.error_type,
            message=f"{self._provider.name}: {failure.message}",
            retryable=failure.kind is not FailureKind.REQUEST_AT_FAULT,
            provider_status=failure.status,
        )
        outcome = Outcome(
            status="error",
            provider=self._provider.name,
            model=call.model.id,
            attempts=call.run.attempt,
            error=report,
        )
        return Result(outcome, shared_s=shared_s, retry_at=retry_at)

    async def _give_up_spent(
        self, delivery: Delivery, job: Job, model: Model, terms: ClaimTerms, spent: Spent
    ) -> Executed:
        self._report_doubtful(job, spent.doubtful)
        outcome = error_outcome(
            ErrorType.PROVIDER_ERROR,
            f"{self._provider.name}/{model.id}: {spent.spends} calls ended without a known result, and each "
            "may have been billed; max_spends allows no more",
        )
        ended = await self._until_decided(
            lambda: self._worker.flights.commit(
                job.fingerprint, job.waiter, terms.token, spent.started, Result(outcome)
            )
        )
        if isinstance(ended, Stored):
            return await self._tell(delivery, job, ended.outcome, ended.payer, ended.events, ended.waiters)
        await delivery.ack()
        return GoOn()

    # Telling -----------------------------------------------------------------------------------

    async def _tell(
        self,
        delivery: Delivery,
        job: Job,
        outcome: Outcome,
        payer: str,
        events: bytes,
        waiters: tuple[Waiter, ...],
    ) -> Executed:
        """Publishes the events and every reply that is owed, marks who is served, acknowledges."""
        published = await self._worker.events.publish([events]) if events else False
        answers = [Answer(w, outcome, _source(w, payer, outcome)) for w in waiters]
        served = await self._replies.send(answers)
        try:
            await self._worker.flights.settle(job.fingerprint, served, events=published)
        except StateAway:
            return await self._park(delivery, job, 0.0)
        if len(served) < len(waiters) or (events and not published):
            return await self._park(delivery, job, 0.0)  # the rest later: it is `done` then
        await delivery.ack()
        return GoOn()

    def _report_doubtful(self, job: Job, call: Mapping[str, Any] | None) -> None:
        if call:
            facts = {k: v for k, v in call.items() if k in {"provider", "model", "account", "worker"}}
            self._tell_of(EventType.SPEND_DOUBTFUL, job, called_for=call.get("request_id"), **facts)

    def _facts(self, call: _Call, seconds: float) -> dict[str, Any]:
        """What a learning event says of a call, however it ended."""
        job = call.job
        return {
            "id": f"{job.fingerprint}-{call.terms.token}",
            "agent": job.waiter.agent,
            "request_id": job.waiter.id,
            "agent_type": job.request.agent_type,
            "flight": job.fingerprint,
            "provider": self._provider.name,
            "model": call.model.id,
            "account": call.run.account,
            "task": job.request.task,
            "priority": job.waiter.priority.value,
            "attempt": call.run.attempt,
            "latency_s": round(seconds, 4),
            "worker": self._worker.id,
        }

    def _tell_of(self, type_: EventType, job: Job, **facts: Any) -> None:
        self._worker.events.emit(
            type_,
            agent=job.waiter.agent,
            request_id=job.waiter.id,
            flight=job.fingerprint,
            **facts,
        )

    # Moving ------------------------------------------------------------------------------------

    async def _hand_on(self, delivery: Delivery, job: Job, why: str) -> Executed:
        """To the route's next candidate."""
        moved = job.at_next_candidate()
        self._tell_of(
            EventType.FAILOVER,
            job,
            provider=job.candidate.provider,
            to=moved.candidate.provider,
            why=why,
        )
        return await self._send_on(delivery, job_message(self._worker.fleet, moved))

    async def _park(self, delivery: Delivery, job: Job, seconds: float) -> Executed:
        return await self._send_on(delivery, self._to_tier(names.largest_tier_within(seconds), job))

    def _to_tier(self, tier: RetryTier, job: Job) -> Outgoing:
        home = job_message(self._worker.fleet, job)
        return parked(tier, home.routing_key, home.body, job.waiter.id)

    async def set_aside(self, delivery: Delivery) -> None:
        """After a fault of ours: out of the way for a while, for another worker perhaps."""
        home = delivery.queue
        await self._send_on(delivery, parked(RetryTier.HALF_A_MINUTE, home, delivery.body, ""))

    async def _keep(self, delivery: Delivery, reason: str) -> Executed:
        return await self._send_on(delivery, kept(delivery.queue, delivery.body, reason))

    async def _send_on(self, delivery: Delivery, message: Outgoing) -> Executed:
        """Publishes until confirmed, or until the delivery is handed out again; then acknowledges."""
        while delivery.is_held:
            if await self._worker.publisher.publish(message) is Published.CONFIRMED:
                await delivery.ack()
                break
            await asyncio.sleep(_AGAIN_S)
        return GoOn()

    async def _wait_for_own(self, delivery: Delivery, job: Job, token: str) -> Executed:
        mine = self._running.get(job.fingerprint)
        if mine is None:
            if not self._claiming[job.fingerprint]:
                # Granted, but the answer was lost on its way from Redis: no call was ever made.
                await self._until_decided(
                    lambda: self._worker.flights.release(job.fingerprint, token, sent=False)
                )
            return LaterPlease(_AGAIN_S, "own claim")
        mine.deliveries.append(delivery)
        await mine.ended.wait()
        if not isinstance(mine.executed, GoOn):  # not dealt with: this copy may be the one that counts
            return mine.executed or LaterPlease(_AGAIN_S, "own call")
        await delivery.ack()
        return GoOn()

    # Redis away --------------------------------------------------------------------------------

    async def _commit(self, call: _Call, result: Result) -> Committed:
        return await self._until_decided(
            lambda: self._worker.flights.commit(
                call.job.fingerprint, call.job.waiter, call.terms.token, call.run.started, result
            )
        )

    async def _release(self, call: _Call, **terms: Any) -> None:
        await self._until_decided(
            lambda: self._worker.flights.release(call.job.fingerprint, call.terms.token, **terms)
        )

    async def _until_decided(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Again and again while Redis is away: the result is in our hands."""
        while True:
            try:
                return await ask()
            except StateAway as error:
                log.warning("Redis is away, holding a result", extra={"error": str(error)})
                await asyncio.sleep(_AGAIN_S)

    async def _until_there(self, send: Callable[[], Awaitable[bool]]) -> None:
        while not await send():  # noqa: ASYNC110 - a broker that is away signals nothing
            await asyncio.sleep(_AGAIN_S)

    def _keep_s(self, job: Job) -> float:
        """How long the answer is fresh if Redis has forgotten what its waiters asked for."""
        request, cache = job.request, self._worker.fleet.cache
        if request.cache in {CacheMode.JOIN, CacheMode.OFF}:
            return 0.0
        return cache.ttl_s if request.cache_ttl_s is None else request.cache_ttl_s


def _was_sent(failure: Failure) -> bool:
    return failure.kind is not FailureKind.UNSENT


def _source(waiter: Waiter, payer: str, outcome: Outcome) -> Source | None:
    if outcome.provider is None:
        return None
    return Source.PROVIDER if waiter.key == payer else Source.DEDUPE
