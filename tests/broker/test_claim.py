from dataclasses import replace

import pytest

from broker.answers import Attended, Busy, Done, Expired, Idle, Joined, Lead, Own, Run, Spent, Stored
from broker.flights import LEASE_S
from tests.broker.test_flights import FLIGHT, Desk, fault, ok
from topology.messages import Waiter


async def test_the_first_to_claim_runs_with_all_it_needs_to_know(desk: Desk) -> None:
    waiter = desk.waiter(left_s=90.0)
    await desk.admit(waiter)

    run = await desk.run(waiter, desk.terms())

    assert (run.account, run.key_index, run.attempt, run.doubts) == ("main", 0, 1, ())
    assert run.latest_deadline == pytest.approx(waiter.deadline, abs=0.001)
    assert desk.start <= run.started <= await desk.flights.now()


async def test_the_latest_deadline_is_that_of_all_who_wait(desk: Desk) -> None:
    waiter, patient = desk.waiter("r1", left_s=30.0), desk.waiter("r2", left_s=300.0)
    await desk.admit(waiter)
    await desk.admit(patient)

    run = await desk.run(waiter, desk.terms())

    assert run.latest_deadline == pytest.approx(patient.deadline, abs=0.001)


async def test_a_second_worker_finds_it_busy_until_the_lease_ends(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)
    run = await desk.run(waiter, desk.terms("w1"))

    busy = await desk.claim(waiter, desk.terms("w2"))

    assert isinstance(busy, Busy)
    assert busy.until == pytest.approx(run.started + LEASE_S, abs=0.001)


async def test_the_worker_itself_is_told_which_of_its_claims_runs(desk: Desk) -> None:
    waiter, terms = desk.waiter(), desk.terms("w1")
    await desk.admit(waiter)
    await desk.run(waiter, terms)

    assert await desk.claim(waiter, desk.terms("w1")) == Own(terms.token)


async def test_a_lapsed_lease_is_claimed_and_reported_as_doubtful(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)
    first = await desk.run(waiter, desk.terms("w1"))
    await desk.lapse()

    second = await desk.run(waiter, desk.terms("w2"))

    assert second.attempt == 2
    [doubt] = second.doubts
    assert (doubt["account"], doubt["provider"]) == ("main", "groq")
    assert doubt["started"] == pytest.approx(first.started, abs=0.001)


async def test_a_claim_that_was_given_up_leaves_no_doubt(desk: Desk) -> None:
    waiter, terms = desk.waiter(), desk.terms("w1")
    await desk.admit(waiter)
    await desk.run(waiter, terms)
    await desk.flights.release(FLIGHT, terms.token)

    assert (await desk.run(waiter, desk.terms("w2"))).doubts == ()


async def test_a_finished_flight_is_done_with_exactly_those_who_have_no_answer(desk: Desk) -> None:
    names = ("r1", "r2", "r3")
    first, second, third = (desk.waiter(name) for name in names)
    terms = desk.terms()
    for waiter in (first, second, third):
        await desk.admit(waiter)
    run = await desk.run(first, terms)
    await desk.commit(first, terms, run.started, ok("Sky"), events=b"news")
    await desk.flights.settle(FLIGHT, [second])

    done = await desk.claim(first, desk.terms("w2"))

    assert isinstance(done, Done)
    assert (done.outcome, done.payer, done.events) == (ok("Sky"), first.key, b"news")
    assert {w.key for w in done.waiters} == {first.key, third.key}


async def test_a_job_that_redis_never_heard_of_brings_its_own_waiter(desk: Desk) -> None:
    waiter, terms = desk.waiter(), desk.terms()

    run = await desk.run(waiter, terms)
    stored = await desk.commit(waiter, terms, run.started, ok())

    assert isinstance(stored, Stored)
    assert stored.waiters == (waiter,)
    assert stored.payer == waiter.key


async def test_an_unknown_job_past_its_deadline_is_expired(desk: Desk) -> None:
    assert await desk.claim(desk.waiter(left_s=-1.0), desk.terms()) == Expired()
    assert not await desk.redis.exists(desk.key(f"flight:{FLIGHT}"))


async def test_a_flight_that_nobody_waits_for_any_more_is_expired(desk: Desk) -> None:
    late = desk.waiter(left_s=-1.0)
    await desk.admit(late)

    assert await desk.claim(late, desk.terms()) == Expired()


