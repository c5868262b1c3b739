"""Who waits for a call to end looks for its slot now and then, and not without a pause."""

import asyncio
from typing import Any

import pytest

from broker.flights import Flights
from sandbox.simulator import SimulatorProcess
from tests.support.fleets import provider
from tests.support.house import House


async def test_a_refusal_is_no_reason_to_look_again_at_once(
    house: House, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model takes one call at once, its provider more: the worker has slots to spare, and no permit."""
    claim, looks = Flights.claim, list[bool]()

    async def counted(flights: Flights, *arguments: Any) -> Any:
        looks.append(True)
        return await claim(flights, *arguments)

    monkeypatch.setattr(Flights, "claim", counted)
    simulator.change(latency={"median_s": 1.0})
    one_call = provider("first", simulator).replace('"sim-small"', '"sim-small"\nconcurrency = 1')

    async with house.workers(house.fleet(one_call)), house.agent() as agent:
        await asyncio.gather(*(agent.chat(f"Prompt {n}", model="sim-small") for n in range(3)))

    assert len(looks) < 60  # one in 0.2 s while the calls before it last
