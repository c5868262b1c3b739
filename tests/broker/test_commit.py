import pytest

from broker.answers import Done, Hit, Joined, Lead, Living, Stale, Stored
from tests.broker.test_flights import FLIGHT, Desk, fault, ok
from topology.messages import Outcome


async def test_a_result_is_stored_and_names_all_who_wait(desk: Desk) -> None:
    waiter, other, terms = desk.waiter("r1"), desk.waiter("r2", agent="summary"), desk.terms()
    await desk.admit(waiter)
    await desk.admit(other)
    run = await desk.run(waiter, terms)

    stored = await desk.commit(waiter, terms, run.started, ok("Sky"), events=b"news")

    assert isinstance(stored, Stored)
    assert (stored.outcome, stored.payer, stored.events) == (ok("Sky"), waiter.key, b"news")
    assert set(stored.waiters) == {waiter, other}
    assert not stored.duplicate


async def test_a_commit_that_is_repeated_changes_nothing(desk: Desk) -> None:
    waiter, other, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms()
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    first = await desk.commit(waiter, terms, run.started, ok("Sky"), events=b"news")
    done_at = await desk.field("done_at")

    assert await desk.commit(waiter, terms, run.started, ok("Sky"), events=b"news") == first
    assert await desk.field("done_at") == done_at
    assert isinstance(await desk.admit(other), Hit)


async def test_after_the_replies_are_out_a_repeated_commit_names_nobody(desk: Desk) -> None:
    waiter, terms = desk.waiter("r1"), desk.terms()
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.commit(waiter, terms, run.started, ok("Sky"), events=b"news")
    await desk.flights.settle(FLIGHT, [waiter], events=b"news")

    again = await desk.commit(waiter, terms, run.started, ok("Sky"), events=b"news")

    assert isinstance(again, Stored)
    assert (again.waiters, again.events, again.duplicate) == ((), b"", False)


async def test_events_that_nobody_has_published_outlive_the_refresh_of_their_flight(desk: Desk) -> None:
    waiter, newcomer = desk.waiter("r1"), desk.waiter("r2")
    await desk.answered(waiter, ok("old"), events=b"old news")
    await desk.admit(newcomer, max_age_s=0.0)
    terms = desk.terms()
    run = await desk.run(newcomer, terms)

    stored = await desk.commit(newcomer, terms, run.started, ok("new"), events=b", news")

    assert isinstance(stored, Stored)
    assert stored.events == b"old news, news"


async def test_only_those_events_are_taken_out_that_were_published(desk: Desk) -> None:
    waiter, newcomer = desk.waiter("r1"), desk.waiter("r2")
    await desk.answered(waiter, ok("old"), events=b"old news")
    await desk.admit(newcomer, max_age_s=0.0)
    terms = desk.terms()
    run = await desk.run(newcomer, terms)
    await desk.commit(newcomer, terms, run.started, ok("new"), events=b", news")

    await desk.flights.settle(FLIGHT, [waiter], events=b"old news")
    await desk.flights.settle(FLIGHT, [waiter], events=b"old news")

    assert await desk.field("events") == b", news"


async def test_a_result_is_taken_from_a_worker_that_lost_its_claim(desk: Desk) -> None:
    waiter, slow, quick = desk.waiter(), desk.terms("slow"), desk.terms("quick")
    await desk.admit(waiter)
    first = await desk.run(waiter, slow)
    await desk.lapse()
    second = await desk.run(waiter, quick)

    stored = await desk.commit(waiter, slow, first.started, ok("slow"))

    assert isinstance(stored, Stored)
    assert (stored.outcome, stored.waiters) == (ok("slow"), (waiter,))
    assert await desk.renew(waiter, quick, second) == "lost"


