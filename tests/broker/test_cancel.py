from broker.answers import CalledOff, Expired, Hit, Joined, Lead, Remembered, Run, Stored, Wait
from broker.finding import find_waiters
from tests.broker.test_flights import FLIGHT, Desk, ok
from topology.messages import Waiter

CALLED_OFF = Hit("called_off", None, "")


async def cancel(desk: Desk, waiter: Waiter) -> CalledOff | Remembered:
    [answer] = await desk.flights.cancel([waiter.key])
    return answer


async def known_requests(desk: Desk) -> set[bytes]:
    return {key async for key in desk.redis.scan_iter(desk.key("request:*"))}


# queued ------------------------------------------------------------------------------------------


async def test_a_queued_request_is_called_off_and_its_job_ends_unrun(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)

    assert await cancel(desk, waiter) == CalledOff(FLIGHT, waiter, None)

    assert await desk.claim(waiter, desk.terms()) == Expired()
    assert await desk.admit(desk.waiter("r2")) == Lead(1)


async def test_whoever_joined_loses_only_himself(desk: Desk) -> None:
    payer, joined, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms()
    await desk.admit(payer)
    await desk.admit(joined)
    run = await desk.run(payer, terms)

    assert await cancel(desk, joined) == CalledOff(FLIGHT, joined, None)

    assert await desk.renew(payer, terms, run) == "mine"
    stored = await desk.commit(payer, terms, run.started, ok())
    assert stored == Stored(ok(), payer.key, b"", (payer,))


async def test_when_the_one_who_led_has_gone_another_is_answered_and_pays(desk: Desk) -> None:
    payer, joined, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms()
    await desk.admit(payer)
    await desk.admit(joined)
    await cancel(desk, payer)

    run = await desk.run(payer, terms)
    stored = await desk.commit(payer, terms, run.started, ok())

    assert stored == Stored(ok(), joined.key, b"", (joined,))


async def test_a_newcomer_takes_over_the_job_that_was_called_off_and_not_yet_claimed(desk: Desk) -> None:
    gone, newcomer = desk.waiter("r1"), desk.waiter("r2")
    await desk.admit(gone)
    await cancel(desk, gone)

    assert await desk.admit(newcomer) == Joined()
    assert isinstance(await desk.claim(gone, desk.terms()), Run)


# running -----------------------------------------------------------------------------------------


async def test_the_worker_that_calls_for_nobody_is_named(desk: Desk) -> None:
    first, last, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms("w1")
    await desk.admit(first)
    await desk.admit(last)
    await desk.run(first, terms)

    assert await cancel(desk, first) == CalledOff(FLIGHT, first, None)
    assert await cancel(desk, last) == CalledOff(FLIGHT, last, "w1")


async def test_after_unwanted_a_newcomer_leads_a_flight_of_its_own(desk: Desk) -> None:
    gone, newcomer, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms("w1")
    await desk.admit(gone)
    run = await desk.run(gone, terms)
    await cancel(desk, gone)

    assert await desk.renew(gone, terms, run) == "unwanted"

    assert await desk.renew(gone, terms, run) == "lost"
    assert await desk.admit(newcomer) == Lead(1)
    again = await desk.run(newcomer, desk.terms("w1"))
    assert (again.attempt, again.doubts) == (1, ())


async def test_a_newcomer_before_unwanted_keeps_the_call(desk: Desk) -> None:
    gone, newcomer, terms = desk.waiter("r1"), desk.waiter("r2"), desk.terms("w1")
    await desk.admit(gone)
    run = await desk.run(gone, terms)
    await cancel(desk, gone)
    await desk.admit(newcomer)

    assert await desk.renew(gone, terms, run) == "mine"


async def test_the_leases_of_an_unwanted_call_last_until_it_is_cut_and_its_rates_stay_taken(
    desk: Desk,
) -> None:
    lease = {"kind": "lease", "key": desk.key("lease:groq"), "amount": 1, "name": "groq concurrency"}
    rate = {
        "kind": "sliding", "key": desk.key("rate:groq"), "amount": 1, "window_s": 60.0, "unit": "requests",
        "cost": 1.0, "slack_s": 0.0, "name": "groq requests-60s",
    }  # fmt: skip
    gone, terms = desk.waiter("r1"), desk.terms("w1", limits=(lease, rate))
    await desk.admit(gone)
    run = await desk.run(gone, terms)
    await cancel(desk, gone)
    await desk.renew(gone, terms, run, desk.key("lease:groq"))
    assert await desk.redis.zcard(desk.key("lease:groq")) == 1

    assert await desk.flights.release(FLIGHT, terms.token, billed=True) == (False, 1, False)

    assert await desk.redis.zcard(desk.key("lease:groq")) == 0
    assert float(await desk.redis.get(desk.key("rate:groq:sum")) or 0) == 1.0


async def test_the_late_result_of_a_call_that_was_called_off_is_there_for_strangers(desk: Desk) -> None:
    gone, terms = desk.waiter("r1"), desk.terms("w1")
    await desk.admit(gone)
    run = await desk.run(gone, terms)
    await cancel(desk, gone)
    await desk.renew(gone, terms, run)

    assert await desk.commit(gone, terms, run.started, ok()) == Stored(ok(), gone.key, b"", ())
    assert await desk.admit(desk.waiter("r2")) == Hit("fresh", ok(), gone.key)


# the request again -------------------------------------------------------------------------------


async def test_a_request_that_comes_after_its_cancel_does_not_lead(desk: Desk) -> None:
    waiter = desk.waiter()
    assert await cancel(desk, waiter) == Remembered()

    assert await desk.admit(waiter) == CALLED_OFF
    assert await desk.admit(waiter) == CALLED_OFF
    assert not await desk.redis.exists(desk.key(f"waiters:{FLIGHT}"))


