"""Calling a provider under a claim: entered in the books, with permits that are still good, and renewed."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from broker.flights import RENEW_EVERY_S, Renewed, StateAway
from topology.errors import ErrorType
from topology.providers.outcomes import Completion, Failure
from workers.calling import ProviderClient
from workers.claims import Call
from workers.means import Means
from workers.moving import AGAIN_S, LaterPlease


@dataclass(frozen=True)
class NotBegun:
    """Nothing was sent: RabbitMQ took no entry in the books in time, or the permits are refused by now."""

    later: LaterPlease


@dataclass(frozen=True)
class Cut:
    """Its connection was closed: nobody wanted it any more, or another call's answer was there first."""

    answered: bool


Ended = Completion | Failure | NotBegun | Cut


class TooLate(Exception):
    """A call that was ready to leave after its permits had ended, and got no others."""

    def __init__(self, later: LaterPlease) -> None:
        super().__init__(later.limit)
        self.later = later


class ClaimedCalls:
    """Makes the calls of one provider's pool."""

    def __init__(self, means: Means, client: ProviderClient) -> None:
        self._worker, self._provider, self._client = means.worker, means.provider, client
        self._permits, self._claims = means.permits, means.claims
        self._telling, self._offers = means.telling, means.offers

    async def make(self, call: Call, hurry: asyncio.Event) -> tuple[Ended, float]:
        """Makes the call; what it came to, and its duration in seconds. `hurry` has it renewed at once.

        The claim is renewed from its first moment: to enter it in the books can take seconds, too.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            ending = group.create_task(self._begin_and_call(call), name="provider call")
            renewing = group.create_task(self._renew(call, ending, hurry), name="renew claim")
            await asyncio.wait({ending})
            renewing.cancel()
        ended: Ended
        if ending.cancelled():
            ended, seconds = Cut(answered=renewing.result() == "answered"), loop.time() - began
        else:
            ended, seconds = ending.result()
        if isinstance(ended, Completion) or ended == Cut(answered=True):
            self._offers.learn(call, seconds)
        return ended, seconds

    async def end_unsent(self, call: Call) -> None:
        """The claim of a call that was not begun goes back, with its permits."""
        error = ErrorType.OVERLOADED.value
        await self._telling.enter_failed(call, 0.0, status=None, error=error, kind="unsent", code=None)
        await self._claims.release(call, sent=False)

    async def end_cut(self, call: Call, cut: Cut, seconds: float) -> None:
        """It may be billed. `renew` has ended the claim; here its leases end."""
        error = ErrorType.CANCELLED.value
        await self._telling.enter_failed(call, seconds, status=None, error=error, kind="cancelled", code=None)
        reason = "answered" if cut.answered else "cancelled"
        await self._telling.enter_doubtful(call.job, call.facts, reason=reason)
        await self._claims.release(call, billed=True)

    async def _begin_and_call(self, call: Call) -> tuple[Completion | Failure | NotBegun, float]:
        """Nothing starts that is not in the books."""
        await self._telling.enter_doubtful(call.job, *call.run.doubts)
        if not await self._telling.write_ahead(call, self._provider.timeout_s):
            return NotBegun(LaterPlease(AGAIN_S, "RabbitMQ")), 0.0
        loop, run = asyncio.get_running_loop(), call.run
        began = loop.time()
        try:
            with self._offers.watching(call):
                ended = await self._client.call(
                    call.job, run.account, run.key_index, call.id, lambda: self._ensure_permits(call)
                )
        except TooLate as too_late:
            return NotBegun(too_late.later), 0.0
        return ended, loop.time() - began

    async def _ensure_permits(self, call: Call) -> None:
        """Takes them anew as long as they are too old to be sent with.

        Raises:
            TooLate: They are refused by now.
        """
        loop, account, asked_at = asyncio.get_running_loop(), call.run.account, call.asked_at
        while call.terms.is_stale(account, loop.time() - asked_at):
            asked_at = loop.time()
            try:
                answer = await self._worker.flights.restamp(call.job.fingerprint, call.terms, account)
            except StateAway:
                raise TooLate(LaterPlease(AGAIN_S, "Redis")) from None
            match answer:
                case "lost":
                    raise TooLate(LaterPlease(0.0, "own claim"))
                case (until, limit):
                    raise TooLate(LaterPlease(max(0.0, until - self._worker.clock.now()), limit))

    async def _renew(self, call: Call, ending: "asyncio.Task[Any]", hurry: asyncio.Event) -> Renewed:
        """Until it is cut, which the last verdict is the reason for."""
        leases = self._permits.leases_of(call.run.account, call.terms)
        pause_s = RENEW_EVERY_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await hurry.wait()
            hurry.clear()
            pause_s = RENEW_EVERY_S
            try:
                verdict = await self._worker.flights.renew(
                    call.job.fingerprint, call.job.waiter, call.terms, call.run, leases
                )
            except StateAway:
                pause_s = AGAIN_S  # the call goes on, and renewing is the first thing when Redis is back
                continue
            if verdict in {"unwanted", "answered"}:
                ending.cancel()
                return verdict
