"""`optimizer cancel`: an operator calls a request off, and its caller is told."""

import pytest

from producer_sdk.errors import Cancelled
from sandbox.simulator import SimulatorProcess
from tests.support.commands import optimizer as command
from tests.support.house import House
from tests.support.waiting import until
from tests.test_cancelling import BACKEND, FRONT, ask, called_off, ended, queued, slow


async def test_an_operator_calls_a_waiting_request_off_and_its_caller_is_told(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet, FRONT), house.agent() as agent, house.events() as seen:
        asked = ask(agent, "r1")
        await queued(house)
        elsewhere = await command(house, "cancel", "r1", "--agent", "somebody-else")
        done = await command(house, "cancel", "r1")
        error = await ended(asked)
        again = await command(house, "cancel", "r1")
        await called_off(seen, "r1")
        async with house.workers(fleet, BACKEND):
            await queued(house, 0)
            await agent.chat("Another", timeout=90)

    assert (elsewhere.exit_code, done.exit_code, again.exit_code) == (1, 0, 1)
    assert done.stdout == "tester/r1: called off\n"
    assert "no request waits under the id 'r1'" in again.stderr
    assert isinstance(error, Cancelled)
    assert error.message == "called off by an operator"
    assert len(simulator.ledger()) == 1


async def test_an_operator_ends_a_running_call_that_nobody_else_waits_for(
    own_redis: House, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.claimed_calls.RENEW_EVERY_S", 3600.0)
    slow(simulator, 600.0)
    house = own_redis
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet, FRONT, BACKEND), house.agent() as agent:
        asked = ask(agent, "r1")
        await until(lambda: len(simulator.ledger()) == 1)
        done = await command(house, "cancel", "r1")
        await ended(asked)
        await until(lambda: simulator.ledger()[0].outcome == "client_gone")

    assert "nobody else waits for the call that runs, and it is cut" in done.stdout
