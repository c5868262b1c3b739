from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from broker.answers import Claimed, Done, Later, Run
from broker.flights import LEASE_S, ClaimTerms, Result
from tests.broker.test_flights import Desk, ok
from tests.support.waiting import until


def lease(desk: Desk, amount: int, scope: str = "groq") -> Mapping[str, Any]:
    return {"kind": "lease", "key": desk.key(f"lease:{scope}"), "amount": amount, "name": "concurrency"}


def rate(
    desk: Desk, kind: str, amount: float, cost: float = 1.0, window_s: float = 3600.0, **changes: Any
) -> Mapping[str, Any]:
    limit = {"kind": kind, "key": desk.key(f"rate:{kind}"), "amount": amount, "window_s": window_s}
    common = {"slack_s": 0.0, "offset_s": 0.0, "unit": "reserved_tokens", "cost": cost, "name": kind}
    burst = {"burst": amount} if kind == "bucket" else {}
    return {**limit, **common, **burst, **changes}


_PATIENCE_S: Final = 90_000.0


async def claim(desk: Desk, flight: str, terms: ClaimTerms) -> Claimed:
    """Claims a flight of its own, which nobody else wants, with time for any limit to open."""
    return await desk.flights.claim(flight, desk.waiter(flight, left_s=_PATIENCE_S), terms)


async def end(desk: Desk, flight: str, terms: ClaimTerms, **bill: float) -> None:
    result = Result(ok(), bill=bill or None)
    await desk.flights.commit(flight, desk.waiter(flight), terms.token, desk.start + 1e6, result)


async def test_no_more_calls_run_than_the_concurrency_allows(desk: Desk) -> None:
    terms = [desk.terms(limits=(lease(desk, 2),)) for _ in range(3)]

    assert isinstance(await claim(desk, "a", terms[0]), Run)
    assert isinstance(await claim(desk, "b", terms[1]), Run)
    later = await claim(desk, "c", terms[2])
    assert isinstance(later, Later)
    assert later.limit == "concurrency"

    await end(desk, "a", terms[0])
    assert isinstance(await claim(desk, "c", terms[2]), Run)


async def test_the_lease_of_a_worker_that_died_comes_back_by_itself(desk: Desk) -> None:
    limit = lease(desk, 1)
    dead = desk.terms("w1", limits=(limit,))
    await claim(desk, "a", dead)
    await desk.redis.zadd(limit["key"], {dead.token: desk.start - 1})

    assert isinstance(await claim(desk, "b", desk.terms("w2", limits=(limit,))), Run)


async def test_renewing_keeps_the_lease_too(desk: Desk) -> None:
    limit, waiter = lease(desk, 1), desk.waiter()
    terms = desk.terms(limits=(limit,))
    run = await desk.run(waiter, terms)
    await desk.redis.zadd(limit["key"], {terms.token: desk.start + 1})

    await desk.renew(waiter, terms, run, limit["key"])

    ends = await desk.redis.zscore(limit["key"], terms.token)
    assert ends is not None
    assert ends >= run.started + LEASE_S - 1


@pytest.mark.parametrize("kind", ["sliding", "fixed", "bucket"])
async def test_a_rate_grants_its_amount_and_says_when_it_grants_again(desk: Desk, kind: str) -> None:
    limit = rate(desk, kind, amount=10, cost=4)
    for flight in ("a", "b"):
        assert isinstance(await claim(desk, flight, desk.terms(limits=(limit,))), Run)

    later = await claim(desk, "c", desk.terms(limits=(limit,)))

    assert isinstance(later, Later)
    assert later.limit == kind
    assert desk.start < later.until <= await desk.flights.now() + 3600


async def test_a_sliding_window_grants_again_when_the_oldest_call_leaves_it(desk: Desk) -> None:
    limit = rate(desk, "sliding", amount=1, window_s=0.3)
    run = await claim(desk, "a", desk.terms(limits=(limit,)))
    later = await claim(desk, "b", desk.terms(limits=(limit,)))
    assert isinstance(run, Run)
    assert isinstance(later, Later)
    assert later.until == pytest.approx(run.started + 0.3, abs=0.001)

    async def granted() -> bool:
        answer = await claim(desk, "b", desk.terms("w2", limits=(limit,)))
        if isinstance(answer, Run):
            assert answer.started >= later.until
        return isinstance(answer, Run)

    await until(granted)


