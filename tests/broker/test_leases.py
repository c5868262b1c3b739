import pytest

from broker.answers import Busy, Expired, Hit, Joined, Own, Run, Spent
from broker.flights import LEASE_S
from tests.broker.test_flights import FLIGHT, Desk, fault, ok
from topology.messages import Outcome

# renew -------------------------------------------------------------------------------------------


async def test_renewing_keeps_the_claim_for_another_lease(desk: Desk) -> None:
    waiter, terms = desk.waiter(), desk.terms("w1")
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.age("lease_until", LEASE_S - 1.0)

    assert await desk.renew(waiter, terms, run) == "mine"

    busy = await desk.claim(waiter, desk.terms("w2"))
    assert isinstance(busy, Busy)
    assert busy.until >= run.started + LEASE_S


async def test_a_worker_that_froze_past_its_lease_takes_it_up_again_if_nobody_else_did(desk: Desk) -> None:
    waiter, terms = desk.waiter(), desk.terms("w1")
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.lapse()

    assert await desk.renew(waiter, terms, run) == "mine"
    assert isinstance(await desk.claim(waiter, desk.terms("w2")), Busy)


async def test_a_worker_whose_claim_has_passed_to_another_is_told_that_it_is_lost(desk: Desk) -> None:
    waiter, frozen = desk.waiter(), desk.terms("w1")
    await desk.admit(waiter)
    run = await desk.run(waiter, frozen)
    await desk.lapse()
    await desk.run(waiter, desk.terms("w2"))

    assert await desk.renew(waiter, frozen, run) == "lost"


@pytest.mark.parametrize("outcome", [ok(), fault()])
async def test_a_finished_flight_has_nothing_to_renew(desk: Desk, outcome: Outcome) -> None:
    waiter, terms = desk.waiter(), desk.terms()
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.commit(waiter, terms, run.started, outcome)

    assert await desk.renew(waiter, terms, run) == "lost"


async def test_a_call_that_the_last_waiter_called_off_is_unwanted(desk: Desk) -> None:
    first, last, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms()
    await desk.admit(first)
    await desk.admit(last)
    run = await desk.run(first, terms)

    await desk.flights.settle(FLIGHT, [first])
    assert await desk.renew(first, terms, run) == "mine"
    await desk.flights.settle(FLIGHT, [last])
    assert await desk.renew(first, terms, run) == "unwanted"


async def test_renewing_writes_back_what_a_flushed_redis_forgot(desk: Desk) -> None:
    waiter, terms, lease = desk.waiter(), desk.terms("w1"), desk.key("lease:groq")
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.flush()

    assert await desk.renew(waiter, terms, run, lease) == "mine"

    assert await desk.claim(waiter, desk.terms("w1")) == Own(terms.token)
    assert isinstance(await desk.claim(waiter, desk.terms("w2")), Busy)
    assert await desk.admit(desk.waiter("r2")) == Joined()
    assert await desk.redis.zcard(lease) == 1


async def test_a_claim_that_was_written_back_is_doubtful_like_any_other(desk: Desk) -> None:
    waiter, terms = desk.waiter(), desk.terms("w1")
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.flush()
    await desk.renew(waiter, terms, run)
    await desk.lapse()

    again = await desk.run(waiter, desk.terms("w2"))

    assert again.attempt == 2
    [doubt] = again.doubts
    assert doubt["account"] == "main"
    assert doubt["started"] == pytest.approx(run.started, abs=0.001)


async def test_the_record_of_a_call_that_outlasts_every_deadline_is_kept(desk: Desk) -> None:
    waiter, terms = desk.waiter(left_s=1.0), desk.terms()
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    before = await desk.redis.expiretime(desk.key(f"flight:{FLIGHT}"))

    await desk.renew(waiter, terms, run)

    assert await desk.redis.expiretime(desk.key(f"flight:{FLIGHT}")) > before


# release -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("billed", "spends"), [(False, b"0"), (True, b"1")])
async def test_a_spend_is_given_back_unless_it_may_have_been_billed(
    desk: Desk, billed: bool, spends: bytes
) -> None:
    waiter, terms = desk.waiter(), desk.terms()
    await desk.admit(waiter)
    await desk.run(waiter, terms)

    assert await desk.flights.release(FLIGHT, terms.token, billed=billed) == (True, 1, False)
    assert await desk.field("spends") == spends


async def test_calls_that_may_have_been_billed_are_bounded(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)
    for _ in range(2):
        terms = desk.terms()
        await desk.run(waiter, terms)
        await desk.flights.release(FLIGHT, terms.token, billed=True)

    spent = await desk.claim(waiter, desk.terms())

    assert isinstance(spent, Spent)
    assert (spent.spends, spent.doubts) == (2, ())


async def test_giving_up_the_claim_of_a_spent_flight_gives_no_spend_back(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)
    for _ in range(2):
        await desk.run(waiter, desk.terms())
        await desk.lapse()
    terms = desk.terms()
    assert isinstance(await desk.claim(waiter, terms), Spent)

    await desk.flights.release(FLIGHT, terms.token, sent=False)

    assert isinstance(await desk.claim(waiter, desk.terms()), Spent)


async def test_a_released_flight_is_free_for_any_worker(desk: Desk) -> None:
    waiter, terms = desk.waiter(), desk.terms("w1")
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.flights.release(FLIGHT, terms.token)

    assert await desk.renew(waiter, terms, run) == "lost"
    assert isinstance(await desk.claim(waiter, desk.terms("w2")), Run)


async def test_a_claim_that_was_lost_cannot_be_released(desk: Desk) -> None:
    waiter, frozen, other = desk.waiter(), desk.terms("w1"), desk.terms("w2")
    await desk.admit(waiter)
    await desk.run(waiter, frozen)
    await desk.lapse()
    run = await desk.run(waiter, other)

    assert await desk.flights.release(FLIGHT, frozen.token) == (False, 2, False)
    assert await desk.renew(waiter, other, run) == "mine"


async def test_releasing_what_redis_forgot_is_harmless(desk: Desk) -> None:
    assert await desk.flights.release(FLIGHT, "token") == (False, 0, False)


# settle ------------------------------------------------------------------------------------------


async def test_whoever_was_served_is_never_asked_to_be_served_again(desk: Desk) -> None:
    waiter, other, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms()
    await desk.admit(waiter)
    await desk.admit(other)
    run = await desk.run(waiter, terms)
    await desk.commit(waiter, terms, run.started, ok())
    await desk.flights.settle(FLIGHT, [waiter, other])

    assert await desk.admit(waiter) == Hit("served", ok(), waiter.key)
    done = await desk.claim(waiter, desk.terms("w2"))
    assert getattr(done, "waiters", None) == ()


async def test_the_job_of_a_waiter_that_was_served_does_not_bring_it_back(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)
    await desk.flights.settle(FLIGHT, [waiter])

    assert await desk.claim(waiter, desk.terms()) == Expired()
    assert await desk.redis.hlen(desk.key(f"waiters:{FLIGHT}")) == 0


async def test_settling_twice_is_harmless(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.answered(waiter, ok())
    await desk.flights.settle(FLIGHT, [waiter])

    assert await desk.admit(waiter) == Hit("served", ok(), waiter.key)
