"""A second call beside one that takes long: when it is granted, and what becomes of the two."""

from typing import Any

import pytest

from broker.answers import Busy, Done, Living, NotHedged, Run, Stale, Stored
from broker.controls import paused_key
from broker.flights import LEASE_S, ClaimTerms
from tests.broker.test_claim_permits import lease, rate
from tests.broker.test_flights import FLIGHT, Desk, fault, ok
from topology.messages import Waiter

HEDGED_BEFORE = NotHedged("hedged")


def beside(desk: Desk, **changes: Any) -> ClaimTerms:
    """The terms of another worker, at another provider."""
    call = {"provider": "spare", "model": "m", "request_id": "r1", "agent": "quality"}
    return desk.terms("w2", call=call, **changes)


async def running(desk: Desk, **changes: Any) -> tuple[Waiter, ClaimTerms, Run]:
    """A call that takes long."""
    waiter, terms = desk.waiter(), desk.terms("w1", **changes)
    await desk.admit(waiter)
    return waiter, terms, await desk.run(waiter, terms)


async def hedged(desk: Desk, slow: ClaimTerms, terms: ClaimTerms) -> Run:
    run = await desk.flights.hedge(FLIGHT, slow.token, terms)
    assert isinstance(run, Run)
    return run


# granted -----------------------------------------------------------------------------------------


async def test_a_call_that_takes_long_is_made_a_second_time_and_no_third(desk: Desk) -> None:
    waiter, slow, run = await running(desk)

    second = await hedged(desk, slow, beside(desk))

    assert (second.account, second.attempt) == ("main", 2)
    assert await desk.flights.hedge(FLIGHT, slow.token, beside(desk)) == HEDGED_BEFORE
    assert await desk.renew(waiter, slow, run) == "mine"
    assert await desk.field("token") == slow.token.encode()
    assert await desk.field("spends") == b"1"


async def test_none_is_made_where_it_runs_no_more(desk: Desk) -> None:
    waiter, slow, run = await running(desk)
    await desk.lapse()
    assert await desk.flights.hedge(FLIGHT, slow.token, beside(desk)) == NotHedged("over")

    other = desk.terms("w3")
    run = await desk.run(waiter, other)
    assert await desk.flights.hedge(FLIGHT, slow.token, beside(desk)) == NotHedged("over")

    await desk.commit(waiter, other, run.started, ok())
    assert await desk.flights.hedge(FLIGHT, other.token, beside(desk)) == NotHedged("over")


async def test_none_is_made_for_nobody(desk: Desk) -> None:
    waiter, slow, _ = await running(desk)
    await desk.flights.cancel([waiter.key])

    assert await desk.flights.hedge(FLIGHT, slow.token, beside(desk)) == NotHedged("unwanted")


async def test_none_is_made_at_the_same_provider_or_one_that_is_paused(desk: Desk) -> None:
    _, slow, _ = await running(desk)
    assert await desk.flights.hedge(FLIGHT, slow.token, desk.terms("w2")) == NotHedged("same")

    paused = paused_key(desk.flights.prefix)
    await desk.redis.hset(paused, "spare", "pause")
    terms = beside(desk, paused=(paused, "spare"))
    assert await desk.flights.hedge(FLIGHT, slow.token, terms) == NotHedged("paused")


# permits -----------------------------------------------------------------------------------------


async def test_none_is_made_without_a_permit_of_every_limit_and_none_waits_for_one(desk: Desk) -> None:
    _, slow, _ = await running(desk)
    free = lease(desk, 1, "spare")
    spent = rate(desk, "fixed", 1, unit="usd", name="spent")
    taken: list[dict[str, Any]] = [
        {"limits": (free, spent)},
        {"accounts": (desk.account("main", free, spent),)},
        {"limits": (free,), "budgets": (spent,)},
        {"limits": (free,), "own_budgets": (spent,)},
    ]
    await desk.flights.claim("other", desk.waiter("other"), desk.terms("w3", limits=(spent,)))
    for limits in taken:
        assert await desk.flights.hedge(FLIGHT, slow.token, beside(desk, **limits)) == NotHedged("spent")

    assert await desk.redis.zcard(free["key"]) == 0
    await hedged(desk, slow, beside(desk, limits=(free,)))
    assert await desk.redis.zcard(free["key"]) == 1


async def test_none_takes_what_others_wait_for(desk: Desk) -> None:
    _, slow, _ = await running(desk)
    limit, waiting = lease(desk, 1, "spare"), desk.waiter("other")
    classes: dict[str, Any] = {"limits": (limit,), "shares": (8.0, 3.0, 1.0)}
    first = desk.terms("w3", rank=1, seat="w3:any", **classes)
    await desk.flights.claim("first", desk.waiter("first"), first)
    await desk.flights.claim("other", waiting, desk.terms("w3", rank=1, seat="w3:any", **classes))
    await desk.flights.release("first", first.token)

    answer = await desk.flights.hedge(FLIGHT, slow.token, beside(desk, rank=0, **classes))

    assert answer == NotHedged("turn")


@pytest.mark.parametrize(("left_s", "why"), [(60.0, "closed"), (-1.0, "half open")])
async def test_none_tries_what_is_closed(desk: Desk, left_s: float, why: str) -> None:
    _, slow, _ = await running(desk)
    await desk.redis.set(desk.key("closed:spare"), desk.start + left_s)

    answer = await desk.flights.hedge(FLIGHT, slow.token, beside(desk, closed=(desk.key("closed:spare"),)))

    assert answer == NotHedged(why)