async def test_a_second_result_is_a_duplicate_and_the_first_one_counts(desk: Desk) -> None:
    waiter, slow, quick = desk.waiter(), desk.terms("slow"), desk.terms("quick")
    await desk.admit(waiter)
    first = await desk.run(waiter, slow)
    await desk.lapse()
    second = await desk.run(waiter, quick)
    await desk.commit(waiter, quick, second.started, ok("quick"))

    late = await desk.commit(waiter, slow, first.started, ok("slow"))

    assert isinstance(late, Stored)
    assert late.duplicate
    assert (late.outcome, late.waiters) == (ok("quick"), (waiter,))
    assert await desk.admit(desk.waiter("r2")) == Hit("fresh", ok("quick"), waiter.key)


async def test_a_reply_that_is_owed_keeps_the_record_past_every_deadline(desk: Desk) -> None:
    waiter, terms = desk.waiter(left_s=10.0, durable=True), desk.terms()
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.commit(waiter, terms, run.started, ok("Sky"), keep_s=0.0)

    await desk.flights.settle(FLIGHT, [], keep_s=900.0)

    for part in ("flight", "waiters"):
        assert await desk.redis.ttl(desk.key(f"{part}:{FLIGHT}")) > 800
    assert isinstance(await desk.claim(waiter, desk.terms()), Done)


async def test_who_comes_second_is_given_the_events_that_the_first_has_not_published(desk: Desk) -> None:
    waiter, first, second = desk.waiter(), desk.terms("w1"), desk.terms("w2")
    await desk.admit(waiter)
    run = await desk.run(waiter, first)
    await desk.lapse()
    run_again = await desk.run(waiter, second)
    await desk.commit(waiter, first, run.started, ok("first"), events=b"of the first")

    duplicate = await desk.commit(waiter, second, run_again.started, ok("second"), events=b"of the second")

    assert isinstance(duplicate, Stored)
    assert duplicate.events == b"of the first"


async def test_an_error_is_taken_from_the_holder_of_the_claim_only(desk: Desk) -> None:
    waiter, slow, quick = desk.waiter(), desk.terms("slow"), desk.terms("quick")
    await desk.admit(waiter)
    first = await desk.run(waiter, slow)
    await desk.lapse()
    second = await desk.run(waiter, quick)

    assert await desk.commit(waiter, slow, first.started, fault("slow")) == Stale()
    stored = await desk.commit(waiter, quick, second.started, fault("quick"))

    assert isinstance(stored, Stored)
    assert stored.outcome == fault("quick")


async def test_a_result_replaces_an_error_and_no_error_replaces_a_result(desk: Desk) -> None:
    waiter, slow, quick = desk.waiter(), desk.terms("slow"), desk.terms("quick")
    await desk.admit(waiter)
    first = await desk.run(waiter, slow)
    await desk.lapse()
    second = await desk.run(waiter, quick)
    await desk.commit(waiter, quick, second.started, fault())

    better = await desk.commit(waiter, slow, first.started, ok("Sky"))

    assert isinstance(better, Stored)
    assert (better.outcome, better.duplicate) == (ok("Sky"), False)
    assert await desk.commit(waiter, desk.terms("third"), second.started, fault()) == Stale()
    assert await desk.admit(desk.waiter("r2")) == Hit("fresh", ok("Sky"), waiter.key)


async def test_an_error_gives_way_while_somebody_has_time_for_another_try(desk: Desk) -> None:
    waiter, patient, terms = desk.waiter("r1", left_s=20.0), desk.waiter("r2", left_s=300.0), desk.terms()
    await desk.admit(waiter)
    await desk.admit(patient)
    run = await desk.run(waiter, terms)

    assert await desk.commit(waiter, terms, run.started, fault(), retry_at=desk.start + 60) == Living()
    assert await desk.renew(waiter, terms, run) == "mine"  # nothing has changed

    ended = await desk.commit(waiter, terms, run.started, fault(), retry_at=desk.start + 301)
    assert isinstance(ended, Stored)
    assert set(ended.waiters) == {waiter, patient}


async def test_a_result_does_not_ask_who_has_time(desk: Desk) -> None:
    waiter, terms = desk.waiter(left_s=300.0), desk.terms()
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)

    stored = await desk.commit(waiter, terms, run.started, ok(), retry_at=desk.start + 60)

    assert isinstance(stored, Stored)


