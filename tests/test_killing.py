"""A worker dies in the middle of its work. These are the first kills; a long run of them is to come."""

import asyncio
import signal

from sandbox.simulator import Latency, SimulatorProcess
from tests.support.house import House
from tests.support.processes import start_worker, worker_processes
from tests.support.waiting import until


async def test_a_backend_killed_during_a_call_costs_one_more_call_which_is_reported(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    simulator.change(latency=Latency(median_s=20.0).model_dump())
    await house.declare(house.simulated(simulator.base_url))
    config = house.folder / "fleet.toml"

    async with (
        worker_processes(house, config, ["front"]),
        house.events("optimizer.spend.#") as events,
        house.agent() as optimizer,
    ):
        victim = await start_worker(house, config, "backend:simulated")
        asked = [asyncio.create_task(optimizer.chat("The same", timeout=90)) for _ in range(5)]
        await until(lambda: len(simulator.ledger()) == 1)
        victim.signal(signal.SIGKILL)
        await victim.ended()
        simulator.change(latency=Latency(median_s=0.05).model_dump())
        async with worker_processes(house, config, ["backend:simulated"]):
            replies = await asyncio.gather(*asked)
            await until(lambda: bool(events))

    assert len({reply.text for reply in replies}) == 1
    assert sorted(reply.source or "" for reply in replies) == ["dedupe"] * 4 + ["provider"]
    assert len(simulator.ledger()) == 2
    assert [event.type for event in events] == ["optimizer.spend.doubtful"]


async def test_a_front_killed_under_load_loses_nothing_and_buys_nothing_twice(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    await house.declare(house.simulated(simulator.base_url))
    config = house.folder / "fleet.toml"

    async with worker_processes(house, config, ["backend:simulated"]), house.agent() as optimizer:
        victim = await start_worker(house, config, "front")
        asked = asyncio.gather(*(optimizer.chat(f"Prompt {n}", timeout=90) for n in range(300)))
        await until(lambda: len(simulator.ledger()) >= 20)
        victim.signal(signal.SIGKILL)
        await victim.ended()
        async with worker_processes(house, config, ["front"]):
            replies = await asked

    assert {reply.status for reply in replies} == {"ok"}
    assert [call.outcome for call in simulator.ledger()] == ["ok"] * 300