async def test_a_sliding_window_waits_until_enough_has_left_it(desk: Desk) -> None:
    limit = rate(desk, "sliding", amount=10, window_s=3600)
    starts = []
    for flight, cost in (("a", 2), ("b", 5), ("c", 3)):
        run = await claim(desk, flight, desk.terms(limits=({**limit, "cost": cost},)))
        assert isinstance(run, Run)
        starts.append(run.started)

    for cost, leaves in ((1, 0), (2, 0), (3, 1), (7, 1), (8, 2)):
        later = await claim(desk, "d", desk.terms(limits=({**limit, "cost": cost},)))
        assert isinstance(later, Later)
        assert later.until == pytest.approx(starts[leaves] + 3600, abs=0.001)


async def test_a_fixed_window_ends_at_the_providers_own_hour(desk: Desk) -> None:
    limit = rate(desk, "fixed", amount=1, window_s=86400.0, offset_s=7 * 3600.0)
    await claim(desk, "a", desk.terms(limits=(limit,)))

    later = await claim(desk, "b", desk.terms(limits=(limit,)))

    assert isinstance(later, Later)
    assert later.until % 86400 == pytest.approx(7 * 3600)


async def test_a_call_larger_than_the_whole_window_takes_the_whole_window(desk: Desk) -> None:
    limit = rate(desk, "sliding", amount=10, cost=50)

    assert isinstance(await claim(desk, "a", desk.terms(limits=(limit,))), Run)
    assert isinstance(await claim(desk, "b", desk.terms(limits=({**limit, "cost": 1},))), Later)


async def test_a_refused_claim_takes_nothing_at_all(desk: Desk) -> None:
    roomy = (lease(desk, 5), rate(desk, "sliding", 100), rate(desk, "fixed", 100))
    full = {**lease(desk, 1, scope="full"), "name": "full"}
    await claim(desk, "a", desk.terms(limits=(full,)))

    for order in ((full, *roomy), (*roomy, full)):
        later = await claim(desk, "b", desk.terms(limits=order))
        assert isinstance(later, Later)
        assert later.limit == "full"

    left = [key async for key in desk.redis.scan_iter(desk.key("*")) if b":rate:" in key or b":groq" in key]
    assert left == []
    assert await desk.redis.hget(desk.key("flight:b"), "spends") is None


async def test_a_paid_answer_is_told_though_no_permit_is_left(desk: Desk) -> None:
    limits = (lease(desk, 1), rate(desk, "fixed", 1))
    terms, others = desk.terms("w1", limits=limits), desk.terms("w2", limits=limits)
    await claim(desk, "a", terms)
    await end(desk, "a", terms)
    assert isinstance(await claim(desk, "b", others), Later)

    assert isinstance(await claim(desk, "a", desk.terms("w2", limits=limits)), Done)


async def test_of_several_limits_the_one_that_lasts_longest_is_told(desk: Desk) -> None:
    short = rate(desk, "sliding", 1, window_s=100)
    long = {**rate(desk, "sliding", 1, window_s=9000), "key": desk.key("rate:long"), "name": "long"}
    await claim(desk, "a", desk.terms(limits=(long, short)))

    later = await claim(desk, "b", desk.terms(limits=(long, short)))

    assert isinstance(later, Later)
    assert later.limit == "long"


async def test_the_account_that_was_used_least_is_chosen(desk: Desk) -> None:
    accounts = tuple(desk.account(name) for name in ("one", "two", "three"))

    runs = [await claim(desk, f"f{n}", desk.terms(accounts=accounts)) for n in range(6)]

    names = [run.account for run in runs if isinstance(run, Run)]
    assert sorted(names[:3]) == sorted(names[3:]) == ["one", "three", "two"]


async def test_an_account_without_permits_leaves_the_call_to_another(desk: Desk) -> None:
    small = desk.account("small", lease(desk, 1, "small"))
    large = desk.account("large", lease(desk, 2, "large"))

    runs = [await claim(desk, f"f{n}", desk.terms(accounts=(small, large))) for n in range(4)]

    assert sorted(r.account for r in runs if isinstance(r, Run)) == ["large", "large", "small"]
    assert isinstance(runs[3], Later)


