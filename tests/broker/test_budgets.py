"""What agents and the fleet may spend: nothing beyond it starts, and nobody else is held up."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from broker.answers import Late, Later, Lead, Over, Run, Wait
from broker.budgets import Budgets, is_budget
from broker.flights import Admission
from broker.spending import spendings
from tests.broker.test_claim_permits import claim, end
from tests.broker.test_flights import Desk
from tests.test_budgets import resets_at
from topology.fleet import Fleet
from topology.sections import Budget, BudgetsSection

_NOON = 1_800_057_600.0 - 43_200.0  # 2027-01-15
_MIDNIGHT_MONTH = 1_798_761_600.0  # 2027-01-01


def budgets(desk: Desk, **section: Any) -> Budgets:
    return Budgets(BudgetsSection(day_resets_at=resets_at(), **section), desk.flights.prefix)


def fleets(desk: Desk, usd: float, cost_usd: float) -> Mapping[str, Any]:
    return {"budgets": budgets(desk, usd_per_day=usd).of_fleet(cost_usd, desk.start)}


def own(desk: Desk, usd: float, cost_usd: float, agent: str = "quality") -> Mapping[str, Any]:
    section = budgets(desk, agent_usd_per_day=usd)
    return {"own_budgets": section.of_agent(agent, cost_usd, desk.start)}


def test_a_budget_is_a_window_of_its_own() -> None:
    section = BudgetsSection(usd_per_day=5, usd_per_month=100, day_resets_at="06:00 UTC")

    day, month = Budgets(section, "").of_fleet(0.25, _NOON)

    assert (day["amount"], day["cost"], day["window_s"], day["offset_s"]) == (5, 0.25, 86_400, 21_600)
    assert (month["amount"], month["window_s"], month["offset_s"]) == (100, 31 * 86_400, _MIDNIGHT_MONTH)
    assert is_budget(day["name"])


def test_an_agent_that_is_named_has_its_own_budget_in_place_of_everybodys() -> None:
    section = BudgetsSection(agent_usd_per_day=1, agents={"crawler": Budget(usd_per_month=7)})

    assert [limit["amount"] for limit in Budgets(section, "").of_agent("writer", 0, _NOON)] == [1]
    assert [limit["amount"] for limit in Budgets(section, "").of_agent("crawler", 0, _NOON)] == [7]


def test_an_agent_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no agent's name"):
        BudgetsSection(agents={"Crawler One": Budget()})


async def test_nothing_starts_beyond_what_all_may_spend(desk: Desk) -> None:
    started = [await claim(desk, f"f{n}", desk.terms(**fleets(desk, 1.0, 0.4))) for n in range(3)]

    assert [type(one) for one in started] == [Run, Run, Later]


async def test_the_price_replaces_what_a_call_was_expected_to_cost(desk: Desk) -> None:
    first = desk.terms(**fleets(desk, 1.0, 0.6))
    assert isinstance(await claim(desk, "a", first), Run)
    assert isinstance(await claim(desk, "b", desk.terms(**fleets(desk, 1.0, 0.6))), Later)

    await end(desk, "a", first, usd=0.1)

    assert isinstance(await claim(desk, "b", desk.terms(**fleets(desk, 1.0, 0.6))), Run)


async def test_what_one_agent_has_spent_holds_up_no_other(desk: Desk) -> None:
    assert isinstance(await claim(desk, "a", desk.terms(**own(desk, 1.0, 0.9))), Run)

    over = await claim(desk, "b", desk.terms(**own(desk, 1.0, 0.9)))
    other = await claim(desk, "c", desk.terms(**own(desk, 1.0, 0.9, "writer")))

    assert isinstance(over, Over)
    assert over.until > desk.start
    assert isinstance(other, Run)


async def test_a_call_that_costs_nothing_is_held_up_by_no_budget(desk: Desk) -> None:
    assert isinstance(await claim(desk, "a", desk.terms(**own(desk, 1.0, 1.0))), Run)

    assert isinstance(await claim(desk, "b", desk.terms(**own(desk, 1.0, 0.0))), Run)


async def test_who_cannot_wait_for_the_next_day_is_told_at_once(desk: Desk) -> None:
    assert isinstance(await claim(desk, "a", desk.terms(**own(desk, 1.0, 1.0))), Run)

    late = await desk.flights.claim("b", desk.waiter("b", left_s=60.0), desk.terms(**own(desk, 1.0, 0.9)))

    assert isinstance(late, Late)
    assert is_budget(late.limit)


async def admit(desk: Desk, name: str, left_s: float, limits: tuple[Mapping[str, Any], ...]) -> Any:
    waiter = desk.waiter(name, left_s=left_s)
    admission = Admission(name, waiter, 600.0, 600.0, queue="jobs.groq.any.normal")
    return (await desk.flights.admit([replace(admission, budgets=limits)]))[0]


async def test_who_has_nothing_left_waits_at_the_entrance_or_is_told_there(desk: Desk) -> None:
    entrance = budgets(desk, agent_usd_per_day=1.0).at_entrance("quality", desk.start)
    assert isinstance(await admit(desk, "a", 60.0, entrance), Lead)
    assert isinstance(await claim(desk, "a", desk.terms(**own(desk, 1.0, 1.0))), Run)

    patient, hasty = await admit(desk, "b", 90_000.0, entrance), await admit(desk, "c", 1.0, entrance)

    assert isinstance(patient, Wait)
    assert patient.booked
    assert isinstance(hasty, Wait)
    assert not hasty.booked


async def test_what_all_have_spent_is_waited_for_in_line(desk: Desk) -> None:
    entrance = budgets(desk, usd_per_day=1.0).at_entrance("quality", desk.start)
    assert isinstance(await claim(desk, "a", desk.terms(**fleets(desk, 1.0, 1.0))), Run)

    assert isinstance(await admit(desk, "b", 90_000.0, entrance), Lead)
    hasty = await admit(desk, "c", 1.0, entrance)

    assert isinstance(hasty, Wait)
    assert not hasty.booked


async def test_what_is_spent_can_be_looked_at(desk: Desk) -> None:
    section = BudgetsSection(usd_per_day=10, agent_usd_per_day=1)
    build = Budgets(section, desk.flights.prefix)
    terms = desk.terms(
        budgets=build.of_fleet(0.25, desk.start), own_budgets=build.of_agent("crawler", 0.25, desk.start)
    )
    assert isinstance(await claim(desk, "a", terms), Run)

    prefix = desk.flights.prefix.removesuffix("o1:")
    found = await spendings(desk.redis, Fleet(budgets=section), prefix)

    assert [(one.agent, one.window, one.usd, one.spent_usd) for one in found] == [
        (None, "day", 10, 0.25),
        ("crawler", "day", 1, 0.25),
    ]
    assert all(desk.start < one.resets_at <= desk.start + 86_400 for one in found)
