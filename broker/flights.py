"""The flights: the one execution that serves all requests with the same fingerprint.

Each method is one Lua script, one round trip, one atomic step; `docs/protocol.md` has their rules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Literal

import msgpack
from redis.asyncio import Redis

from broker.answers import (
    Admitted,
    Attended,
    Cancelled,
    Claimed,
    Committed,
    NotHedged,
    Released,
    Run,
    Spot,
    Use,
)
from broker.away import StateAway, asking
from broker.decoding import admitted, attended, cancelled, claimed, committed, hedged, uses
from broker.scripting import Scripts, pack
from broker.terms import Admission, ClaimTerms, Result
from topology.messages import Waiter
from topology.names import RetryTier

__all__ = ["Admission", "ClaimTerms", "Flights", "Result", "StateAway"]

LEASE_S: Final = 15.0
RENEW_EVERY_S: Final = 5.0
_BROKEN_S: Final = 1.0
"""How long a part of a provider is left alone when its circuit opens."""
BACKOFF_S: Final = 25.0
LONGEST_BACKOFF_S: Final = 500.0
"""How long a job that is out is a sign of life: as long as its flight had waited when it was led, within
these. A client's silence (30 s, doubled) is longer each time, so that who asks again leads."""

Renewed = Literal["mine", "unwanted", "answered", "lost"]

_LAYOUT: Final = "o1"
"""Part of every key: a release that lays its records out differently never reads these."""


