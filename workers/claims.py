"""A claim in this worker's hands, and the words to Redis that end it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from broker.answers import Committed, Living, Run
from broker.flights import ClaimTerms, Result, StateAway
from broker.permits import call_id
from topology.events import EventType
from topology.fleet import Model
from topology.messages import Job
from topology.providers.outcomes import Scope
from workers.moving import AGAIN_S
from workers.worker import Worker

log = logging.getLogger("optimizer.claims")
T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A claim with all that belongs to it.

    `asked_at` is when it was asked for, by the event loop's clock: its permits are no older. `hedges` is the
    token of the claim beside which it is made; None: it is made under a claim of its own.
    """

    job: Job
    model: Model
    terms: ClaimTerms
    run: Run
    asked_at: float
    hedges: str | None = None

    @property
    def id(self) -> str:
        """The call's name in the ledger, in the events and to the provider."""
        return call_id(self.job.fingerprint, self.terms.token)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is needed to report it as doubtful."""
        return {**self.terms.call, "account": self.run.account}


class Claims:
    """Ends claims, however long Redis is away: what a call came to is in our hands until it is stored."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def commit(self, call: Call, result: Result) -> Committed:
        """Stores what the call came to; what it has tried is open again."""
        committed = await self.until_decided(
            lambda: self._worker.flights.commit(
                call.job.fingerprint, call.job.waiter, call.terms.token, call.run.started, result
            )
        )
        if not isinstance(committed, Living):
            for part in call.run.tried if result.failed is None else ():
                self._tell_restored(call, part)
        return committed

    def _tell_restored(self, call: Call, part: str) -> None:
        provider, account, model = call.terms.call["provider"], call.run.account, call.model.id
        whose = part.partition(f"closed:{provider}")[2]
        what = whose.removeprefix(f":{account}").removeprefix(":")
        scope = Scope.KEY if what else Scope.ACCOUNT if whose else Scope.PROVIDER
        self._worker.events.emit(
            EventType.CIRCUIT_CLOSED if part in call.run.broken else EventType.KEY_RESTORED,
            provider=provider,
            account=account if whose else None,
            scope=(Scope.MODEL if what == model else scope).value,
            model=model if what == model else None,
            key=what if what and what != model else None,
        )

    async def release(self, call: Call, **terms: Any) -> bool:
        """Gives the claim up; `terms` as for `Flights.release`. Whether the circuit of what failed opened."""
        released = await self.until_decided(
            lambda: self._worker.flights.release(call.job.fingerprint, call.terms.token, **terms)
        )
        return released.broke

    async def give_back(self, fingerprint: str, token: str, *, sent: bool) -> None:
        """Gives up a claim under which nothing was called; `sent`: its doubts are passed on."""
        await self.until_decided(lambda: self._worker.flights.release(fingerprint, token, sent=sent))

    async def until_decided(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks again and again while Redis is away."""
        while True:
            try:
                return await ask()
            except StateAway as error:
                log.warning("Redis is away, holding a result", extra={"error": str(error)})
                await asyncio.sleep(AGAIN_S)
