"""How many calls an overloaded provider is given at once."""

from collections.abc import Mapping, Sequence
from typing import Any

from broker.answers import Later
from broker.flights import Result
from broker.terms import ClaimTerms
from tests.broker.test_flights import Desk, ok


def lease(desk: Desk, amount: int) -> Mapping[str, Any]:
    return {
        "kind": "lease",
        "key": desk.key("lease:groq"),
        "amount": amount,
        "name": "groq",
        "adapts": desk.key("adapted:groq"),
    }


async def at_once(desk: Desk, amount: int, named: str) -> list[tuple[str, ClaimTerms]]:
    """Begins as many calls as are granted."""
    running: list[tuple[str, ClaimTerms]] = []
    while True:
        name = f"{named}{len(running)}"
        terms = desk.terms(limits=(lease(desk, amount),))
        if isinstance(await desk.flights.claim(name, desk.waiter(name), terms), Later):
            return running
        running.append((name, terms))


async def succeed(desk: Desk, calls: Sequence[tuple[str, ClaimTerms]]) -> None:
    for name, terms in calls:
        await desk.flights.commit(name, desk.waiter(name), terms.token, desk.start, Result(ok()))


async def test_an_overloaded_provider_gets_a_third_less_once_for_all_that_was_under_way(desk: Desk) -> None:
    running = await at_once(desk, 10, "a")
    assert len(running) == 10

    for name, terms in running:
        await desk.flights.release(name, terms.token, overloaded=True)

    assert len(await at_once(desk, 10, "b")) == 7


async def test_each_full_round_that_goes_well_allows_one_call_more_up_to_what_is_configured(
    desk: Desk,
) -> None:
    [*others, (name, terms)] = await at_once(desk, 4, "a")
    await desk.flights.release(name, terms.token, overloaded=True)
    await succeed(desk, others)

    rounds = []
    for n in range(4):
        running = await at_once(desk, 4, f"b{n}-")
        rounds.append(len(running))
        await succeed(desk, running)

    assert rounds[0] == 2
    assert rounds == sorted(rounds)
    assert rounds[-1] == 4


async def test_an_overload_never_shuts_a_provider(desk: Desk) -> None:
    for n in range(8):
        running = await at_once(desk, 2, f"a{n}-")
        for name, terms in running:
            await desk.flights.release(name, terms.token, overloaded=True)

    assert len(await at_once(desk, 2, "b")) == 1