@pytest.mark.parametrize("outcome", [ok(), fault()])
async def test_after_a_flush_the_jobs_own_waiter_is_answered(desk: Desk, outcome: Outcome) -> None:
    waiter, terms = desk.waiter(), desk.terms()
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.flush()

    stored = await desk.commit(waiter, terms, run.started, outcome)

    assert isinstance(stored, Stored)
    assert (stored.waiters, stored.duplicate) == ((waiter,), False)


async def test_after_a_flush_the_jobs_own_waiter_is_answered_with_what_came_first(desk: Desk) -> None:
    waiter, other = desk.waiter("r1"), desk.waiter("r2")
    terms, others = desk.terms("w1"), desk.terms("w2")
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.flush()
    await desk.commit(other, others, (await desk.run(other, others)).started, ok("first"))

    second = await desk.commit(waiter, terms, run.started, ok("second"))

    assert isinstance(second, Stored)
    assert second.duplicate
    assert second.outcome == ok("first")
    assert waiter in second.waiters


async def test_after_a_flush_a_failed_try_is_no_end_while_the_jobs_own_waiter_has_time(desk: Desk) -> None:
    waiter, terms = desk.waiter("r1", left_s=60.0), desk.terms()
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.flush()

    assert await desk.commit(waiter, terms, run.started, fault(), retry_at=desk.start + 30) == Living()


async def test_after_a_flush_and_a_new_lead_the_jobs_own_waiter_is_answered_too(desk: Desk) -> None:
    waiter, newcomer, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms()
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.flush()
    assert await desk.admit(newcomer) == Lead(1)

    stored = await desk.commit(waiter, terms, run.started, ok())

    assert isinstance(stored, Stored)
    assert waiter in stored.waiters


async def test_an_answer_older_than_a_refresh_does_not_answer_the_refresh(desk: Desk) -> None:
    waiter, refresh = desk.waiter("r1"), desk.waiter("r2")
    slow, quick = desk.terms("slow"), desk.terms("quick")
    await desk.admit(waiter)
    first = await desk.run(waiter, slow)
    await desk.lapse()
    second = await desk.run(waiter, quick)
    await desk.commit(waiter, quick, second.started, ok("first"))
    await desk.flights.settle(FLIGHT, [waiter])
    assert await desk.admit(refresh, max_age_s=0.0) == Lead(1)

    late = await desk.commit(waiter, slow, first.started, ok("old"))

    assert isinstance(late, Stored)
    assert (late.duplicate, late.waiters) == (True, ())
    assert await desk.admit(desk.waiter("r3"), max_age_s=0.0) == Joined()  # the refresh goes on


async def test_a_result_gives_its_spend_back(desk: Desk) -> None:
    waiter, slow, quick = desk.waiter(), desk.terms("slow"), desk.terms("quick")
    await desk.admit(waiter)
    await desk.run(waiter, slow)
    await desk.lapse()
    run = await desk.run(waiter, quick)

    await desk.commit(waiter, quick, run.started, ok())

    assert await desk.field("spends") == b"1"  # the doubtful one stays


async def test_a_flight_that_ended_in_an_error_is_led_anew(desk: Desk) -> None:
    waiter, terms = desk.waiter("r1"), desk.terms()
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.commit(waiter, terms, run.started, fault(), keep_s=0.0)

    assert await desk.admit(desk.waiter("r2")) == Lead(1)
    again = await desk.run(desk.waiter("r2"), desk.terms())
    assert (again.attempt, again.doubts) == (1, ())


async def test_a_caller_that_comes_after_the_commit_is_told_to_those_who_reply(desk: Desk) -> None:
    """A commit whose answer was lost on the way is found by the next claim."""
    waiter, terms = desk.waiter(), desk.terms()
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.commit(waiter, terms, run.started, ok("Sky"), events=b"news")

    assert await desk.claim(waiter, desk.terms("w2")) == Done(ok("Sky"), waiter.key, b"news", (waiter,))
