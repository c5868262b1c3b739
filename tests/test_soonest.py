"""A request goes to the candidate that starts it sooner, where that is worth it; what waits moves there."""

import asyncio

import pytest

from producer_sdk import BudgetExhausted
from sandbox.simulator import Faults, SimulatorProcess
from tests.support.fleets import provider
from tests.support.house import House
from tests.support.waiting import until

_TWO_A_MINUTE = "limits = [{ requests = 2, window_s = 60 }]\nconcurrency"


async def test_what_would_wait_a_minute_moves_to_a_provider_that_starts_it_now(
    house: House, simulator: SimulatorProcess
) -> None:
    with SimulatorProcess() as spare:
        first = provider("first", simulator, price=0.1).replace("concurrency", _TWO_A_MINUTE, 1)
        fleet = house.fleet(first + provider("spare", spare, price=0.9))
        async with (
            house.workers(fleet, ["front"], ["backend:all"]),
            house.agent() as agent,
            house.events("optimizer.failover") as moved,
        ):
            replies = await asyncio.gather(
                *(agent.chat(f"Prompt {n}", model="sim-small", timeout=600) for n in range(8))
            )
            await until(lambda: bool(moved))

        assert {reply.provider for reply in replies} == {"first", "spare"}
        assert (len(simulator.ledger()), len(spare.ledger())) == (2, 6)
        assert {event.model_dump()["why"] for event in moved} == {"sooner"}


async def test_a_short_wait_is_no_reason_to_pay_more(house: House, simulator: SimulatorProcess) -> None:
    with SimulatorProcess() as spare:
        first = provider("first", simulator, price=0.1).replace(
            "concurrency", "limits = [{ requests = 2, window_s = 2 }]\nconcurrency", 1
        )
        fleet = house.fleet(first + provider("spare", spare, price=0.9))
        async with house.workers(fleet, ["front"], ["backend:all"]), house.agent() as agent:
            replies = await asyncio.gather(
                *(agent.chat(f"Prompt {n}", model="sim-small", timeout=600) for n in range(4))
            )

    assert {reply.provider for reply in replies} == {"first"}
    assert len(simulator.ledger()) == 4


async def test_who_would_wait_past_its_deadline_goes_back_to_a_provider_that_can_answer(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(faults=Faults(server_error=1.0).model_dump())
    with SimulatorProcess() as spare:
        once = "limits = [{ requests = 1, window_s = 3600 }]\nconcurrency"
        first = provider("first", simulator, price=0.1)
        fleet = house.fleet(first + provider("spare", spare, price=0.9).replace("concurrency", once, 1))
        async with (
            house.workers(fleet, ["front"], ["backend:all"]),
            house.agent() as agent,
            house.events("optimizer.failover") as moved,
        ):
            await agent.chat("All that the spare one takes", model="spare/sim-small", timeout=60)
            asked = asyncio.create_task(agent.chat("Fails at first", model="sim-small", timeout=60))
            await until(lambda: bool(moved))
            simulator.change(faults=Faults().model_dump())
            reply = await asked

        assert reply.provider == "first"
        assert len(spare.ledger()) == 1


async def test_what_no_budget_allows_in_time_is_told_at_once_and_not_sent_to_and_fro(
    house: House, simulator: SimulatorProcess
) -> None:
    with SimulatorProcess() as spare:
        budget = "[budgets]\nusd_per_day = 0.05\n"
        providers = provider("first", simulator, price=0.1) + provider("spare", spare, price=0.1)
        async with (
            house.workers(house.fleet(budget + providers), ["front"], ["backend:all"]),
            house.agent() as agent,
            house.events("optimizer.failover") as moved,
        ):
            await agent.chat("Costs little in the end", model="sim-small", max_tokens=1_000_000, timeout=60)
            with pytest.raises(BudgetExhausted) as refused:
                await agent.chat("May cost too much", model="sim-small", max_tokens=1_000_000, timeout=60)

        assert "budget" in str(refused.value)
        assert len(moved) <= 1