async def test_when_no_account_grants_the_first_to_grant_again_is_told(desk: Desk) -> None:
    slow = desk.account("slow", {**rate(desk, "sliding", 1, window_s=9000), "key": desk.key("s")})
    quick = desk.account("quick", {**rate(desk, "sliding", 1, window_s=50), "key": desk.key("q")})
    for flight in ("a", "b"):
        await claim(desk, flight, desk.terms(accounts=(slow, quick)))

    later = await claim(desk, "c", desk.terms(accounts=(slow, quick)))

    assert isinstance(later, Later)
    assert later.until < desk.start + 1000


@pytest.mark.parametrize("kind", ["sliding", "fixed", "bucket"])
@pytest.mark.parametrize(("used", "left"), [(2.0, 8.0), (4.0, 6.0), (9.0, 1.0)])
async def test_the_bill_replaces_what_was_reserved(desk: Desk, kind: str, used: float, left: float) -> None:
    limit, terms = rate(desk, kind, 10, cost=4), desk.terms(limits=(rate(desk, kind, 10, cost=4),))
    await claim(desk, "a", terms)

    await end(desk, "a", terms, reserved_tokens=used)

    beyond = await claim(desk, "b", desk.terms(limits=({**limit, "cost": left + 0.5},)))
    within = await claim(desk, "b", desk.terms(limits=({**limit, "cost": left},)))
    assert isinstance(beyond, Later)
    assert isinstance(within, Run)


@pytest.mark.parametrize("kind", ["sliding", "fixed", "bucket"])
async def test_without_a_bill_what_was_reserved_stays(desk: Desk, kind: str) -> None:
    limit, terms = rate(desk, kind, 10, cost=4), desk.terms(limits=(rate(desk, kind, 10, cost=4),))
    await claim(desk, "a", terms)

    await end(desk, "a", terms)

    assert isinstance(await claim(desk, "b", desk.terms(limits=({**limit, "cost": 7},))), Later)
    assert isinstance(await claim(desk, "b", desk.terms(limits=({**limit, "cost": 6},))), Run)


@pytest.mark.parametrize("sent", [True, False])
async def test_the_permits_of_a_call_that_never_left_go_back(desk: Desk, sent: bool) -> None:
    limits = (rate(desk, "sliding", 1), rate(desk, "fixed", 1), lease(desk, 1))
    terms = desk.terms(limits=limits)
    await claim(desk, "a", terms)

    await desk.flights.release("a", terms.token, sent=sent)

    again = await claim(desk, "b", desk.terms(limits=limits))
    assert isinstance(again, Later if sent else Run)


async def test_what_a_bill_left_is_what_the_window_gives_back(desk: Desk) -> None:
    limit = rate(desk, "sliding", 10, window_s=3600)
    first, second = (desk.terms(limits=({**limit, "cost": cost},)) for cost in (4, 8))
    await claim(desk, "a", first)
    await end(desk, "a", first, reserved_tokens=2.0)
    run = await claim(desk, "b", second)
    assert isinstance(run, Run)

    later = await claim(desk, "c", desk.terms(limits=({**limit, "cost": 3},)))

    assert isinstance(later, Later)
    assert later.until == pytest.approx(run.started + 3600, abs=0.0001)


@pytest.mark.parametrize("kind", ["sliding", "fixed", "bucket"])
async def test_a_call_may_arrive_late_by_the_slack_and_breaks_no_limit(desk: Desk, kind: str) -> None:
    # The window is over, or the bucket refilled, by the time of the grants; not by that of late arrivals.
    limit = rate(desk, kind, 1, window_s=0.5, slack_s=0.5)
    run = await claim(desk, "a", desk.terms(limits=(limit,)))
    assert isinstance(run, Run)

    later = await claim(desk, "b", desk.terms(limits=(limit,)))

    assert isinstance(later, Later)
    assert later.until >= run.started + (1.0 if kind != "fixed" else 0.5) - 0.001


@pytest.mark.parametrize("border", ["before", "after"])
async def test_near_the_border_of_two_fixed_windows_a_call_counts_in_both(desk: Desk, border: str) -> None:
    offset_s = (desk.start + (30.0 if border == "before" else -30.0)) % 3600
    limit = rate(desk, "fixed", 1, slack_s=50.0, offset_s=offset_s)
    await claim(desk, "a", desk.terms(limits=(limit,)))

    names = [key async for key in desk.redis.scan_iter(desk.key("rate:fixed:*"))]

    assert len(names) == 2
    assert {await desk.redis.get(name) for name in names} == {b"1"}


