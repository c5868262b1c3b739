"""Retry budgets: who may ask a provider once more for a flight that it has failed."""

from typing import Any

import pytest

from broker.answers import Joined, Lead, Run, Spared
from broker.flights import Admission, ClaimTerms, Result
from broker.permits import retries_key
from tests.broker.test_claim_permits import claim
from tests.broker.test_flights import Desk, fault, ok

_AT_HAND = 10
_EACH_S = 5.0
_PARK_S = 7.0


def terms(desk: Desk, provider: str = "groq", share: float = 0.2, **changes: Any) -> ClaimTerms:
    key = retries_key(desk.flights.prefix, provider)
    budget = {"provider": provider, "key": key, "share": share, "park_s": _PARK_S}
    return desk.terms(f"w-{provider}", retries=budget, **changes)


async def fail(desk: Desk, name: str, provider: str = "groq") -> Run | Spared:
    """Asks the provider for the flight, which it fails, if it may be asked."""
    own = terms(desk, provider)
    answer = await claim(desk, name, own)
    assert isinstance(answer, Run | Spared)
    if isinstance(answer, Run):
        await desk.flights.release(name, own.token, failed=desk.key(f"closed-{provider}"))
    return answer


async def succeed(desk: Desk, name: str) -> None:
    own = terms(desk)
    run = await claim(desk, name, own)
    assert isinstance(run, Run)
    await desk.flights.commit(name, desk.waiter(name), own.token, run.started, Result(ok()))


async def use_up(desk: Desk) -> None:
    """As many retries fail as there are."""
    for _ in range(1 + _AT_HAND):
        assert isinstance(await fail(desk, "wasteful"), Run)


async def retries_left(desk: Desk) -> int:
    """By trying."""
    count = 0
    while isinstance(await fail(desk, "wasteful"), Run):
        count += 1
    return count


async def pass_time(desk: Desk, seconds: float) -> None:
    key = retries_key(desk.flights.prefix, "groq")
    await desk.redis.set(key, float(await desk.redis.get(key) or 0) - seconds, keepttl=True)


async def test_a_quiet_provider_may_be_asked_again_a_few_times_and_then_the_job_is_parked(desk: Desk) -> None:
    await use_up(desk)

    spared = await fail(desk, "wasteful")

    assert isinstance(spared, Spared)
    assert spared.failed == {"groq"}
    assert spared.until == pytest.approx(await desk.flights.now() + _PARK_S, abs=0.5)


async def test_first_attempts_are_never_held_up(desk: Desk) -> None:
    await use_up(desk)

    assert all([isinstance(await fail(desk, f"new-{n}"), Run) for n in range(30)])


async def test_what_another_provider_has_failed_is_no_retry_here(desk: Desk) -> None:
    await use_up(desk)
    for n in range(30):
        assert isinstance(await fail(desk, f"f{n}", "openai"), Run)
        assert isinstance(await claim(desk, f"f{n}", terms(desk)), Run)


async def test_a_flight_remembers_all_who_have_failed_it(desk: Desk) -> None:
    await fail(desk, "f", "openai")
    await use_up(desk)
    await fail(desk, "f")

    spared = await fail(desk, "f")

    assert isinstance(spared, Spared)
    assert spared.failed == {"groq", "openai"}


async def test_a_provider_whose_name_is_part_of_anothers_has_failed_nothing(desk: Desk) -> None:
    await fail(desk, "f", "groq-2")
    await use_up(desk)

    assert isinstance(await fail(desk, "f"), Run)


async def test_calls_that_end_well_bring_their_share_of_retries(desk: Desk) -> None:
    await use_up(desk)

    for n in range(15):
        await succeed(desk, f"good-{n}")

    assert await retries_left(desk) == 3


async def test_no_more_retries_gather_than_there_are_at_first(desk: Desk) -> None:
    await fail(desk, "wasteful")
    assert isinstance(await fail(desk, "wasteful"), Run)
    for n in range(30):
        await succeed(desk, f"good-{n}")

    assert await retries_left(desk) == _AT_HAND


async def test_with_time_a_retry_comes_by_itself(desk: Desk) -> None:
    await use_up(desk)
    assert await retries_left(desk) == 0

    await pass_time(desk, _EACH_S)
    assert await retries_left(desk) == 1

    await pass_time(desk, 1000 * _EACH_S)
    assert await retries_left(desk) == _AT_HAND


async def test_a_retry_that_ends_well_is_given_back_so_that_those_who_waited_follow(desk: Desk) -> None:
    """It answers again: as many at once as there are retries, and more with each round."""
    waiting = [f"f{n}" for n in range(40)]
    for name in waiting:
        await fail(desk, name)
    await use_up(desk)
    await pass_time(desk, _EACH_S)

    rounds = []
    while waiting:
        started = []
        for name in waiting:
            own = terms(desk)
            run = await claim(desk, name, own)
            if not isinstance(run, Run):
                break
            started.append((name, own, run))
        assert started
        for name, own, run in started:
            await desk.flights.commit(name, desk.waiter(name), own.token, run.started, Result(ok()))
        waiting = waiting[len(started) :]
        rounds.append(len(started))

    assert rounds[0] == 1
    assert rounds == sorted(rounds[:-1]) + rounds[-1:]
    assert max(rounds) >= 5