async def test_a_flight_whose_waiters_were_all_called_off_is_expired(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)
    await desk.flights.settle(FLIGHT, [waiter])

    assert await desk.claim(waiter, desk.terms()) == Expired()


async def test_one_living_waiter_is_enough_to_run(desk: Desk) -> None:
    late, living = desk.waiter("r1", left_s=-1.0), desk.waiter("r2")
    await desk.admit(late)
    await desk.admit(living)

    assert isinstance(await desk.claim(late, desk.terms()), Run)


async def test_a_flight_that_expired_is_opened_again_by_the_next_request(desk: Desk) -> None:
    late, living = desk.waiter("r1", left_s=-1.0), desk.waiter("r2")
    await desk.admit(late)
    await desk.claim(late, desk.terms())

    assert await desk.admit(living) == Lead(1)
    assert (await desk.run(living, desk.terms())).attempt == 1


async def spend_all(desk: Desk) -> Spent:
    """Two workers in a row die during the call; the third finds the flight spent."""
    waiter = desk.waiter()
    await desk.admit(waiter)
    for worker in ("w1", "w2"):
        await desk.run(waiter, desk.terms(worker))
        await desk.lapse()
    spent = await desk.claim(waiter, desk.terms("w3"))
    assert isinstance(spent, Spent)
    return spent


async def test_after_max_spends_without_an_end_nobody_buys_again(desk: Desk) -> None:
    spent = await spend_all(desk)

    assert spent.spends == 2
    assert [doubt["account"] for doubt in spent.doubts] == ["main", "main"]


async def test_a_spent_flight_is_claimed_by_the_one_that_ends_it(desk: Desk) -> None:
    await spend_all(desk)

    assert isinstance(await desk.claim(desk.waiter(), desk.terms("w4")), Busy)
    assert await desk.admit(desk.waiter("r2")) == Joined()


async def test_doubts_are_named_until_a_claims_holder_has_passed_them_on(desk: Desk) -> None:
    spent = await spend_all(desk)
    await desk.lapse()

    again = await desk.claim(desk.waiter(), desk.terms("w4"))

    assert isinstance(again, Spent)
    assert again.doubts == spent.doubts


async def test_a_doubt_that_was_passed_on_is_not_named_again(desk: Desk) -> None:
    waiter, holder = desk.waiter(), desk.terms("w2")
    await desk.admit(waiter)
    await desk.run(waiter, desk.terms("w1"))
    await desk.lapse()
    assert len((await desk.run(waiter, holder)).doubts) == 1
    await desk.flights.release(FLIGHT, holder.token)

    assert (await desk.run(waiter, desk.terms("w3"))).doubts == ()


async def test_a_claim_whose_answer_was_lost_passed_no_doubt_on(desk: Desk) -> None:
    waiter, deaf = desk.waiter(), desk.terms("w2")
    await desk.admit(waiter)
    await desk.run(waiter, desk.terms("w1"))
    await desk.lapse()
    await desk.run(waiter, deaf)
    await desk.flights.release(FLIGHT, deaf.token, sent=False)

    assert len((await desk.run(waiter, desk.terms("w3"))).doubts) == 1


async def test_the_claim_of_a_spent_flight_allows_to_commit_the_error(desk: Desk) -> None:
    waiter = desk.waiter()
    await spend_all(desk)
    await desk.lapse()
    terms = desk.terms("w4")
    spent = await desk.claim(waiter, terms)
    assert isinstance(spent, Spent)

    stored = await desk.commit(waiter, terms, spent.started, fault("Bought twice."), keep_s=0.0)

    assert isinstance(stored, Stored)
    assert stored.outcome == fault("Bought twice.")
    assert stored.waiters == (waiter,)


async def test_a_known_failure_can_be_tried_again_more_often_than_max_spends(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)
    for attempt in range(1, 6):
        terms = desk.terms()
        assert (await desk.run(waiter, terms)).attempt == attempt
        await desk.flights.release(FLIGHT, terms.token)


async def attend(desk: Desk, waiter: Waiter, worker: str = "undertaker") -> Attended:
    return await desk.flights.attend(FLIGHT, waiter, worker=worker, token="its-own", max_spends=2)


async def test_who_never_calls_is_granted_nothing(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)

    idle = await attend(desk, waiter)

    assert idle == Idle(spends=0, park_s=30.0)
    assert await desk.field("state") == b"queued"
    assert await desk.field("token") is None
    assert (await desk.run(waiter, desk.terms())).attempt == 1


