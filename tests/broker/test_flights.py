"""Flights as a whole; and the desk at which the other files here try the scripts rule by rule."""

import itertools
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from broker.answers import Admitted, Claimed, Committed, Hit, Joined, Lead, Run
from broker.flights import Admission, ClaimTerms, Flights, Renewed, Result, StateAway
from sandbox.nodes import Brokers
from topology.errors import ErrorType
from topology.messages import ErrorReport, Outcome, Waiter
from topology.names import Priority

FLIGHT = "f1"


@dataclass
class Desk:
    """One flight on a real Redis, under a key prefix of the test's own, with its history made by hand.

    Instants in the record are moved into the past instead of being waited for.
    """

    redis: Redis
    flights: Flights
    start: float
    _tokens: "itertools.count[int]" = field(default_factory=itertools.count)

    def waiter(
        self, name: str = "r1", agent: str = "quality", *, left_s: float = 60.0, **changes: Any
    ) -> Waiter:
        values = {"reply_to": f"reply.{agent}.c.1", "priority": Priority.NORMAL, **changes}
        return Waiter(agent=agent, id=name, deadline=self.start + left_s, queued_at=self.start, **values)

    def terms(self, worker: str = "w1", **changes: Any) -> ClaimTerms:
        values: dict[str, Any] = {
            "max_spends": 2,
            "call": {"provider": "groq", "model": "m", "request_id": "r1", "agent": "quality"},
            "limits": (),
            "closed": (),
            "accounts": (self.account("main"),),
            "used_key": self.key("used"),
            **changes,
        }
        return ClaimTerms(worker=worker, token=f"token-{next(self._tokens)}", **values)

    def account(self, name: str, *limits: Mapping[str, Any], keys: int = 1) -> dict[str, Any]:
        """An account that can be closed at `closed-<name>`, its keys at `closed-<name>-<number>`."""
        return {
            "name": name,
            "closed": [self.key(f"closed-{name}")],
            "keys": [{"closed": [self.key(f"closed-{name}-{n}")]} for n in range(keys)],
            "limits": list(limits),
        }

    def key(self, name: str) -> str:
        return f"{self.flights.prefix}{name}"

    async def admit(
        self, waiter: Waiter, *, max_age_s: float = 600.0, keep_s: float = 600.0, limits: Any = ()
    ) -> Admitted:
        [answer] = await self.flights.admit([Admission(FLIGHT, waiter, max_age_s, keep_s, limits)])
        return answer

    async def claim(self, waiter: Waiter, terms: ClaimTerms) -> Claimed:
        return await self.flights.claim(FLIGHT, waiter, terms)

    async def run(self, waiter: Waiter, terms: ClaimTerms) -> Run:
        run = await self.claim(waiter, terms)
        assert isinstance(run, Run)
        return run

    async def renew(self, waiter: Waiter, terms: ClaimTerms, run: Run, *leases: str) -> Renewed:
        return await self.flights.renew(FLIGHT, waiter, terms, run, leases)

    async def commit(
        self, waiter: Waiter, terms: ClaimTerms, started: float, outcome: Outcome, **changes: Any
    ) -> Committed:
        result = Result(outcome, **{"events": b"", "keep_s": 600.0, **changes})
        return await self.flights.commit(FLIGHT, waiter, terms.token, started, result)

    async def answered(self, waiter: Waiter, outcome: Outcome, **changes: Any) -> None:
        """The whole way of a request that is answered, up to its reply's confirm."""
        await self.admit(waiter)
        terms = self.terms()
        run = await self.run(waiter, terms)
        await self.commit(waiter, terms, run.started, outcome, **changes)
        await self.flights.settle(FLIGHT, [waiter])

    async def field(self, name: str) -> bytes | None:
        value = await self.redis.hget(self.key(f"flight:{FLIGHT}"), name)
        assert value is None or isinstance(value, bytes)
        return value

    async def age(self, name: str, seconds: float) -> None:
        """Moves an instant of the record into the past."""
        instant = float(await self.field(name) or 0) - seconds
        await self.redis.hset(self.key(f"flight:{FLIGHT}"), name, str(instant))

    async def wait_out(self, seconds: float) -> None:
        """So much time passes since the job was published."""
        await self.age("opened", seconds)
        await self.age("published_at", seconds)

    async def lapse(self) -> None:
        """The worker that holds the claim has been silent for longer than its lease."""
        await self.age("lease_until", 3600.0)

    async def flush(self) -> None:
        """Redis has forgotten all that it knew of this fleet."""
        keys = [key async for key in self.redis.scan_iter(f"{self.flights.prefix}*", count=1000)]
        if keys:
            await self.redis.delete(*keys)


