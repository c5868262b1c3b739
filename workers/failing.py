"""What follows from a call that failed: wait, go elsewhere, try again, or tell the caller."""

from dataclasses import replace
from typing import Final

from broker.answers import Living, Spared, Stale, Stored
from broker.flights import Result
from producer_sdk.transport import Delivery
from topology.errors import ErrorType
from topology.events import EventType
from topology.messages import ErrorReport, Job, Outcome
from topology.names import RetryTier
from topology.pauses import jittered
from topology.providers.outcomes import Failure, FailureKind, Scope
from workers.claims import Call
from workers.means import Means
from workers.moving import Executed, LaterPlease

_THROTTLED_S: Final = 1.0
"""How long an account is left alone after a 429 that names no time."""
_QUOTA_GONE_S: Final = 3600.0
_KEY_REFUSED_S: Final = 300.0
_SHORTEST_WAIT_S: Final = 0.2
"""A provider that refuses and says "at once" is still not asked in a hot loop."""
_OF_THE_MODEL: Final = frozenset({ErrorType.NO_MODEL_AVAILABLE, ErrorType.CONTEXT_TOO_LONG})
_OF_ALL: Final = frozenset({Scope.PROVIDER, Scope.ADDRESS})
_OF_MODELS: Final = frozenset({Scope.MODEL, Scope.REQUEST})
_BACKOFF: Final = (RetryTier.ONE_SECOND, RetryTier.FIVE_SECONDS, RetryTier.HALF_A_MINUTE)


