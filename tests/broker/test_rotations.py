"""Which of the accounts that grant goes next."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from broker.answers import Run
from broker.flights import Result
from broker.terms import ClaimTerms
from tests.broker.test_flights import Desk, ok


class Pool:
    """Calls of one provider with several accounts, one flight after the other."""

    def __init__(self, desk: Desk, rotation: str, accounts: Sequence[Mapping[str, Any]]) -> None:
        self._desk, self._rotation, self.accounts = desk, rotation, tuple(accounts)
        self._calls = 0

    async def call(self) -> tuple[str, str, ClaimTerms]:
        """The flight, the chosen account, the claim."""
        self._calls += 1
        name, desk = f"flight{self._calls}", self._desk
        terms = desk.terms(
            accounts=self.accounts, rotation=self._rotation, notes_key=desk.key("accounts:groq")
        )
        granted = await desk.flights.claim(name, desk.waiter(name), terms)
        assert isinstance(granted, Run)
        return name, granted.account, terms

    async def succeed(self, name: str, terms: ClaimTerms) -> None:
        await self._desk.flights.commit(
            name, self._desk.waiter(name), terms.token, self._desk.start, Result(ok())
        )

    async def fail(self, name: str, terms: ClaimTerms) -> None:
        await self._desk.flights.release(name, terms.token, overloaded=True)

    async def make_slow(self, name: str, terms: ClaimTerms, seconds: float) -> None:
        """As if this call had taken so long."""
        redis: Any = self._desk.redis
        key = self._desk.key("accounts:groq")
        await self.succeed(name, terms)
        for field, value in (await redis.hgetall(key)).items():
            if field.endswith(b"seconds"):
                await redis.hset(key, field, float(value) + seconds)


def daily(desk: Desk, account: str, amount: float) -> Mapping[str, Any]:
    return {
        "kind": "fixed", "key": desk.key(f"rate:{account}"), "amount": amount, "window_s": 86400.0,
        "slack_s": 5.0, "offset_s": 0.0, "unit": "requests", "cost": 1.0, "name": "day",
    }  # fmt: skip


async def test_round_robin_takes_the_account_whose_last_call_is_longest_ago(desk: Desk) -> None:
    pool = Pool(desk, "round_robin", [desk.account(name) for name in "abc"])

    taken = [(await pool.call())[1] for _ in range(6)]

    assert taken == ["a", "b", "c", "a", "b", "c"]


async def test_least_used_makes_up_for_what_an_account_has_missed(desk: Desk) -> None:
    pool = Pool(desk, "least_used", [desk.account("a")])
    for _ in range(3):
        await pool.call()
    pool.accounts = (desk.account("a"), desk.account("b"))

    assert [(await pool.call())[1] for _ in range(4)] == ["b", "b", "b", "a"]


async def test_performance_takes_the_account_that_answers_soonest(desk: Desk) -> None:
    pool = Pool(desk, "performance", [desk.account(name) for name in "ab"])
    name, account, terms = await pool.call()
    assert account == "a"
    await pool.make_slow(name, terms, 5.0)
    name, account, terms = await pool.call()
    assert account == "b"
    await pool.succeed(name, terms)

    assert [(await pool.call())[1] for _ in range(3)] == ["b"] * 3


async def test_performance_counts_the_tries_that_fail(desk: Desk) -> None:
    pool = Pool(desk, "performance", [desk.account(name) for name in "ab"])
    first, second = await pool.call(), None
    await pool.make_slow(first[0], first[2], 1.0)
    second = await pool.call()
    await pool.make_slow(second[0], second[2], 0.5)  # and the first for as much longer
    for _ in range(12):
        name, account, terms = await pool.call()
        if account == "a":
            break
        await pool.fail(name, terms)

    assert account == "a"


async def test_performance_hears_of_a_call_whose_permits_were_taken_anew(desk: Desk) -> None:
    pool = Pool(desk, "performance", [desk.account(name) for name in "ab"])
    name, account, terms = await pool.call()
    assert await desk.flights.restamp(name, terms, account) == "mine"
    await pool.make_slow(name, terms, 5.0)
    name, _, terms = await pool.call()
    await pool.succeed(name, terms)

    assert [(await pool.call())[1] for _ in range(3)] == ["b"] * 3


async def test_intelligent_takes_the_account_with_the_largest_part_of_its_quota_left(desk: Desk) -> None:
    quotas = {"small": 10, "large": 40}
    pool = Pool(desk, "intelligent", [desk.account(n, daily(desk, n, q)) for n, q in quotas.items()])

    taken = Counter([(await pool.call())[1] for _ in range(25)])

    assert taken == {"small": 5, "large": 20}