async def test_a_retry_that_was_never_sent_or_only_throttled_costs_nothing(desk: Desk) -> None:
    await fail(desk, "f")
    for _ in range(3 * _AT_HAND):
        own = terms(desk)
        assert isinstance(await claim(desk, "f", own), Run)
        await desk.flights.release("f", own.token, sent=False)
        own = terms(desk)
        assert isinstance(await claim(desk, "f", own), Run)
        await desk.flights.release("f", own.token, closed={desk.key("closed-other"): 1.0})

    await fail(desk, "wasteful")
    assert await retries_left(desk) == _AT_HAND


async def test_a_retry_whose_worker_died_is_not_given_back(desk: Desk) -> None:
    for n in range(_AT_HAND):
        await fail(desk, f"f{n}")
        assert isinstance(await claim(desk, f"f{n}", terms(desk)), Run)

    await fail(desk, "f")
    assert isinstance(await fail(desk, "f"), Spared)


async def test_an_error_that_ends_the_flight_keeps_its_retry(desk: Desk) -> None:
    await fail(desk, "f")
    for n in range(_AT_HAND):
        await fail(desk, f"f{n}")
        own = terms(desk)
        run = await claim(desk, f"f{n}", own)
        assert isinstance(run, Run)
        result = Result(fault(), failed=desk.key("closed-groq"))
        await desk.flights.commit(f"f{n}", desk.waiter(f"f{n}"), own.token, run.started, result)

    assert isinstance(await fail(desk, "f"), Spared)


async def test_permits_that_are_taken_anew_are_the_same_retry(desk: Desk) -> None:
    await fail(desk, "f")
    own = terms(desk)
    assert isinstance(await claim(desk, "f", own), Run)

    for _ in range(3 * _AT_HAND):
        assert await desk.flights.restamp("f", own, "main") == "mine"
    await desk.flights.release("f", own.token, failed=desk.key("closed-groq"))

    await fail(desk, "wasteful")
    assert await retries_left(desk) == _AT_HAND - 1


async def test_who_asks_for_the_same_while_it_is_spared_leads_anew(desk: Desk) -> None:
    admissions = [Admission("f", desk.waiter(name), 600.0, 600.0) for name in ("r1", "r2", "r3")]
    assert await desk.flights.admit(admissions[:1]) == [Lead(1)]
    await fail(desk, "f")
    await use_up(desk)
    assert await desk.flights.admit(admissions[1:2]) == [Joined()]

    assert isinstance(await fail(desk, "f"), Spared)

    assert await desk.flights.admit(admissions[2:]) == [Lead(2)]


async def test_whoever_comes_back_within_the_pause_is_told_so_again(desk: Desk) -> None:
    await use_up(desk)
    first = await fail(desk, "wasteful")

    second = await fail(desk, "wasteful")

    assert isinstance(first, Spared)
    assert isinstance(second, Spared)
    assert (first.again, second.again) == (False, True)
    assert second.until == first.until


async def test_after_the_pause_it_may_go_elsewhere_anew(desk: Desk) -> None:
    await use_up(desk)
    await fail(desk, "wasteful")
    await desk.redis.hset(desk.key("flight:wasteful"), "spared_until", str(desk.start - 1.0))

    spared = await fail(desk, "wasteful")

    assert isinstance(spared, Spared)
    assert not spared.again


async def test_a_job_that_is_spared_and_goes_elsewhere_is_parked_no_more(desk: Desk) -> None:
    await desk.flights.admit([Admission("f", desk.waiter("r1"), 600.0, 600.0)])
    await fail(desk, "f")
    await use_up(desk)
    assert isinstance(await fail(desk, "f"), Spared)

    await desk.flights.enter("f", "jobs.openai.any.normal", desk.waiter("r1"))

    assert await desk.flights.admit([Admission("f", desk.waiter("r2"), 600.0, 600.0)]) == [Joined()]


async def test_a_flight_that_begins_anew_has_been_failed_by_nobody(desk: Desk) -> None:
    await fail(desk, "f")
    own = terms(desk)
    run = await claim(desk, "f", own)
    assert isinstance(run, Run)
    await desk.flights.commit("f", desk.waiter("f"), own.token, run.started, Result(fault()))
    await use_up(desk)

    await desk.flights.admit([Admission("f", desk.waiter("another"), 0.0, 600.0)])

    assert isinstance(await claim(desk, "f", terms(desk)), Run)


async def test_without_a_budget_nothing_is_counted(desk: Desk) -> None:
    for _ in range(3 * _AT_HAND):
        own = desk.terms()
        assert isinstance(await claim(desk, "f", own), Run)
        await desk.flights.release("f", own.token, failed=desk.key("closed-groq"))

    assert await desk.redis.exists(retries_key(desk.flights.prefix, "groq")) == 0