@pytest.mark.parametrize(
    ("left_s", "park_s"), [(2.0, 1.0), (6.0, 5.0), (299.0, 30.0), (400.0, 300.0), (0.9, 1.0)]
)
async def test_who_never_calls_is_told_for_how_long_a_job_can_be_parked(
    desk: Desk, left_s: float, park_s: float
) -> None:
    waiter = desk.waiter(left_s=left_s)
    await desk.admit(waiter)

    assert await attend(desk, waiter) == Idle(0, park_s)


async def test_the_most_patient_waiter_decides_for_how_long(desk: Desk) -> None:
    waiter = desk.waiter("r1", left_s=6.0)
    await desk.admit(waiter)
    await desk.admit(desk.waiter("r2", left_s=400.0))

    assert await attend(desk, waiter) == Idle(0, 300.0)


async def test_nobody_joins_a_job_that_was_found_dead_and_is_parked(desk: Desk) -> None:
    waiter = desk.waiter("r1")
    await desk.admit(waiter)
    assert await desk.admit(desk.waiter("r2")) == Joined()
    await attend(desk, waiter)

    assert await desk.admit(desk.waiter("r3")) == Lead(2)


async def test_who_never_calls_leaves_a_running_call_alone(desk: Desk) -> None:
    waiter, terms = desk.waiter(), desk.terms("w1")
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)

    assert isinstance(await attend(desk, waiter), Busy)
    assert await attend(desk, waiter, worker="w1") == Own(terms.token)
    assert isinstance(await desk.commit(waiter, terms, run.started, ok()), Stored)


async def test_who_never_calls_leaves_the_doubt_about_a_lapsed_call_to_the_next_who_does(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)
    await desk.run(waiter, desk.terms("w1"))
    await desk.lapse()

    assert await attend(desk, waiter) == Idle(1, 30.0)
    assert len((await desk.run(waiter, desk.terms("w2"))).doubts) == 1


async def test_who_never_calls_finds_what_was_answered(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.answered(waiter, ok())

    done = await attend(desk, waiter)

    assert isinstance(done, Done)
    assert (done.outcome, done.waiters) == (ok(), ())


async def test_who_never_calls_may_end_a_spent_flight_and_nothing_else(desk: Desk) -> None:
    waiter = desk.waiter()
    await spend_all(desk)
    await desk.lapse()

    spent = await attend(desk, waiter)

    assert isinstance(spent, Spent)
    terms = replace(desk.terms(), token="its-own")
    assert isinstance(await desk.commit(waiter, terms, spent.started, fault("Bought twice.")), Stored)


async def test_who_never_calls_finds_nobody_waiting(desk: Desk) -> None:
    late = desk.waiter(left_s=-1.0)
    await desk.admit(late)

    assert await attend(desk, late) == Expired()


async def test_a_dead_job_that_redis_forgot_is_idle_with_its_own_waiter(desk: Desk) -> None:
    waiter = desk.waiter()

    assert await attend(desk, waiter) == Idle(0, 30.0)
    assert await desk.flights.waiters(FLIGHT) == [waiter]
    assert await desk.admit(desk.waiter("r2")) == Lead(1)


@pytest.mark.parametrize("ttl_s", [0.0, 10.0])
async def test_an_error_is_not_for_a_job_of_which_an_emptied_redis_knew_nothing(
    desk: Desk, ttl_s: float
) -> None:
    """Unless it speaks of the request itself, and is for newcomers too."""
    waiter, other, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms()
    await desk.admit(waiter)
    await desk.flush()
    run = await desk.run(other, terms)
    await desk.commit(other, terms, run.started, fault(), shared_s=ttl_s)

    assert isinstance(await desk.claim(other, desk.terms()), Done)
    claimed = await desk.claim(waiter, desk.terms())

    assert isinstance(claimed, Done if ttl_s else Run)
    if isinstance(claimed, Run):
        assert await desk.field("spends") == b"1"
        assert await desk.field("payer") == waiter.key.encode()


async def test_a_flight_that_an_emptied_redis_took_for_ended_begins_as_any_other(desk: Desk) -> None:
    served, waiter, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms()
    await desk.flights.settle(FLIGHT, [served])
    assert isinstance(await desk.claim(served, desk.terms()), Expired)
    await desk.run(waiter, terms)
    await desk.flights.release(FLIGHT, terms.token)

    assert await desk.admit(desk.waiter("r3")) == Lead(2)
    assert await desk.admit(desk.waiter("r4")) == Joined()
