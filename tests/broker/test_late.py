"""A limit that opens only when nobody waits any more: that is told at once."""

from collections.abc import Mapping
from typing import Any

import pytest

from broker.answers import Late, Later, Living, Run, Stored
from broker.flights import Admission, Result
from broker.permits import order_key
from tests.broker.test_claim_permits import claim, lease, rate
from tests.broker.test_closing import close
from tests.broker.test_flights import FLIGHT, Desk, fault
from topology.messages import Waiter
from topology.names import Priority


async def spent(desk: Desk) -> Mapping[str, Any]:
    """A limit of which nothing is left for an hour."""
    limit = rate(desk, "sliding", 1, window_s=3600.0, unit="requests")
    assert isinstance(await claim(desk, "before", desk.terms(limits=(limit,))), Run)
    return limit


async def test_who_waits_for_less_than_that_is_told_at_once(desk: Desk) -> None:
    limit = await spent(desk)

    late = await desk.claim(desk.waiter(left_s=60.0), desk.terms(limits=(limit,)))

    assert isinstance(late, Late)
    assert late.limit == limit["name"]
    assert late.until == pytest.approx(desk.start + 3600, abs=5)


async def test_as_long_as_somebody_waits_for_longer_it_waits(desk: Desk) -> None:
    limit = await spent(desk)
    patient, hasty = desk.waiter("patient", left_s=7200.0), desk.waiter("hasty", left_s=60.0)
    await desk.admit(patient)
    await desk.admit(hasty)

    assert isinstance(await desk.claim(hasty, desk.terms(limits=(limit,))), Later)


async def test_the_claim_is_for_telling_it(desk: Desk) -> None:
    limit, waiter, terms = await spent(desk), desk.waiter(left_s=60.0), desk.terms()
    asked = desk.terms(limits=(limit,))
    late = await desk.claim(waiter, asked)
    assert isinstance(late, Late)

    stored = await desk.flights.commit(
        FLIGHT, waiter, asked.token, late.started, Result(fault(), retry_at=late.until)
    )

    assert isinstance(stored, Stored)
    assert [one.id for one in stored.waiters] == [waiter.id]
    assert isinstance(await desk.claim(desk.waiter("next"), terms), Run)


async def test_somebody_with_more_time_who_joins_meanwhile_is_not_told(desk: Desk) -> None:
    limit, waiter = await spent(desk), desk.waiter(left_s=60.0)
    asked = desk.terms(limits=(limit,))
    late = await desk.claim(waiter, asked)
    assert isinstance(late, Late)
    await desk.admit(desk.waiter("patient", left_s=7200.0))

    ended = await desk.flights.commit(
        FLIGHT, waiter, asked.token, late.started, Result(fault(), retry_at=late.until)
    )
    assert isinstance(ended, Living)
    await desk.flights.release(FLIGHT, asked.token)

    assert isinstance(await desk.claim(waiter, desk.terms(limits=(limit,))), Later)


async def test_a_late_claim_spends_nothing(desk: Desk) -> None:
    limit, waiter = await spent(desk), desk.waiter(left_s=60.0)
    for _ in range(5):
        asked = desk.terms(limits=(limit,))
        assert isinstance(await desk.claim(waiter, asked), Late)
        await desk.flights.release(FLIGHT, asked.token)

    assert isinstance(await desk.claim(waiter, desk.terms()), Run)


async def test_what_may_end_at_any_time_is_waited_for(desk: Desk) -> None:
    full = lease(desk, 1)
    assert isinstance(await claim(desk, "before", desk.terms(limits=(full,))), Run)

    assert isinstance(await desk.claim(desk.waiter(left_s=60.0), desk.terms(limits=(full,))), Later)


async def test_a_provider_that_names_an_instant_is_believed(desk: Desk) -> None:
    await close(desk, "closed-main", for_s=3600.0)

    assert isinstance(await desk.flights.claim("a", desk.waiter("a"), desk.terms()), Late)


async def test_what_an_operator_has_closed_for_good_is_waited_for(desk: Desk) -> None:
    await close(desk, "closed-main", for_s=32_503_680_000.0 - desk.start)

    assert isinstance(await desk.flights.claim("a", desk.waiter("a"), desk.terms()), Later)


async def known_to_last(desk: Desk, seconds: float) -> Mapping[str, Any]:
    """The provider's lease, after a call of so many seconds."""
    held = {**lease(desk, 9), "adapts": desk.key("adapted")}
    await desk.redis.hset(f"{held['key']}|mean", mapping={"n": 1, "mean": seconds})
    return held


@pytest.mark.parametrize("queue", [f"jobs.groq.any.{priority}" for priority in Priority])
async def test_a_permit_that_others_wait_for_is_for_a_call_that_can_end_in_time(
    desk: Desk, queue: str
) -> None:
    held = await known_to_last(desk, 90.0)
    lines = tuple(order_key(desk.flights.prefix, f"jobs.groq.any.{priority}") for priority in Priority)
    hasty, patient = desk.waiter("hasty", left_s=60.0), desk.waiter("patient", left_s=600.0)
    await enter(desk, "a", hasty, "jobs.groq.any.high")
    await enter(desk, "b", patient, queue)

    late = await desk.flights.claim("a", hasty, desk.terms(limits=(held,), lines=lines))

    assert isinstance(late, Late)
    assert late.limit == "time"
    assert isinstance(await desk.flights.claim("b", patient, desk.terms(limits=(held,), lines=lines)), Run)


async def test_who_is_alone_may_be_lucky(desk: Desk) -> None:
    held, hasty = await known_to_last(desk, 90.0), desk.waiter("hasty", left_s=60.0)
    line = order_key(desk.flights.prefix, "jobs.groq.any.high")
    await enter(desk, "a", hasty, "jobs.groq.any.high")

    run = await desk.flights.claim("a", hasty, desk.terms(limits=(held,), lines=(line,)))

    assert isinstance(run, Run)


async def enter(desk: Desk, flight: str, waiter: Waiter, queue: str) -> None:
    """It waits in this line."""
    await desk.flights.admit([Admission(flight, waiter, 0.0, 0.0, (), queue)])