class Flights:
    """The scripts on one Redis.

    Args:
        redis: Connected with `decode_responses=False`; not closed here.
        prefix: Put before every key, for fleets that share a Redis.
    """

    def __init__(self, redis: Redis, prefix: str = "") -> None:
        self._redis = redis
        self.prefix = f"{prefix}{_LAYOUT}:"
        self._scripts = Scripts(redis, self.prefix)

    async def admit(self, admissions: Sequence[Admission]) -> list[Admitted]:
        """Admits requests, all in one round trip, in their order."""
        calls = [(a.fingerprint, self._admission(a)) for a in admissions]
        return [admitted(answer) for answer in await self._scripts.run_all("admit", calls)]

    async def claim(self, fingerprint: str, waiter: Waiter, terms: ClaimTerms) -> Claimed:
        """Asks for the right to call the provider now, with every permit it takes."""
        answer = await self._scripts.run(
            "claim",
            fingerprint,
            **_of(waiter),
            **terms.arguments(),
            worker=terms.worker,
            lease_s=LEASE_S,
            max_spends=terms.max_spends,
            permit_key=self._permit_key(terms.token),
            seat=terms.seat,
            more=terms.more,
            lines=terms.lines,
            retries=dict(terms.retries or {}),
            place=terms.place and {**asdict(terms.place), "next": terms.place.next or ()},
        )
        return claimed(answer)

    async def hedge(self, fingerprint: str, hedges: str, terms: ClaimTerms) -> Run | NotHedged:
        """Asks for the right to call another provider beside a call that takes long; `hedges` is its token.

        The claim of that call stays as it is. `terms.token` is the new call's.
        """
        answer = await self._scripts.run(
            "hedge",
            fingerprint,
            **terms.arguments(),
            hedges=hedges,
            lease_s=LEASE_S,
            permit_key=self._permit_key(terms.token),
        )
        return hedged(answer)

    async def attend(
        self, fingerprint: str, waiter: Waiter, *, worker: str, token: str, max_spends: int
    ) -> Attended:
        """`claim` for a worker that never calls: what is to become of a job that reached no pool.

        Nothing is granted. `Spent` alone is a claim, under `token`, for committing the error.
        """
        answer = await self._scripts.run(
            "claim",
            fingerprint,
            **_of(waiter),
            worker=worker,
            token=token,
            lease_s=LEASE_S,
            max_spends=max_spends,
            parks=sorted((tier.delay_s for tier in RetryTier), reverse=True),
        )
        return attended(answer)

    async def restamp(
        self, fingerprint: str, terms: ClaimTerms, account: str
    ) -> Literal["mine", "lost"] | tuple[float, str]:
        """Takes the permits of a claim anew, for a call that is sent later than theirs allow for.

        Returns:
            `mine`; `lost`: the claim is somebody else's, or over; else the instant until which they are
            refused, and the limit. Then only the claim is held, to be released.
        """
        answer = await self._scripts.run(
            "restamp",
            fingerprint,
            token=terms.token,
            lease_s=LEASE_S,
            permit_key=self._permit_key(terms.token),
            limits=terms.limits_of(account),
        )
        if answer[0] == b"later":
            return float(answer[1]), answer[2].decode()
        return "mine" if answer[0] == b"mine" else "lost"

    async def renew(
        self, fingerprint: str, waiter: Waiter, terms: ClaimTerms, run: Run, leases: Sequence[str]
    ) -> Renewed:
        """Keeps the claim, or the place beside it, and its concurrency leases for another 15 s.

        `unwanted` ends the claim, since nobody waits; `answered`: another call made beside it has answered.
        Of both `release` ends the leases, once the call is cut.
        """
        answer = await self._scripts.run(
            "renew",
            fingerprint,
            **_of(waiter),
            worker=terms.worker,
            token=terms.token,
            lease_s=LEASE_S,
            started=run.started,
            call=pack({**terms.call, "account": run.account, "started": run.started}),
            leases=list(leases),
        )
        verdict: Renewed = answer[0].decode()  # type: ignore[assignment]
        return verdict

    async def commit(
        self, fingerprint: str, waiter: Waiter, token: str, started: float, result: Result
    ) -> Committed:
        """Stores what a call came to, and settles its permits with the bill.

        Raises:
            Refused: The outcome is larger than a message may be; nothing was stored.
            StateAway: Redis is away; asking again is harmless.
        """
        answer = await self._scripts.run(
            "commit",
            fingerprint,
            **_of(waiter),
            token=token,
            started=started,
            permit_key=self._permit_key(token),
            ok=result.outcome.status == "ok",
            outcome=result.outcome.to_bytes(),
            events=result.events,
            keep_s=result.keep_s,
            shared_s=result.shared_s,
            retry_at=result.retry_at,
            bill=dict(result.bill or {}),
            left=dict(result.left or {}),
            parts=result.parts,
            failed=_failed(result.failed),
        )
        return committed(answer)

    async def release(
        self,
        fingerprint: str,
        token: str,
        *,
        closed: Mapping[str, float] | None = None,
        grow_s: float = 0.0,
        parked_until: float = 0.0,
        billed: bool = False,
        sent: bool = True,
        overloaded: bool = False,
        failed: str | None = None,
    ) -> Released:
        """Gives the claim up after a retryable error.

        Args:
            fingerprint: The flight.
            token: The claim's.
            closed: Keys to close for every replica, with the instant until which. After that one call may try
                what is behind each, and its end decides.
            grow_s: Where the provider does not say how long: they are closed for so many seconds, and twice
                as long each time that such a call is refused, up to 32 times and an hour. 0: until the
                instants.
            parked_until: When the job comes back from a retry tier; 0: it is not parked.
            billed: The provider may have charged; the spend stays counted.
            sent: False when nothing left this machine: the permits go back.
            overloaded: The provider had no room: fewer calls at once for a while, for every replica.
            failed: What closes the part of the provider that failed. After so many failures in a row, of all
                replicas, it is closed: for a second, and for twice as long after each call that tried it.
        """
        answer = await self._scripts.run(
            "release",
            fingerprint,
            token=token,
            permit_key=self._permit_key(token),
            closed=[{"key": k, "until_": until, "grow_s": grow_s} for k, until in (closed or {}).items()],
            parked_until=parked_until,
            billed=billed,
            sent=sent,
            overloaded=overloaded,
            failed=_failed(failed),
        )
        return Released(answer[0] == b"mine", int(answer[1]), answer[2] == b"1")

    async def are_closed(self, parts: Sequence[str]) -> list[bool]:
        """Whether each part of a provider is closed at this instant, by the key that closes it.

        The same for a retry budget, by its own: whether it is used up.
        """
        with asking():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.mget(parts)
                pipeline.time()
                untils, (seconds, _) = await pipeline.execute()
        return [until is not None and float(until) > seconds for until in untils]

    async def settle(
        self, fingerprint: str, waiters: Sequence[Waiter], *, events: bytes = b"", keep_s: float = 0.0
    ) -> None:
        """Marks waiters as served, and these events, as the record had them, as published.

        The record is kept for another `keep_s` seconds at least, for those who are still to be served.
        """
        served = [{"key": w.key, "deadline": w.deadline} for w in waiters]
        await self._scripts.run("settle", fingerprint, waiters=served, events=events, keep_s=keep_s)

    async def cancel(self, keys: Sequence[str]) -> list[Cancelled]:
        """Calls requests off, by their waiters' keys; all in one round trip, in their order."""
        answers = await self._scripts.run_all("cancel", [("", {"key": key}) for key in keys])
        return [cancelled(answer) for answer in answers]

    async def uses(self, *groups: Sequence[Mapping[str, Any]]) -> list[list[Use]]:
        """What is used of limits, described as in `limits.lua`; Redis looks at one group after the other."""
        calls = [("", {"limits": list(limits)}) for limits in groups]
        return [uses(answer) for answer in await self._scripts.run_all("left", calls)]

    async def meters(self, *groups: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
        """How each limit stands, for working out when it grants what, as `meters.lua` tells it."""
        calls = [("", {"limits": list(limits)}) for limits in groups]
        answers = await self._scripts.run_all("meters", calls)
        return [[msgpack.unpackb(packed) for packed in answer] for answer in answers]

    async def enter(self, fingerprint: str, queue: str, waiter: Waiter) -> Spot:
        """A flight's job goes to this common queue: it waits in that line from now on, and nowhere else."""
        side, turn = await self._scripts.run(
            "enter", fingerprint, queue=queue, agent=waiter.agent, deadline=waiter.deadline
        )
        return Spot(int(side), float(turn))

    async def in_line(self, queue: str, sides: int) -> list[int]:
        """How many agents wait in a queue of jobs; in each beside it, those that wait in that one alone."""
        places = [f"{self.prefix}line:{queue}|{side}" for side in range(sides + 1)]
        with asking():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.zcard(places[0])
                for place in places[1:]:
                    pipeline.zdiff([place, places[0]])
                common, *beside = await pipeline.execute()
        return [int(common), *map(len, beside)]

    async def are_queued(self, waiters: Sequence[tuple[str, Waiter]]) -> list[bool]:
        """Whether each still waits for its flight's job, which no worker has started and no tier holds."""
        with asking():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for fingerprint, waiter in waiters:
                    flight, waiting, _ = self._scripts.keys(fingerprint)
                    pipeline.hmget(flight, "state", "parked_until")
                    pipeline.hexists(waiting, waiter.key)
                pipeline.time()
                *answers, (seconds, _) = await pipeline.execute()
        flights = zip(answers[::2], answers[1::2], strict=True)
        return [
            bool(waits) and state == b"queued" and float(parked_until or 0) <= seconds
            for (state, parked_until), waits in flights
        ]

    async def waiters(self, fingerprint: str) -> list[Waiter]:
        """Who waits for a flight and has no answer yet."""
        with asking():
            packed = await self._redis.hvals(self._scripts.keys(fingerprint)[1])
        return [Waiter.from_bytes(blob) for blob in packed if isinstance(blob, bytes)]

    async def now(self) -> float:
        """Redis's clock, in epoch seconds, where Redis takes writes."""
        with asking():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.set(f"{self.prefix}probe", b"", px=1)  # a full one, or a replica, tells the time too
                pipeline.time()
                written, told = await pipeline.execute(raise_on_error=False)
        if isinstance(written, Exception):
            raise StateAway(f"{type(written).__name__}: {written}")
        seconds, microseconds = told
        return float(seconds + microseconds / 1e6)

    def _permit_key(self, token: str) -> str:
        return f"{self.prefix}permit:{token}"

    @staticmethod
    def _admission(admission: Admission) -> dict[str, Any]:
        waiter = admission.waiter
        return {
            **_of(waiter),
            "rank": waiter.priority.rank,
            "durable": waiter.durable,
            "max_age_s": admission.max_age_s,
            "keep_s": admission.keep_s,
            "backoff_s": BACKOFF_S,
            "longest_backoff_s": LONGEST_BACKOFF_S,
            "limits": admission.limits,
            "queue": admission.queue,
            "agent": waiter.agent,
            "earliest": admission.earliest or (),
            "budgets": admission.budgets,
        }


def _failed(part: str | None) -> list[dict[str, Any]]:
    return [{"key": part, "until_": 0.0, "grow_s": _BROKEN_S}] if part else []


def _of(waiter: Waiter) -> dict[str, Any]:
    return {"key": waiter.key, "waiter": waiter.to_bytes(), "deadline": waiter.deadline}