@asynccontextmanager
async def open_desk(brokers: Brokers) -> AsyncIterator[Desk]:
    async with Redis.from_url(brokers.redis_url) as redis:
        flights = Flights(redis, f"test-{secrets.token_hex(6)}:")
        desk = Desk(redis, flights, await flights.now())
        try:
            yield desk
        finally:
            await desk.flush()


def ok(text: str = "Hello") -> Outcome:
    return Outcome(status="ok", body={"text": text}, provider="groq", model="m")


def fault(message: str = "No.") -> Outcome:
    report = ErrorReport(type=ErrorType.PROVIDER_ERROR, message=message)
    return Outcome(status="error", error=report)


async def test_many_requests_are_admitted_in_one_round_trip_and_in_their_order(desk: Desk) -> None:
    admissions = [
        Admission(flight, desk.waiter(name), 600.0, 600.0)
        for flight, name in (("f1", "r1"), ("f1", "r2"), ("f2", "r3"), ("f1", "r1"))
    ]

    assert await desk.flights.admit(admissions) == [Lead(1), Joined(), Lead(1), Lead(2)]


async def test_admitting_nobody_asks_nothing(desk: Desk) -> None:
    assert await desk.flights.admit([]) == []


async def test_a_redis_that_forgot_the_scripts_is_given_them_again(desk: Desk) -> None:
    waiter, terms = desk.waiter(), desk.terms()
    await desk.admit(waiter)
    await desk.redis.script_flush()

    run = await desk.run(waiter, terms)
    await desk.redis.script_flush()
    batch = [Admission(FLIGHT, desk.waiter(name), 600.0, 600.0) for name in ("r2", "r3")]

    assert await desk.flights.admit(batch) == [Joined(), Joined()]
    assert await desk.renew(waiter, terms, run) == "mine"


async def test_two_fleets_on_one_redis_know_nothing_of_each_other(desk: Desk, brokers: Brokers) -> None:
    async with open_desk(brokers) as other:
        assert await desk.admit(desk.waiter("r1")) == Lead(1)
        assert await other.admit(other.waiter("r2")) == Lead(1)


async def test_the_clock_is_that_of_redis(desk: Desk) -> None:
    seconds, _ = await desk.redis.time()

    assert await desk.flights.now() >= seconds
    assert desk.start <= await desk.flights.now()


@pytest.fixture
async def nowhere() -> AsyncIterator[Flights]:
    """Flights on a port where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        async with Redis(host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0)) as redis:
            yield Flights(redis)


async def test_without_redis_nothing_is_decided(desk: Desk, nowhere: Flights) -> None:
    waiter, terms = desk.waiter(), desk.terms()
    run = Run("main", 0, desk.start, 1, waiter.deadline, ())

    with pytest.raises(StateAway):
        await nowhere.admit([Admission(FLIGHT, waiter, 0.0, 0.0)])
    with pytest.raises(StateAway):
        await nowhere.claim(FLIGHT, waiter, terms)
    with pytest.raises(StateAway):
        await nowhere.renew(FLIGHT, waiter, terms, run, ())
    with pytest.raises(StateAway):
        await nowhere.commit(FLIGHT, waiter, terms.token, run.started, Result(ok()))
    with pytest.raises(StateAway):
        await nowhere.release(FLIGHT, terms.token)
    with pytest.raises(StateAway):
        await nowhere.settle(FLIGHT, [waiter])
    with pytest.raises(StateAway):
        await nowhere.now()


async def test_one_request_goes_all_the_way(desk: Desk) -> None:
    waiter, terms = desk.waiter(), desk.terms()

    assert await desk.admit(waiter) == Lead(1)
    run = await desk.run(waiter, terms)
    await desk.commit(waiter, terms, run.started, ok("Sky"), events=b"news")
    await desk.flights.settle(FLIGHT, [waiter], events=b"news")

    assert await desk.admit(desk.waiter("r2")) == Hit("fresh", ok("Sky"), waiter.key)
