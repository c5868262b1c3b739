import pytest

from broker.answers import Done, Hit, Joined, Lead
from broker.flights import BACKOFF_S
from producer_sdk.core import Core
from tests.broker.test_flights import FLIGHT, Desk, fault, ok
from topology.names import Priority


async def test_the_first_leads_and_the_second_joins(desk: Desk) -> None:
    assert await desk.admit(desk.waiter("r1")) == Lead(1)
    assert await desk.admit(desk.waiter("r2")) == Joined()
    assert await desk.admit(desk.waiter("r3", agent="summary")) == Joined()


async def test_a_leader_that_asks_again_leads_again_as_its_job_may_be_lost(desk: Desk) -> None:
    await desk.admit(desk.waiter("r1"))

    assert await desk.admit(desk.waiter("r1")) == Lead(2)


async def test_one_that_joined_and_asks_again_joins_again(desk: Desk) -> None:
    await desk.admit(desk.waiter("r1"))
    await desk.admit(desk.waiter("r2"))

    assert await desk.admit(desk.waiter("r2")) == Joined()


async def test_a_more_urgent_request_leads_and_a_less_urgent_one_joins(desk: Desk) -> None:
    await desk.admit(desk.waiter("r1", priority=Priority.NORMAL))

    assert await desk.admit(desk.waiter("r2", priority=Priority.BATCH)) == Joined()
    assert await desk.admit(desk.waiter("r3", priority=Priority.HIGH)) == Lead(2)
    assert await desk.admit(desk.waiter("r4", priority=Priority.NORMAL)) == Joined()
    assert await desk.admit(desk.waiter("r5", priority=Priority.HIGH)) == Joined()


async def test_a_durable_request_relies_on_nobody_elses_job_or_call(desk: Desk) -> None:
    waiter = desk.waiter("r1")
    await desk.admit(waiter)

    assert await desk.admit(desk.waiter("r2", durable=True)) == Lead(2)
    await desk.run(waiter, desk.terms())
    assert await desk.admit(desk.waiter("r3", durable=True)) == Lead(3)


async def test_a_running_call_is_joined_at_any_priority(desk: Desk) -> None:
    waiter = desk.waiter("r1")
    await desk.admit(waiter)
    await desk.run(waiter, desk.terms())

    assert await desk.admit(desk.waiter("r2", priority=Priority.HIGH)) == Joined()
    assert await desk.admit(waiter) == Joined()


async def test_a_call_whose_worker_fell_silent_is_not_joined_once_its_job_is_stale(desk: Desk) -> None:
    waiter = desk.waiter("r1")
    await desk.admit(waiter)
    await desk.run(waiter, desk.terms())
    await desk.lapse()
    await desk.age("published_at", 31.0)

    assert await desk.admit(desk.waiter("r2")) == Lead(2)


async def test_a_job_that_waits_in_a_retry_tier_is_not_joined(desk: Desk) -> None:
    waiter, terms = desk.waiter("r1"), desk.terms()
    await desk.admit(waiter)
    await desk.run(waiter, terms)
    await desk.flights.release(FLIGHT, terms.token, parked_until=desk.start + 30)

    assert await desk.admit(desk.waiter("r2")) == Lead(2)
    assert await desk.admit(desk.waiter("r3")) == Joined()  # the new job is on its way


async def test_a_job_that_was_handed_on_at_once_is_joined(desk: Desk) -> None:
    waiter, terms = desk.waiter("r1"), desk.terms()
    await desk.admit(waiter)
    await desk.run(waiter, terms)
    await desk.flights.release(FLIGHT, terms.token)

    assert await desk.admit(desk.waiter("r2")) == Joined()


async def test_a_job_that_redis_first_heard_of_from_a_worker_takes_newcomers(desk: Desk) -> None:
    """After a flush the record is written by `claim`, which knows no publisher."""
    waiter, terms = desk.waiter("r1"), desk.terms()
    await desk.run(waiter, terms)
    await desk.flights.release(FLIGHT, terms.token)

    assert await desk.admit(desk.waiter("r2")) == Lead(2)
    assert await desk.admit(desk.waiter("r3")) == Joined()


