"""An agent spends its budget and no more; what it has spent is nobody else's trouble."""

import time

import pytest

from producer_sdk import AsyncOptimizer
from producer_sdk.errors import BudgetExhausted
from sandbox.simulator import SimulatorProcess
from tests.support.fleets import provider
from tests.support.house import House

_BUDGET_USD = 0.2
_PRICE = 1000.0
_MOST_TOKENS = 20


def resets_at() -> str:
    """Far from now: near a day's end a call counts in both days."""
    return f"{(time.gmtime().tm_hour + 12) % 24:02}:00 UTC"


async def spend(agent: AsyncOptimizer) -> tuple[float, BudgetExhausted]:
    """Asks until nothing is left; what was paid, and the error."""
    paid = 0.0
    for n in range(100):
        try:
            reply = await agent.chat(f"Prompt {n}", max_tokens=_MOST_TOKENS, timeout=60)
        except BudgetExhausted as error:
            return paid, error
        paid += reply.cost_usd or 0.0
    raise AssertionError("it never ends")


async def test_an_agent_spends_its_budget_and_no_more(house: House, simulator: SimulatorProcess) -> None:
    section = f'[budgets]\nagent_usd_per_day = {_BUDGET_USD}\nday_resets_at = "{resets_at()}"\n'
    fleet = house.fleet(section + provider("simulated", simulator, price=_PRICE))

    async with house.workers(fleet), house.agent("spender") as spender, house.agent("other") as other:
        paid, error = await spend(spender)
        calls = len(simulator.ledger())
        with pytest.raises(BudgetExhausted):
            await spender.chat("Once more", max_tokens=_MOST_TOKENS, timeout=60)
        kept = await spender.chat("Prompt 0", max_tokens=_MOST_TOKENS, timeout=60)  # what is stored is free
        reply = await other.chat("Of somebody else", max_tokens=_MOST_TOKENS, timeout=60)

    one_call_usd = (_MOST_TOKENS + 20) * _PRICE / 1e6
    assert _BUDGET_USD - one_call_usd <= paid <= _BUDGET_USD
    assert f"budget of agent spender, {_BUDGET_USD:g} USD a day" in str(error)
    assert kept.source == "cache"
    assert reply.status == "ok"
    assert len(simulator.ledger()) == calls + 1
