from collections.abc import Mapping
from typing import Any

import pytest

from broker.answers import Admitted, Hit, Joined, Lead, Wait
from broker.flights import Admission
from tests.broker.test_flights import Desk, ok
from tests.support.waiting import until
from topology.messages import Waiter

SHORT_S = 0.3


def rate(desk: Desk, scope: str, amount: float, window_s: float = 60.0) -> Mapping[str, Any]:
    return {
        "key": desk.key(f"rate:{scope}"),
        "amount": amount,
        "window_s": window_s,
        "name": f"{scope}'s rate",
    }


async def lead(desk: Desk, waiter: Waiter, *limits: Mapping[str, Any]) -> Admitted:
    """Admits the waiter to a flight of its own."""
    [answer] = await desk.flights.admit([Admission(f"f-{waiter.id}", waiter, 600.0, 600.0, limits)])
    return answer


async def test_what_exceeds_the_limit_waits_for_the_oldest_to_leave_the_window(desk: Desk) -> None:
    fleet = rate(desk, "fleet", 2)

    assert await lead(desk, desk.waiter("r1"), fleet) == Lead(1)
    assert await lead(desk, desk.waiter("r2"), fleet) == Lead(1)
    third = await lead(desk, desk.waiter("r3", left_s=600), fleet)

    assert isinstance(third, Wait)
    assert (third.booked, third.limit) == (True, "fleet's rate")
    assert third.until == pytest.approx(desk.start + 60, abs=5)


async def test_a_booked_instant_stays_the_same_however_often_one_asks(desk: Desk) -> None:
    fleet = rate(desk, "fleet", 1)
    await lead(desk, desk.waiter("r1"), fleet)
    first = await lead(desk, desk.waiter("r2", left_s=600), fleet)
    await lead(desk, desk.waiter("r3", left_s=600), fleet)

    assert await lead(desk, desk.waiter("r2", left_s=600), fleet) == first


async def test_those_who_wait_pass_one_window_after_another(desk: Desk) -> None:
    fleet = rate(desk, "fleet", 2)
    answers = [await lead(desk, desk.waiter(f"r{n}", left_s=600), fleet) for n in range(6)]

    untils = [a.until for a in answers if isinstance(a, Wait)]
    assert answers[:2] == [Lead(1), Lead(1)]
    assert untils[0] < untils[2] == pytest.approx(untils[0] + 60)
    assert untils[1] < untils[3] == pytest.approx(untils[1] + 60)


async def test_a_booked_request_passes_at_its_instant_and_not_before(desk: Desk) -> None:
    fleet = rate(desk, "fleet", 1, SHORT_S)
    await lead(desk, desk.waiter("r1"), fleet)
    booked = await lead(desk, desk.waiter("r2"), fleet)
    assert isinstance(booked, Wait)

    passed_at: list[float] = []

    async def passes() -> bool:
        answer = await lead(desk, desk.waiter("r2"), fleet)
        passed_at.append(await desk.flights.now())
        assert answer in (booked, Lead(1))
        return answer == Lead(1)

    await until(passes)
    assert passed_at[-1] >= booked.until


async def test_a_wait_beyond_the_deadline_is_not_booked(desk: Desk) -> None:
    fleet = rate(desk, "fleet", 1)
    await lead(desk, desk.waiter("r1"), fleet)

    hopeless = await lead(desk, desk.waiter("r2", left_s=5), fleet)
    patient = await lead(desk, desk.waiter("r3", left_s=600), fleet)

    assert isinstance(hopeless, Wait)
    assert isinstance(patient, Wait)
    assert not hopeless.booked
    assert patient.until == hopeless.until  # nobody took the place


async def test_hits_and_joins_are_free(desk: Desk) -> None:
    limits = (rate(desk, "fleet", 1),)
    assert await desk.admit(desk.waiter("r1"), limits=limits) == Lead(1)
    assert await desk.admit(desk.waiter("r2"), limits=limits) == Joined()

    waiter, terms = desk.waiter("r1"), desk.terms()
    run = await desk.run(waiter, terms)
    await desk.commit(waiter, terms, run.started, ok())

    assert isinstance(await desk.admit(desk.waiter("r3"), limits=limits), Hit)


async def test_one_agent_over_its_rate_waits_while_another_passes(desk: Desk) -> None:
    fleet, mine, theirs = (rate(desk, s, n) for s, n in (("fleet", 10), ("quality", 2), ("summary", 2)))
    for name in ("r1", "r2"):
        assert await lead(desk, desk.waiter(name), mine, fleet) == Lead(1)

    waiting = await lead(desk, desk.waiter("r3", left_s=600), mine, fleet)

    assert isinstance(waiting, Wait)
    assert waiting.limit == "quality's rate"
    assert await lead(desk, desk.waiter("r4", agent="summary"), theirs, fleet) == Lead(1)


async def test_who_waits_for_its_own_limit_takes_no_place_in_the_fleets(desk: Desk) -> None:
    fleet, mine, theirs = (rate(desk, s, n) for s, n in (("fleet", 2), ("quality", 1), ("summary", 9)))
    await lead(desk, desk.waiter("r1"), mine, fleet)
    for n in range(5):
        assert isinstance(await lead(desk, desk.waiter(f"w{n}", left_s=6000), mine, fleet), Wait)

    assert await lead(desk, desk.waiter("r2", agent="summary"), theirs, fleet) == Lead(1)


async def test_a_rate_that_is_no_whole_number_is_kept_too(desk: Desk) -> None:
    slow = rate(desk, "fleet", 0.5)

    assert await lead(desk, desk.waiter("r1"), slow) == Lead(1)
    second = await lead(desk, desk.waiter("r2", left_s=600), slow)

    assert isinstance(second, Wait)
    assert second.until == pytest.approx(desk.start + 120, abs=5)


async def test_a_refresh_that_had_to_wait_still_takes_no_stored_answer(desk: Desk) -> None:
    limits = (rate(desk, "fleet", 1, SHORT_S),)
    await desk.answered(desk.waiter("r1"), ok("old"))
    await lead(desk, desk.waiter("other"), *limits)
    refresh = desk.waiter("r2")

    seen = [await desk.admit(refresh, max_age_s=0.0, limits=limits)]
    assert isinstance(seen[0], Wait)

    async def passes() -> bool:
        seen.append(await desk.admit(refresh, max_age_s=0.0, limits=limits))
        return not isinstance(seen[-1], Wait)

    await until(passes)
    assert seen[-1] == Lead(1)