# the first answer counts -------------------------------------------------------------------------


async def test_the_second_calls_answer_is_everybodys_and_the_first_is_cut(desk: Desk) -> None:
    waiter, slow, run = await running(desk)
    fast = beside(desk)
    second = await hedged(desk, slow, fast)

    stored = await desk.commit(waiter, fast, second.started, ok("fast"))

    assert isinstance(stored, Stored)
    assert not stored.duplicate
    assert (stored.waiters, stored.payer) == ((waiter,), waiter.key)
    assert await desk.renew(waiter, slow, run) == "answered"
    late = await desk.commit(waiter, slow, run.started, ok("slow"))
    assert isinstance(late, Stored)
    assert late.duplicate
    assert late.outcome == ok("fast")


async def test_the_first_calls_answer_is_everybodys_and_the_second_is_cut(desk: Desk) -> None:
    waiter, slow, run = await running(desk)
    fast, held = beside(desk), lease(desk, 1, "spare")
    second = await hedged(desk, slow, fast)
    assert await desk.renew(waiter, fast, second, held["key"]) == "mine"
    assert await desk.redis.zscore(held["key"], fast.token) is not None

    stored = await desk.commit(waiter, slow, run.started, ok("slow"))

    assert isinstance(stored, Stored)
    assert await desk.renew(waiter, fast, second) == "answered"


async def test_both_are_unwanted_once_all_have_called_off(desk: Desk) -> None:
    waiter, slow, run = await running(desk)
    fast = beside(desk)
    second = await hedged(desk, slow, fast)
    await desk.flights.cancel([waiter.key])

    assert await desk.renew(waiter, fast, second) == "unwanted"
    assert await desk.renew(waiter, slow, run) == "unwanted"
    assert await desk.renew(waiter, fast, second) == "unwanted"


async def test_a_flight_that_is_opened_anew_may_be_hedged_anew(desk: Desk) -> None:
    waiter, slow, run = await running(desk)
    fast = beside(desk)
    second = await hedged(desk, slow, fast)
    await desk.commit(waiter, slow, run.started, ok("old"))
    await desk.flights.settle(FLIGHT, [waiter])
    newer, again = desk.waiter("r2"), desk.terms("w1")
    await desk.admit(newer, max_age_s=0.0)
    await desk.run(newer, again)

    assert await desk.renew(waiter, fast, second) == "lost"
    await hedged(desk, again, beside(desk))
    old = await desk.commit(waiter, fast, second.started, ok("old too"))
    assert isinstance(old, Stored)
    assert (old.duplicate, old.waiters) == (True, ())


# failures ----------------------------------------------------------------------------------------


async def test_an_error_of_the_first_waits_for_the_second(desk: Desk) -> None:
    waiter, slow, run = await running(desk)
    fast = beside(desk)
    second = await hedged(desk, slow, fast)

    assert await desk.commit(waiter, slow, run.started, fault()) == Living()
    await desk.flights.release(FLIGHT, slow.token)
    busy = await desk.claim(waiter, desk.terms("w3"))
    assert isinstance(busy, Busy)
    assert busy.until == pytest.approx(second.started + LEASE_S, abs=0.001)

    await desk.commit(waiter, fast, second.started, ok("fast"))
    done = await desk.claim(waiter, desk.terms("w3"))
    assert isinstance(done, Done)
    assert done.outcome == ok("fast")


async def test_when_the_second_has_failed_too_the_job_goes_its_way(desk: Desk) -> None:
    waiter, slow, _ = await running(desk)
    fast = beside(desk)
    await hedged(desk, slow, fast)
    await desk.flights.release(FLIGHT, slow.token)

    await desk.flights.release(FLIGHT, fast.token)

    run = await desk.run(waiter, desk.terms("w3"))
    assert (run.attempt, run.doubts) == (3, ())


async def test_a_second_call_whose_worker_died_is_waited_for_no_longer_than_its_lease(desk: Desk) -> None:
    waiter, slow, _ = await running(desk)
    await hedged(desk, slow, beside(desk))
    await desk.lapse()
    assert isinstance(await desk.claim(waiter, desk.terms("w3")), Busy)

    await desk.age("hedge_until", LEASE_S)

    assert isinstance(await desk.claim(waiter, desk.terms("w3")), Run)


async def test_an_error_of_the_second_ends_nothing(desk: Desk) -> None:
    waiter, slow, run = await running(desk)
    fast = beside(desk)
    second = await hedged(desk, slow, fast)

    assert await desk.commit(waiter, fast, second.started, fault()) == Stale()
    await desk.flights.release(FLIGHT, fast.token)

    assert await desk.renew(waiter, slow, run) == "mine"
    assert await desk.flights.hedge(FLIGHT, slow.token, beside(desk)) == HEDGED_BEFORE


async def test_a_second_call_that_was_never_sent_gives_its_permits_back(desk: Desk) -> None:
    _, slow, _ = await running(desk)
    limits = (lease(desk, 1, "spare"), rate(desk, "fixed", 10))
    fast = beside(desk, limits=limits)
    await hedged(desk, slow, fast)
    [used] = await desk.flights.uses(limits)
    assert [use.used for use in used] == [1, 1]

    await desk.flights.release(FLIGHT, fast.token, sent=False)

    [used] = await desk.flights.uses(limits)
    assert [use.used for use in used] == [0, 0]