class AfterFailure:
    """Decides for one provider's pool. Waiting beats failing, and a healthy alternative beats waiting."""

    def __init__(self, means: Means) -> None:
        self._worker, self._provider = means.worker, means.provider
        self._permits, self._claims = means.permits, means.claims
        self._telling, self._moving = means.telling, means.moving

    async def follow(self, delivery: Delivery, call: Call, failure: Failure, seconds: float) -> Executed:
        """Deals with a call that failed after `seconds`."""
        await self._enter(call, failure, seconds)
        match failure.kind:
            case FailureKind.REQUEST_AT_FAULT:
                return await self._request_at_fault(delivery, call, failure)
            case FailureKind.THROTTLED | FailureKind.QUOTA_GONE:
                return await self._throttled(delivery, call, failure)
            case FailureKind.KEY_REFUSED:
                return await self._key_refused(delivery, call, failure)
            case FailureKind.CAPACITY | FailureKind.UNSENT | FailureKind.AMBIGUOUS:
                return await self._try_again(delivery, call, failure)

    async def note(self, call: Call, failure: Failure, seconds: float) -> None:
        """Deals with a call made beside another one: what it says of the provider counts, and that is all."""
        await self._enter(call, failure, seconds)
        match failure.kind:
            case FailureKind.REQUEST_AT_FAULT:
                await self._claims.release(call)
            case FailureKind.THROTTLED | FailureKind.QUOTA_GONE:
                await self._close_for_a_limit(call, failure)
            case FailureKind.KEY_REFUSED:
                self._tell_refused(call, failure)
                await self._close_for_a_key(call, failure)
            case FailureKind.CAPACITY | FailureKind.UNSENT | FailureKind.AMBIGUOUS:
                await self._give_up(call, failure)

    async def _enter(self, call: Call, failure: Failure, seconds: float) -> None:
        await self._telling.enter_failed(
            call,
            seconds,
            status=failure.status,
            error=failure.error_type.value,
            kind=failure.kind.value,
            code=failure.code,
        )
        if failure.may_be_billed:
            await self._telling.enter_doubtful(call.job, call.facts)

    async def _request_at_fault(self, delivery: Delivery, call: Call, failure: Failure) -> Executed:
        """Where the fault lies between this model and the request, another candidate may do; once around."""
        ttl_s = self._worker.fleet.learning.error_ttl_s
        lacks = await self._worker.learning.learn(call.job, self._provider, failure, ttl_s)
        is_of_the_model = lacks or failure.error_type in _OF_THE_MODEL
        if is_of_the_model and call.run.attempt % len(call.job.route):
            await self._claims.release(call)
            return await self._moving.hand_on(delivery, call.job, failure.error_type.value)
        shared_s = self._worker.fleet.cache.error_ttl_s
        return await self._end_in_error(delivery, call, failure, shared_s=shared_s)

    async def _throttled(self, delivery: Delivery, call: Call, failure: Failure) -> Executed:
        """A limit: a healthy alternative before waiting."""
        await self._close_for_a_limit(call, failure)
        if self._moving.elsewhere(call.job) is not None:
            return await self._moving.hand_on(delivery, call.job, failure.kind.value)
        return LaterPlease(0.0, failure.kind.value)  # the next claim knows which account opens when

    async def _close_for_a_limit(self, call: Call, failure: Failure) -> None:
        """For every replica, until it opens."""
        gone = failure.kind is FailureKind.QUOTA_GONE
        wait_s = failure.retry_after_s
        if wait_s is None:
            wait_s = _QUOTA_GONE_S if gone else _THROTTLED_S
        until = self._worker.clock.now() + max(wait_s, _SHORTEST_WAIT_S)
        self._telling.tell_of(
            EventType.LIMIT_TIGHTENED,
            call.job,
            provider=self._provider.name,
            account=call.run.account,
            model=call.model.id,
            until=until,
            scope=failure.scope.value,
            code=failure.code,
        )
        grow_s = _THROTTLED_S if failure.retry_after_s is None and not gone else 0.0
        await self._claims.release(
            call,
            closed={self._part(call, failure.scope): until},
            grow_s=grow_s,
            overloaded=not call.terms.has_rates(call.run.account),
        )

    def _part(self, call: Call, scope: Scope) -> str:
        """What is closed, for every replica, when an answer speaks of this part of the provider."""
        match scope:
            case Scope.KEY:
                return self._key_of(call)
            case Scope.ACCOUNT:
                return self._permits.closed_key(call.run.account)
            case Scope.MODEL | Scope.REQUEST:
                return self._permits.closed_key(call.run.account, call.model.id)
            case Scope.PROVIDER | Scope.ADDRESS:
                return self._permits.closed_key()

    @staticmethod
    def _key_of(call: Call) -> str:
        """What closes the key that was used; its last part is where the key is kept."""
        owner = next(a for a in call.terms.accounts if a["name"] == call.run.account)
        closed: str = owner["keys"][call.run.key_index]["closed"][0]
        return closed

    @staticmethod
    def _untouched(call: Call, scope: Scope) -> int:
        """How many keys such a refusal says nothing about."""
        match scope:
            case Scope.PROVIDER | Scope.ADDRESS:
                return 0
            case Scope.ACCOUNT:
                return sum(len(a["keys"]) for a in call.terms.accounts if a["name"] != call.run.account)
            case _:
                return sum(len(a["keys"]) for a in call.terms.accounts) - 1

    async def _key_refused(self, delivery: Delivery, call: Call, failure: Failure) -> Executed:
        """Out of use for a while: the key, or what else the refusal speaks of; the others go on."""
        self._tell_refused(call, failure)
        others = self._untouched(call, failure.scope)
        if others == 0 and len(call.job.route) == 1:
            # Nobody else to ask: waiting would only hide that the key is wrong.
            return await self._end_in_error(delivery, call, failure)
        await self._close_for_a_key(call, failure)
        if others == 0:
            return await self._moving.hand_on(delivery, call.job, failure.kind.value)
        return LaterPlease(0.0, failure.kind.value)

    def _tell_refused(self, call: Call, failure: Failure) -> None:
        self._worker.events.emit(
            EventType.KEY_DISABLED,
            provider=self._provider.name,
            account=call.run.account,
            key=self._key_of(call).rpartition(f":{call.run.account}:")[2],
            scope=failure.scope.value,
            status=failure.status,
            code=failure.code,
        )

    async def _close_for_a_key(self, call: Call, failure: Failure) -> None:
        closed = {self._part(call, failure.scope): self._worker.clock.now() + _KEY_REFUSED_S}
        await self._claims.release(call, closed=closed, grow_s=_KEY_REFUSED_S)

    async def _try_again(self, delivery: Delivery, call: Call, failure: Failure) -> Executed:
        """The route's next candidate at once; after a whole round, a pause that grows."""
        job, attempt = call.job, call.run.attempt
        if attempt % len(job.route):
            await self._give_up(call, failure)
            return await self._moving.hand_on(delivery, job, failure.kind.value)
        mean_s = _BACKOFF[min(attempt // len(job.route), len(_BACKOFF)) - 1].delay_s
        now = self._worker.clock.now()
        result = self._error_result(call, failure, retry_at=now + mean_s)
        ended = await self._claims.commit(call, replace(result, failed=self._part(call, failure.scope)))
        match ended:
            case Stored():
                self._tell_circuit(call, failure, broke=ended.broke)
                return await self._telling.tell(delivery, job, ended)
            case Stale():
                return await self._moving.park(delivery, call.job, 0.0)
            case Living():
                pause_s = jittered(mean_s, call.run.latest_deadline - now)
                back_at = now + pause_s
                await self._give_up(call, failure, back_at)
                self._telling.tell_of(
                    EventType.RETRY, job, provider=self._provider.name, attempt=attempt,
                    wait_s=round(pause_s, 3), why=failure.kind.value, code=failure.code,
                )  # fmt: skip
                why = f"a retry after {self._provider.name} failed"
                await self._worker.notices.tell_flight(self._worker.flights, job.fingerprint, why, back_at)
                return await self._moving.pause(delivery, self._moving.next_of(job), back_at)

    async def spare(self, delivery: Delivery, job: Job, spared: Spared) -> Executed:
        """The provider's retry budget is used up: a healthy alternative, else another look after a pause.

        Once for each pause: others may send it back, such as one whose limits let it start much later.
        """
        why = f"{self._provider.name} retry budget"
        if not spared.again and (moved := await self._moving.around(job, why, spared.failed)) is not None:
            return await self._moving.send_on(delivery, moved)
        wait_s = round(spared.until - self._worker.clock.now(), 3)
        self._telling.tell_of(EventType.RETRY, job, provider=self._provider.name, wait_s=wait_s, why=why)
        await self._worker.notices.tell_flight(self._worker.flights, job.fingerprint, why, spared.until)
        return await self._moving.pause(delivery, job, spared.until)

    async def _give_up(self, call: Call, failure: Failure, parked_until: float = 0.0) -> None:
        """Ends the claim; failures in a row open the circuit of the part that failed."""
        broke = await self._claims.release(
            call,
            billed=failure.may_be_billed,
            sent=_was_sent(failure),
            overloaded=_was_sent(failure),
            parked_until=parked_until,
            failed=self._part(call, failure.scope),
        )
        self._tell_circuit(call, failure, broke=broke)

    def _tell_circuit(self, call: Call, failure: Failure, *, broke: bool) -> None:
        if not broke:
            return
        self._worker.events.emit(
            EventType.CIRCUIT_OPENED,
            provider=self._provider.name,
            account=None if failure.scope in _OF_ALL else call.run.account,
            model=call.model.id if failure.scope in _OF_MODELS else None,
            scope=failure.scope.value,
            kind=failure.kind.value,
            code=failure.code,
        )

    async def _end_in_error(
        self, delivery: Delivery, call: Call, failure: Failure, *, shared_s: float = 0.0
    ) -> Executed:
        ended = await self._claims.commit(call, self._error_result(call, failure, shared_s=shared_s))
        if isinstance(ended, Stored):
            return await self._telling.tell(delivery, call.job, ended)
        if isinstance(ended, Living):  # a call beside it may still answer
            await self._claims.release(call)
        return await self._moving.park(delivery, call.job, 0.0)

    def _error_result(
        self, call: Call, failure: Failure, *, shared_s: float = 0.0, retry_at: float = 0.0
    ) -> Result:
        report = ErrorReport(
            type=failure.error_type,
            message=f"{self._provider.name}: {failure.message}",
            retryable=not failure.is_fatal,
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


def _was_sent(failure: Failure) -> bool:
    return failure.kind is not FailureKind.UNSENT
