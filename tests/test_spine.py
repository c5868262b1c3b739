"""The main job: agents, RabbitMQ, Redis, a provider's pool, replies and events."""

import pytest

from sandbox.simulator import SimulatorProcess
from tests.support.house import House, echo_of


async def test_an_agent_gets_the_providers_answer(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.agent() as optimizer:
        reply = await optimizer.chat("What is a lease?", max_tokens=20)

    assert reply.text.startswith(echo_of("What is a lease?"))
    assert (reply.source, reply.provider, reply.model) == ("provider", "simulated", "sim-small")
    [call] = simulator.ledger()
    assert call.request_id == reply.id
    assert reply.cost_usd == pytest.approx(call.cost_usd)