async def test_a_bucket_refills_evenly(desk: Desk) -> None:
    limit = rate(desk, "bucket", 3600, cost=1, window_s=3600, burst=3, unit="requests")
    for flight in "abc":
        assert isinstance(await claim(desk, flight, desk.terms(limits=(limit,))), Run)

    for cost, wait_s in ((1, 1), (2, 2), (3, 3), (9, 3)):
        later = await claim(desk, "d", desk.terms(limits=({**limit, "cost": cost},)))
        assert isinstance(later, Later)
        assert later.until == pytest.approx(desk.start + wait_s, abs=0.5)


@pytest.mark.parametrize("unit", ["tokens", "reserved_tokens", "usd"])
@pytest.mark.parametrize("kind", ["sliding", "bucket"])
async def test_who_waits_for_what_may_be_given_back_looks_again_soon(
    desk: Desk, kind: str, unit: str
) -> None:
    limit = rate(desk, kind, 10, cost=10, window_s=50, unit=unit)
    first = desk.terms(limits=(limit,))
    await claim(desk, "a", first)

    refused = await claim(desk, "b", desk.terms(limits=(limit,)))
    assert isinstance(refused, Later)
    assert refused.until < desk.start + 3

    await end(desk, "a", first, **{unit: 0.0})
    assert isinstance(await claim(desk, "b", desk.terms(limits=(limit,))), Run)


async def restamped(desk: Desk, terms: ClaimTerms) -> object:
    answer = await desk.flights.restamp("a", terms, "main")
    return answer if isinstance(answer, str) else answer[1]


@pytest.mark.parametrize("kind", ["sliding", "fixed", "bucket"])
async def test_permits_that_are_taken_anew_are_taken_once(desk: Desk, kind: str) -> None:
    limit, terms = rate(desk, kind, 10, cost=4), desk.terms(limits=(rate(desk, kind, 10, cost=4),))
    await claim(desk, "a", terms)

    assert await restamped(desk, terms) == "mine"

    beyond = await claim(desk, "b", desk.terms(limits=({**limit, "cost": 6.5},)))
    within = await claim(desk, "b", desk.terms(limits=({**limit, "cost": 6},)))
    assert isinstance(beyond, Later)
    assert isinstance(within, Run)


async def test_permits_that_are_taken_anew_count_from_then_on(desk: Desk) -> None:
    limit, terms = rate(desk, "sliding", 1), desk.terms(limits=(rate(desk, "sliding", 1),))
    run = await claim(desk, "a", terms)
    assert isinstance(run, Run)
    before = await claim(desk, "b", desk.terms(limits=(limit,)))

    await restamped(desk, terms)

    after = await claim(desk, "b", desk.terms(limits=(limit,)))
    assert isinstance(before, Later)
    assert isinstance(after, Later)
    assert after.until > before.until


async def test_permits_that_are_refused_by_now_are_given_back_and_the_limit_is_named(desk: Desk) -> None:
    limits = rate(desk, "sliding", 1), lease(desk, 5)
    terms = desk.terms(limits=limits)
    await claim(desk, "a", terms)
    closed_for = {**limits[0], "key": desk.key("rate:other"), "name": "other"}
    await claim(desk, "b", desk.terms(limits=(closed_for,)))
    more = replace(terms, limits=(*limits, closed_for))

    assert await restamped(desk, more) == "other"

    assert isinstance(await claim(desk, "c", desk.terms(limits=limits)), Run)


async def test_a_claim_that_is_somebody_elses_gets_no_permits(desk: Desk) -> None:
    limit = rate(desk, "sliding", 2)
    terms = desk.terms(limits=(limit,))
    await claim(desk, "a", terms)
    await desk.flights.release("a", terms.token)

    assert await restamped(desk, terms) == "lost"

    assert await desk.redis.zcard(limit["key"]) == 1


async def end_saying(
    desk: Desk, flight: str, terms: ClaimTerms, left: float, limit: Mapping[str, Any]
) -> None:
    result = Result(ok(), left={limit["key"]: left})
    await desk.flights.commit(flight, desk.waiter(flight), terms.token, desk.start + 1e6, result)


