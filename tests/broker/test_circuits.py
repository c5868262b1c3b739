"""Circuits: what fails several times in a row is left alone, by all workers, and then tried by one call."""

import pytest

from broker.answers import Later, Released, Run
from broker.flights import Result
from tests.broker.test_claim_permits import claim
from tests.broker.test_closing import is_over
from tests.broker.test_flights import Desk, fault, ok

_PROVIDER = "closed-provider"
_BREAKS_AT = 5


async def fail(desk: Desk, *names: str) -> list[Released]:
    """Calls that begin one after the other, and then fail in that order."""
    part = desk.key(_PROVIDER)
    calls = [(name, desk.terms(f"w-{name}", closed=(part,))) for name in names]
    for name, terms in calls:
        assert isinstance(await claim(desk, name, terms), Run)
    return [await desk.flights.release(name, terms.token, failed=part) for name, terms in calls]


async def succeed(desk: Desk, name: str) -> Run:
    part = desk.key(_PROVIDER)
    terms = desk.terms(f"w-{name}", closed=(part,))
    run = await claim(desk, name, terms)
    assert isinstance(run, Run)
    await desk.flights.commit(name, desk.waiter(name), terms.token, desk.start, Result(ok(), parts=(part,)))
    return run


async def asked(desk: Desk, name: str = "next") -> object:
    return await claim(desk, name, desk.terms("another", closed=(desk.key(_PROVIDER),)))


async def test_a_few_failures_close_nothing(desk: Desk) -> None:
    assert not any(released.broke for released in await fail(desk, *"abcd"))

    assert isinstance(await asked(desk), Run)


async def test_several_in_a_row_close_it_for_every_worker(desk: Desk) -> None:
    released = await fail(desk, *"abcdefg")

    assert [one.broke for one in released] == [False] * 4 + [True] + [False] * 2
    later = await asked(desk)
    assert isinstance(later, Later)
    assert later.limit == "circuit"
    assert later.until == pytest.approx(await desk.flights.now() + 1.0, abs=0.5)


async def test_a_result_in_between_begins_the_count_anew(desk: Desk) -> None:
    await fail(desk, *"abcd")
    await succeed(desk, "e")
    await fail(desk, *"fghi")

    assert isinstance(await asked(desk), Run)


async def test_one_call_tries_it_and_each_failure_doubles_the_pause(desk: Desk) -> None:
    await fail(desk, *"abcde")
    pauses = []
    for n in range(7):
        await is_over(desk, _PROVIDER)
        part = desk.key(_PROVIDER)
        terms = desk.terms(f"prober-{n}", closed=(part,))
        run = await claim(desk, f"probe-{n}", terms)
        assert isinstance(run, Run)
        assert run.broken == (part,)
        assert isinstance(await asked(desk), Later)
        assert (await desk.flights.release(f"probe-{n}", terms.token, failed=part)).broke is False
        later = await asked(desk)
        assert isinstance(later, Later)
        pauses.append(later.until - await desk.flights.now())

    assert pauses == pytest.approx([2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0], abs=0.5)


async def test_a_call_that_gets_its_answer_opens_it_for_all(desk: Desk) -> None:
    await fail(desk, *"abcde")
    await is_over(desk, _PROVIDER)

    run = await succeed(desk, "probe")

    assert run.broken == (desk.key(_PROVIDER),)
    assert isinstance(await asked(desk, "one"), Run)
    assert isinstance(await asked(desk, "two"), Run)
    assert not any(released.broke for released in await fail(desk, *"pqrs"))


async def test_an_error_that_ends_a_flight_is_a_failure_too(desk: Desk) -> None:
    part = desk.key(_PROVIDER)
    for n in range(_BREAKS_AT):
        terms = desk.terms(f"w{n}", closed=(part,))
        assert isinstance(await claim(desk, f"f{n}", terms), Run)
        ended = Result(fault(), failed=part)
        await desk.flights.commit(f"f{n}", desk.waiter(f"f{n}"), terms.token, desk.start, ended)

    later = await asked(desk)
    assert isinstance(later, Later)
    assert later.limit == "circuit"


async def test_what_is_closed_at_this_instant_can_be_asked(desk: Desk) -> None:
    parts = [desk.key(_PROVIDER), desk.key("closed-another")]
    assert await desk.flights.are_closed(parts) == [False, False]
    await fail(desk, *"abcde")
    assert await desk.flights.are_closed(parts) == [True, False]

    await is_over(desk, _PROVIDER)
    assert await desk.flights.are_closed(parts) == [False, False]


async def test_an_error_that_ends_a_flight_leaves_what_it_tried_closed(desk: Desk) -> None:
    await fail(desk, *"abcde")
    await is_over(desk, _PROVIDER)
    part = desk.key(_PROVIDER)
    terms = desk.terms("prober", closed=(part,))
    assert isinstance(await claim(desk, "probe", terms), Run)

    ended = Result(fault(), failed=part)
    await desk.flights.commit("probe", desk.waiter("probe"), terms.token, desk.start, ended)

    later = await asked(desk)
    assert isinstance(later, Later)
    assert later.until == pytest.approx(await desk.flights.now() + 2.0, abs=0.5)
