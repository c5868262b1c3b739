"""What follows from a call that was answered: its price, its entry in the books, and who is told."""

from dataclasses import replace

from broker.answers import Living, Stale, Stored
from broker.flights import Result
from producer_sdk.transport import Delivery
from topology.errors import ErrorType, Refused
from topology.events import EventType
from topology.messages import ErrorReport, Outcome
from topology.providers.outcomes import Completion
from workers.claims import Call
from workers.means import Means
from workers.moving import Executed
from workers.prices import Prices


class AfterAnswer:
    """Stores and tells for one provider's pool."""

    def __init__(self, means: Means) -> None:
        self._worker, self._provider = means.worker, means.provider
        self._permits, self._claims = means.permits, means.claims
        self._telling, self._moving, self._offers = means.telling, means.moving, means.offers
        self._prices = Prices(means.provider)

    async def follow(
        self, delivery: Delivery, call: Call, completion: Completion, seconds: float
    ) -> Executed:
        """Deals with a call that was answered after `seconds`."""
        usage, job = completion.usage, call.job
        price = self._prices.cost_usd(call.model, completion)
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
        bill = self._permits.billed(job, usage, price)
        event = self._worker.events.event(
            EventType.CALL_COMPLETED,
            id=call.id,
            **self._telling.facts(call),
            latency_s=round(seconds, 4),
            status=200,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cost_usd=price,
        ).to_bytes()
        _, keep_s = self._worker.fleet.cache.freshness(job.request)
        left = self._permits.left_of(call.run.account, call.model, completion.limits)
        parts = self._permits.parts_of(call.run.account, call.model)
        result = Result(outcome, event, keep_s=keep_s, bill=bill, left=left, parts=parts)
        try:
            stored = await self._claims.commit(call, result)
        except Refused as refused:  # paid for, and as large if it were bought again
            stored = await self._claims.commit(call, replace(result, outcome=_too_large(outcome, refused)))
        await self._worker.learning.succeeded(job)
        match stored:
            case Stored(duplicate=True):
                await self._worker.books.enter_packed(event)
                await self._worker.books.enter(
                    EventType.SPEND_DUPLICATE,
                    f"{call.id}:duplicate",
                    **self._telling.facts(call),
                    cost_usd=price,
                )
            case Stored():
                self._offers.cut_other(call)
            case Stale() | Living():  # a result is taken from anyone; this was an answer too large to send
                return await self._moving.park(delivery, job, 0.0)
        return await self._telling.tell(delivery, job, stored)


def _too_large(outcome: Outcome, refused: Refused) -> Outcome:
    """The error in place of an answer that is larger than a message may be."""
    error = ErrorReport(type=ErrorType.PROVIDER_ERROR, message=f"{outcome.provider}: {refused.message}")
    return outcome.model_copy(update={"status": "error", "body": None, "error": error})