@pytest.mark.parametrize("kind", ["sliding", "fixed", "bucket"])
async def test_what_others_use_of_a_limit_is_booked_when_the_provider_says_so(desk: Desk, kind: str) -> None:
    limit = rate(desk, kind, 100)
    terms = desk.terms(limits=(limit,))
    await claim(desk, "a", terms)

    await end_saying(desk, "a", terms, 60.0, limit)  # of 100, and we have used one

    beyond = await claim(desk, "b", desk.terms(limits=({**limit, "cost": 62},)))
    within = await claim(desk, "b", desk.terms(limits=({**limit, "cost": 60},)))
    assert isinstance(beyond, Later)
    assert isinstance(within, Run)


async def test_what_others_use_is_booked_once_though_many_calls_say_it(desk: Desk) -> None:
    limit = rate(desk, "sliding", 100)
    together = [desk.terms(f"w{n}", limits=(limit,)) for n in range(5)]
    for n, terms in enumerate(together):
        await claim(desk, f"f{n}", terms)

    for n, terms in enumerate(together):
        await end_saying(desk, f"f{n}", terms, 59.0 - n, limit)

    assert isinstance(await claim(desk, "g", desk.terms(limits=({**limit, "cost": 54},))), Run)


async def test_a_provider_that_has_more_left_than_the_books_changes_nothing(desk: Desk) -> None:
    limit = rate(desk, "sliding", 100)
    first, terms = desk.terms("w1", limits=({**limit, "cost": 50},)), desk.terms("w2", limits=(limit,))
    await claim(desk, "a", first)
    await claim(desk, "b", terms)

    await end_saying(desk, "b", terms, 99.0, limit)

    assert isinstance(await claim(desk, "c", desk.terms(limits=({**limit, "cost": 50},))), Later)
    assert isinstance(await claim(desk, "c", desk.terms(limits=({**limit, "cost": 49},))), Run)


@pytest.mark.parametrize("at_once", [None, 0.0])
async def test_what_is_paced_is_used_as_the_day_passes(desk: Desk, at_once: float | None) -> None:
    """The window ends in half a day: half of it is for now."""
    day = rate(desk, "fixed", 10, window_s=86400.0, slack_s=5.0, offset_s=(desk.start - 43200.0) % 86400.0)
    limit = day if at_once is None else {**day, "at_once": at_once}
    terms = desk.terms(limits=(limit,))

    granted = 0
    for n in range(12):
        answer = await desk.flights.claim(
            f"f{n}", desk.waiter(f"f{n}", left_s=_PATIENCE_S), replace(terms, token=f"t{n}")
        )
        if isinstance(answer, Later):
            break
        granted += 1

    assert isinstance(answer, Later)
    if at_once is None:
        assert granted == 10
        assert answer.until == pytest.approx(desk.start + 43200.0, abs=10)
    else:
        assert granted == 5
        assert answer.until == pytest.approx(desk.start + 8640.0, abs=10)


@pytest.mark.parametrize("urgent_before", [False, True])
async def test_others_leave_a_part_of_a_quota_to_the_most_urgent_where_they_use_it(
    desk: Desk, urgent_before: bool
) -> None:
    """The window ends in half a day: half of what is kept is free by now."""
    day = rate(desk, "fixed", 20, window_s=86400.0, slack_s=5.0, offset_s=(desk.start - 43200.0) % 86400.0)
    others = desk.terms(limits=({**day, "kept": 0.2},))
    urgent = desk.terms(limits=({**day, "keeps": True},))
    used = 0
    if urgent_before:
        await claim(desk, "urgent", urgent)
        used += 1

    answer: object = None
    while used < 22:
        name = f"f{used}"
        answer = await desk.flights.claim(
            name, desk.waiter(name, left_s=_PATIENCE_S), replace(others, token=name)
        )
        if isinstance(answer, Later):
            break
        used += 1

    assert isinstance(answer, Later)
    assert used == (18 if urgent_before else 20)
    last = await desk.flights.claim(
        "last", desk.waiter("last", left_s=_PATIENCE_S), replace(urgent, token="last")
    )
    assert isinstance(last, Run) is urgent_before
    if urgent_before:  # the 19th of 20 is free when a quarter of what is kept is left
        assert answer.until == pytest.approx(desk.start + 21600.0, abs=10)