async def test_a_job_without_a_sign_of_life_is_led_anew_after_as_long_as_it_waited(desk: Desk) -> None:
    await desk.admit(desk.waiter("r1"))
    await desk.wait_out(BACKOFF_S - 1)
    assert await desk.admit(desk.waiter("r2")) == Joined()
    await desk.wait_out(21.0)
    assert await desk.admit(desk.waiter("r3")) == Lead(2)
    await desk.wait_out(BACKOFF_S + 19)
    assert await desk.admit(desk.waiter("r4")) == Joined()
    await desk.wait_out(2.0)
    assert await desk.admit(desk.waiter("r5")) == Lead(3)


async def test_who_sends_again_and_again_makes_nobody_else_wait_for_longer(desk: Desk) -> None:
    """As a client does at each reconnect; then it is gone, and its last job with it."""
    for lead in range(1, 9):
        assert await desk.admit(desk.waiter("r1")) == Lead(lead)
    await desk.wait_out(BACKOFF_S)

    assert await desk.admit(desk.waiter("r2")) == Lead(9)


async def test_a_client_that_asks_again_after_its_silence_leads_each_time(desk: Desk) -> None:
    """Else it would be chance, at the same instants, whether a lost job is healed now or a minute later."""
    core, now = Core(), 0.0
    core.begin("r1", now, timeout=7200.0)
    assert await desk.admit(desk.waiter("r1")) == Lead(1)

    for lead in range(2, 12):
        silence_s = (core.next_due() or 0.0) - now
        now += silence_s
        core.due(now)
        await desk.wait_out(silence_s)
        assert await desk.admit(desk.waiter(f"r{lead}")) == Lead(lead)  # another, so that only time decides


async def test_a_fresh_answer_is_a_hit_that_names_who_paid(desk: Desk) -> None:
    payer = desk.waiter("r1")
    await desk.answered(payer, ok("Sky"))

    assert await desk.admit(desk.waiter("r2")) == Hit("fresh", ok("Sky"), payer.key)


async def test_a_request_that_was_served_is_recognised_for_good(desk: Desk) -> None:
    waiter = desk.waiter("r1")
    await desk.answered(waiter, ok("Sky"))
    await desk.age("fresh_until", 3600.0)

    assert await desk.admit(waiter, max_age_s=0.0) == Hit("served", ok("Sky"), waiter.key)


async def test_a_request_that_was_called_off_is_served_without_an_answer(desk: Desk) -> None:
    waiter = desk.waiter("r1")
    await desk.admit(waiter)
    await desk.flights.settle(FLIGHT, [waiter])

    assert await desk.admit(waiter) == Hit("served", None, waiter.key)


async def test_a_waiter_whose_reply_is_still_to_come_is_known(desk: Desk) -> None:
    waiter, late, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms()
    await desk.admit(waiter)
    await desk.admit(late, max_age_s=0.0)
    run = await desk.run(waiter, terms)
    await desk.commit(waiter, terms, run.started, ok("Sky"), keep_s=0.0)

    assert await desk.admit(late, max_age_s=0.0) == Hit("known", ok("Sky"), waiter.key)


async def test_a_refresh_takes_no_stored_answer_but_joins_a_running_call(desk: Desk) -> None:
    await desk.answered(desk.waiter("r1"), ok("old"))
    refresh = desk.waiter("r2")

    assert await desk.admit(refresh, max_age_s=0.0) == Lead(1)
    await desk.run(refresh, desk.terms())
    assert await desk.admit(desk.waiter("r3"), max_age_s=0.0) == Joined()


async def test_while_a_refresh_is_on_its_way_the_stored_answer_still_serves_others(desk: Desk) -> None:
    await desk.answered(desk.waiter("r1"), ok("old"))
    await desk.admit(desk.waiter("r2"), max_age_s=0.0)

    assert await desk.admit(desk.waiter("r3")) == Hit("fresh", ok("old"), "quality/r2")


