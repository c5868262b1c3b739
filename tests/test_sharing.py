"""Identical requests cost one call, wherever they come from.

The limits of this configuration: 4 client processes with 25 agents each, 5 requests an agent, 2 front and 2
backend processes, one RabbitMQ node, one Redis, all on one machine; the provider takes 40 calls at once.
"""

import asyncio
from collections import Counter
from typing import Any

from sandbox.simulator import Latency, SimulatorProcess
from tests.support.house import House, echo_of
from tests.support.processes import agents_process, worker_processes

WORKERS = (["front"], ["front"], ["backend:simulated"], ["backend:simulated"])


async def fleet_asks(house: House, prompts: list[list[str]]) -> list[dict[str, Any]]:
    """100 agents in 4 processes, each with its prompts, all at once."""
    plans = [
        {
            "agents": [f"agent-{n}" for n in range(start, start + 25)],
            "prompts": prompts[start : start + 25],
            "options": {"timeout": 90, "max_tokens": 20},
        }
        for start in range(0, 100, 25)
    ]
    answers = await asyncio.gather(*(agents_process(house, plan) for plan in plans))
    return [answer for part in answers for answer in part]


async def test_500_identical_requests_at_once_cost_one_call(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    simulator.change(latency=Latency(median_s=1.0).model_dump())
    house, fleet = own_redis, own_redis.simulated(simulator.base_url)
    await house.declare(fleet)

    async with worker_processes(house, house.folder / "fleet.toml", *WORKERS):
        answers = await fleet_asks(house, [["The same for all"] * 5] * 100)

    assert [answer["error"] for answer in answers] == [None] * 500
    assert {answer["text"].split()[0] for answer in answers} == {echo_of("The same for all")}
    assert len({answer["id"] for answer in answers}) == 500
    assert Counter(answer["source"] for answer in answers)["provider"] == 1
    assert [call.outcome for call in simulator.ledger()] == ["ok"]


async def test_500_distinct_requests_at_once_cost_500_calls(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house, fleet = own_redis, own_redis.simulated(simulator.base_url)
    await house.declare(fleet)
    prompts = [[f"Agent {n}, question {k}" for k in range(5)] for n in range(100)]

    async with worker_processes(house, house.folder / "fleet.toml", *WORKERS):
        answers = await fleet_asks(house, prompts)

    assert [answer["error"] for answer in answers] == [None] * 500
    for answer in answers:
        assert answer["text"].split()[0] == echo_of(answer["prompt"])
    assert Counter(answer["source"] for answer in answers) == {"provider": 500}
    ledger = simulator.ledger()
    assert Counter(call.outcome for call in ledger) == {"ok": 500}
    assert {call.request_id for call in ledger} == {answer["id"] for answer in answers}
    assert simulator.summary().max_in_flight <= 40
