"""Whose turn it is at a limit for which requests of several classes wait, at whichever replica."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from broker.answers import Claimed, Later, Run
from broker.scripting import pack
from broker.terms import ClaimTerms
from tests.broker.test_flights import Desk
from tests.model.lua import LuaScripts, sources

HIGH, NORMAL, BATCH = 0, 1, 2
SHARES: Final = (8.0, 3.0, 1.0)
WINDOW_S: Final = 1.0


def one_in(window_s: float, key: str) -> Mapping[str, Any]:
    return {
        "kind": "sliding", "key": key, "amount": 1, "window_s": window_s, "slack_s": 0.0,
        "unit": "requests", "cost": 1.0, "name": "r",
    }  # fmt: skip


def limit(desk: Desk, **changes: Any) -> Mapping[str, Any]:
    return {**one_in(3600.0, desk.key("rate:r")), **changes}


def terms(desk: Desk, rank: int, seat: str, *limits: Mapping[str, Any]) -> ClaimTerms:
    return desk.terms(limits=limits, rank=rank, seat=seat, shares=SHARES, worker=seat)


async def ask(desk: Desk, name: str, asked: ClaimTerms) -> Claimed:
    """Each time under a token of its own."""
    return await desk.flights.claim(
        name, desk.waiter(name, left_s=1e5), replace(asked, token=f"{name}-{asked.token}")
    )


async def give_back(desk: Desk, name: str, granted: ClaimTerms) -> None:
    await desk.flights.release(name, f"{name}-{granted.token}", sent=False)


async def test_a_free_permit_goes_to_the_more_urgent_class_that_waits_elsewhere(desk: Desk) -> None:
    held, low = (terms(desk, BATCH, "w1", limit(desk)) for _ in range(2))
    high = terms(desk, HIGH, "w2", limit(desk))
    assert isinstance(await ask(desk, "a", held), Run)
    assert isinstance(await ask(desk, "b", low), Later)
    assert isinstance(await ask(desk, "c", high), Later)
    await give_back(desk, "a", held)

    refused = await ask(desk, "b", low)

    assert isinstance(refused, Later)
    assert refused.limit == "turn"
    assert isinstance(await ask(desk, "c", high), Run)


@pytest.mark.parametrize("more", [True, False])
async def test_a_class_with_more_waiting_keeps_its_place_when_one_of_it_goes(desk: Desk, more: bool) -> None:
    two = limit(desk, amount=2)
    held, low = (terms(desk, BATCH, "w1", two) for _ in range(2))
    high = replace(terms(desk, HIGH, "w2", two), more=more)
    for name in "ab":
        assert isinstance(await ask(desk, name, held), Run)
    assert isinstance(await ask(desk, "c", low), Later)
    assert isinstance(await ask(desk, "d", high), Later)
    await give_back(desk, "a", held)
    assert isinstance(await ask(desk, "d", high), Run)
    await give_back(desk, "b", held)

    assert isinstance(await ask(desk, "c", low), Run)  # after eight of those it would be its turn again
    await give_back(desk, "c", low)

    next_ = await ask(desk, "e", low)

    assert isinstance(next_, Later if more else Run)


async def test_who_does_not_come_for_its_permit_is_waited_for_no_longer(desk: Desk) -> None:
    held, low = (terms(desk, BATCH, "w1", limit(desk, window_s=0.2)) for _ in range(2))
    assert isinstance(await ask(desk, "a", held), Run)
    high = await ask(desk, "c", terms(desk, HIGH, "w2", limit(desk, window_s=0.2)))
    assert isinstance(high, Later)  # and its worker dies

    tries = 0
    while isinstance(refused := await ask(desk, "b", low), Later):
        tries += 1
        await asyncio.sleep(max(0.0, refused.until - await desk.flights.now()))

    assert isinstance(refused, Run)
    assert 2 <= tries < 30


async def test_another_limit_has_turns_of_its_own(desk: Desk) -> None:
    other = limit(desk, key=desk.key("rate:other"))
    assert isinstance(await ask(desk, "a", terms(desk, HIGH, "w1", limit(desk))), Run)
    assert isinstance(await ask(desk, "b", terms(desk, HIGH, "w1", limit(desk))), Later)

    assert isinstance(await ask(desk, "c", terms(desk, BATCH, "w2", other)), Run)


async def test_an_account_where_another_class_goes_first_is_passed_over(desk: Desk) -> None:
    first, second = (desk.account(name, limit(desk, key=desk.key(f"rate:{name}"))) for name in "xy")
    held = desk.terms(accounts=(first,), rank=BATCH, shares=SHARES, seat="w1")
    high = desk.terms(accounts=(first,), rank=HIGH, shares=SHARES, seat="w2")
    low = desk.terms(accounts=(first, second), rank=BATCH, shares=SHARES, seat="w3")
    assert isinstance(await ask(desk, "a", held), Run)
    assert isinstance(await ask(desk, "b", high), Later)
    await give_back(desk, "a", held)

    granted = await ask(desk, "c", low)

    assert isinstance(granted, Run)
    assert granted.account == "y"


class Line:
    """Requests of one class at one replica: it asks, and comes back when it was told to."""

    def __init__(self, rank: int, seat: str) -> None:
        self.rank, self.seat, self.at = rank, seat, 0.0


@pytest.mark.parametrize("waiting", [(HIGH, NORMAL, BATCH), (HIGH, BATCH), (NORMAL, BATCH)])
def test_classes_that_all_wait_get_their_shares_however_many_replicas_each_waits_at(
    waiting: tuple[int, ...],
) -> None:
    scripts, granted = LuaScripts(sources()), Counter[int]()
    replicas = {HIGH: 1, NORMAL: 3, BATCH: 12}
    lines = [Line(rank, f"w{n}") for rank in waiting for n in range(replicas[rank])]
    account = {"name": "main", "limits": [], "keys": [{"closed": []}], "closed": []}
    turns = 240
    while granted.total() < turns:
        line = min(lines, key=lambda one: one.at)
        scripts.now = max(scripts.now, line.at, 1.0)
        number = granted.total()
        arguments = {
            "key": f"a/{number}", "waiter": pack({"deadline": 1e9}), "deadline": 1e9, "worker": line.seat,
            "token": f"t{number}", "lease_s": 15.0, "max_spends": 2, "call": pack({}), "closed": [],
            "permit_key": f"permit:{number}", "paused": [], "accounts": [account], "used_key": "used",
            "rotation": "least_used", "notes_key": "", "limits": [one_in(WINDOW_S, "rate")],
            "rank": line.rank, "shares": SHARES, "seat": line.seat, "budgets": [], "own_budgets": [],
            "lines": [], "retries": {},
        }  # fmt: skip
        answer = scripts.evaluate("claim", f"f{number}", pack(arguments))
        scripts.frozen = tuple(entry for entry in scripts.frozen if entry[0].startswith("rate"))
        if answer[0] == b"run":
            granted[line.rank] += 1
        else:
            line.at = float(answer[1]) + 0.001

    whole = sum(SHARES[rank] for rank in waiting)
    for rank in waiting:
        assert granted[rank] == pytest.approx(turns * SHARES[rank] / whole, rel=0.15)