async def test_a_cancelled_request_that_is_handed_out_again_is_known(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)
    await cancel(desk, waiter)

    assert await desk.admit(waiter) == Hit("served", None, waiter.key)
    assert await cancel(desk, waiter) == Remembered()


async def test_a_request_of_the_same_id_by_another_agent_is_another_request(desk: Desk) -> None:
    own, others = desk.waiter("r1", "quality"), desk.waiter("r1", "summary")
    await cancel(desk, own)

    assert await desk.admit(others) == Lead(1)
    assert await cancel(desk, own) == Remembered()
    assert await desk.redis.hlen(desk.key(f"waiters:{FLIGHT}")) == 1


async def test_cancelling_what_was_answered_changes_nothing(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.answered(waiter, ok())

    assert await cancel(desk, waiter) == Remembered()
    assert await desk.admit(waiter) == Hit("served", ok(), waiter.key)
    assert await desk.admit(desk.waiter("r2")) == Hit("fresh", ok(), waiter.key)


async def test_what_a_limit_has_parked_is_called_off_when_it_comes_back(desk: Desk) -> None:
    await desk.answered(desk.waiter("r0"), ok())
    fleet = {"key": desk.key("rate:fleet"), "amount": 1, "window_s": 60.0, "name": "fleet's rate"}
    await desk.admit(desk.waiter("r1"), max_age_s=0.0, limits=(fleet,))
    parked = desk.waiter("r2", left_s=120.0)
    await desk.flights.settle(FLIGHT, [desk.waiter("r1")])
    await desk.redis.hset(desk.key(f"flight:{FLIGHT}"), "state", "done")
    assert isinstance(await desk.admit(parked, max_age_s=0.0, limits=(fleet,)), Wait)

    assert await cancel(desk, parked) == Remembered()
    assert await desk.admit(parked, max_age_s=0.0, limits=(fleet,)) == CALLED_OFF


async def test_a_cancel_that_comes_while_redis_has_forgotten_the_request_holds(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)
    await desk.flush()
    await cancel(desk, waiter)

    assert await desk.claim(waiter, desk.terms()) == Expired()


async def test_a_call_that_redis_forgot_can_be_called_off_once_it_is_written_back(desk: Desk) -> None:
    waiter, terms = desk.waiter(), desk.terms("w1")
    await desk.admit(waiter)
    run = await desk.run(waiter, terms)
    await desk.flush()
    await desk.renew(waiter, terms, run)

    assert await cancel(desk, waiter) == CalledOff(FLIGHT, waiter, "w1")
    assert await desk.renew(waiter, terms, run) == "unwanted"


# what is kept ------------------------------------------------------------------------------------


async def test_a_request_is_known_by_its_id_only_while_it_waits(desk: Desk) -> None:
    waiter = desk.waiter()
    await desk.admit(waiter)
    name = desk.key(f"request:{waiter.key}")
    assert await known_requests(desk) == {name.encode()}
    assert await desk.redis.expiretime(name) >= waiter.deadline

    await desk.flights.settle(FLIGHT, [waiter])
    assert await known_requests(desk) == set()


async def test_a_hit_writes_nothing_down(desk: Desk) -> None:
    await desk.answered(desk.waiter("r1"), ok())

    assert await desk.admit(desk.waiter("r2")) == Hit("fresh", ok(), "quality/r1")
    assert await known_requests(desk) == set()


async def test_a_cancel_that_came_first_is_forgotten_after_minutes(desk: Desk) -> None:
    waiter = desk.waiter()
    await cancel(desk, waiter)

    assert 0 < await desk.redis.ttl(desk.key(f"request:{waiter.key}")) <= 300


async def test_many_are_called_off_in_one_round_trip_and_in_their_order(desk: Desk) -> None:
    there, missing = desk.waiter("r1"), desk.waiter("r2")
    await desk.admit(there)

    answers = await desk.flights.cancel([missing.key, there.key])

    assert answers == [Remembered(), CalledOff(FLIGHT, there, None)]


# finding -----------------------------------------------------------------------------------------


async def test_whoever_waits_is_found_by_the_id_alone(desk: Desk) -> None:
    waiters = [desk.waiter("a*/b", "quality"), desk.waiter("a*/b", "summary")]
    for waiter in (*waiters, desk.waiter("aa/b"), desk.waiter("b"), desk.waiter("x/a*/b")):
        await desk.admit(waiter)

    found = await find_waiters(desk.redis, desk.flights.prefix, "a*/b")

    assert found == {waiter.key: waiter for waiter in waiters}


async def test_whoever_was_called_off_or_answered_is_not_found(desk: Desk) -> None:
    gone, answered = desk.waiter("r1", "quality"), desk.waiter("r1", "summary")
    await desk.admit(gone)
    await desk.admit(answered)
    await cancel(desk, gone)
    await desk.flights.settle(FLIGHT, [answered])

    assert await find_waiters(desk.redis, desk.flights.prefix, "r1") == {}


# who wants to know -------------------------------------------------------------------------------


async def test_a_claim_that_is_refused_names_those_who_want_to_know(desk: Desk) -> None:
    quiet, curious = desk.waiter("r1"), desk.waiter("r2", tell_waits=True)
    await desk.admit(quiet)
    await desk.admit(curious)
    await desk.redis.set(desk.key("closed-main"), str(desk.start + 30))

    later = await desk.claim(quiet, desk.terms())

    assert getattr(later, "waiters", None) == (curious,)