async def test_a_callers_age_limit_is_kept(desk: Desk) -> None:
    await desk.answered(desk.waiter("r1"), ok("old"))
    await desk.age("done_at", 10.0)

    assert isinstance(await desk.admit(desk.waiter("r2"), max_age_s=11.0), Hit)
    assert await desk.admit(desk.waiter("r3"), max_age_s=9.0) == Lead(1)


async def test_an_answer_is_not_taken_beyond_its_own_time(desk: Desk) -> None:
    await desk.answered(desk.waiter("r1"), ok("old"))
    await desk.age("fresh_until", 600.0)

    assert await desk.admit(desk.waiter("r2"), max_age_s=1e6) == Lead(1)


async def freshness_s(desk: Desk) -> float:
    done_at, fresh_until = await desk.field("done_at"), await desk.field("fresh_until")
    return float(fresh_until or 0) - float(done_at or 0)


async def test_an_answer_led_by_join_is_fresh_for_the_dedupe_window_only(desk: Desk) -> None:
    waiter, terms = desk.waiter("r1"), desk.terms()
    await desk.admit(waiter, max_age_s=5.0, keep_s=5.0)
    run = await desk.run(waiter, terms)
    await desk.commit(waiter, terms, run.started, ok(), keep_s=5.0)

    assert await freshness_s(desk) == pytest.approx(5.0, abs=0.01)


async def test_one_that_wants_the_answer_kept_makes_it_kept_though_another_leads(desk: Desk) -> None:
    waiter, terms = desk.waiter("r1"), desk.terms()
    await desk.admit(waiter, max_age_s=5.0, keep_s=5.0)
    await desk.admit(desk.waiter("r2"), keep_s=600.0)
    run = await desk.run(waiter, terms)
    await desk.commit(waiter, terms, run.started, ok(), keep_s=5.0)

    assert await freshness_s(desk) == pytest.approx(600.0, abs=0.01)


async def test_an_error_is_shared_with_newcomers_for_its_own_time_only(desk: Desk) -> None:
    await desk.answered(desk.waiter("r1"), fault(), keep_s=0.0, shared_s=5.0)

    assert await freshness_s(desk) == pytest.approx(5.0, abs=0.01)
    assert await desk.admit(desk.waiter("r2")) == Hit("fresh", fault(), "quality/r1")
    await desk.age("fresh_until", 5.0)
    assert await desk.admit(desk.waiter("r3")) == Lead(1)


async def test_a_waiter_that_moved_is_answered_at_its_new_address(desk: Desk) -> None:
    old, moved = (
        desk.waiter("r1", reply_to="reply.quality.c.1"),
        desk.waiter("r1", reply_to="reply.quality.c.2"),
    )
    terms = desk.terms()
    await desk.admit(old)
    await desk.admit(moved)
    run = await desk.run(old, terms)
    await desk.commit(old, terms, run.started, ok())

    done = await desk.claim(old, desk.terms("w2"))

    assert isinstance(done, Done)
    assert done.waiters == (moved,)


@pytest.mark.parametrize("part", ["flight", "waiters"])
async def test_a_record_outlives_the_latest_deadline_by_a_minute(desk: Desk, part: str) -> None:
    await desk.admit(desk.waiter("r1", left_s=500.0))
    await desk.admit(desk.waiter("r2", left_s=100.0))

    expires_at = await desk.redis.expiretime(desk.key(f"{part}:{FLIGHT}"))

    assert expires_at >= desk.start + 500 + 60


async def test_who_was_served_is_remembered_as_long_as_it_can_ask_again(desk: Desk) -> None:
    await desk.answered(desk.waiter("r1", left_s=5000.0), ok())

    for part in ("flight", "served"):
        assert await desk.redis.expiretime(desk.key(f"{part}:{FLIGHT}")) >= desk.start + 5000 + 60
