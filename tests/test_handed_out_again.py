"""A job that is handed out again to the worker that has it, between its call's end and what follows."""

import asyncio

import pytest

from sandbox.simulator import SimulatorProcess
from tests.support.connections import close_connections
from tests.support.house import House, echo_of
from tests.support.waiting import until
from workers.claims import Claims
from workers.execution import Execution


async def test_a_durable_request_is_answered_though_its_failed_job_could_not_be_moved(
    own_redis: House, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks again for it, and what its worker has is all there is of it."""
    house = own_redis
    commit, wait_for_own = Claims.commit, Execution._wait_for_own
    failed, copies, go_on = asyncio.Event(), list[bool](), asyncio.Event()

    async def slow(claims: Claims, *arguments: object) -> object:
        failed.set()
        await go_on.wait()
        return await commit(claims, *arguments)  # type: ignore[arg-type]

    async def waiting(execution: Execution, *arguments: object) -> object:
        copies.append(True)
        return await wait_for_own(execution, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Claims, "commit", slow)
    monkeypatch.setattr(Execution, "_wait_for_own", waiting)
    simulator.change(faults={"server_error": 1.0})

    async with house.workers(house.simulated(simulator.base_url)), house.agent() as optimizer:
        job = await optimizer.submit("Hello")
        await failed.wait()
        simulator.change(faults={"server_error": 0.0})
        await close_connections(house, "backend")
        await until(lambda: bool(copies))
        go_on.set()
        reply = await optimizer.result(job, timeout=60)

    assert reply.text[: len(echo_of("Hello"))] == echo_of("Hello")
