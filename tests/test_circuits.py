"""A provider dies: its jobs go elsewhere, it is left alone, and it comes back when it heals."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from producer_sdk import AsyncOptimizer
from sandbox.simulator import Faults, Latency, SimulatorProcess
from tests.support.fleets import provider
from tests.support.house import House
from tests.support.waiting import until
from topology.fleet import Fleet

_TIMEOUT_S = 1.0


@pytest.fixture
def spare() -> Iterator[SimulatorProcess]:
    """Another provider, dearer than the first."""
    with SimulatorProcess() as process:
        yield process


@pytest.fixture
def fleet(house: House, simulator: SimulatorProcess, spare: SimulatorProcess) -> Fleet:
    first = provider("first", simulator, price=0.1)
    timeout = f"timeout_s = {_TIMEOUT_S}\nconcurrency"
    return house.fleet(first.replace("concurrency", timeout, 1) + provider("spare", spare, price=0.9))


@pytest.fixture
async def optimizer(house: House, fleet: Fleet) -> AsyncIterator[AsyncOptimizer]:
    roles = (["front"], ["backend:all"], ["backend:all"])
    async with house.workers(fleet, *roles), house.agent() as optimizer:
        yield optimizer


async def ask(optimizer: AsyncOptimizer, name: str, count: int) -> list[str | None]:
    asked = [optimizer.chat(f"{name} {n}", request_id=f"{name}-{n}", timeout=90) for n in range(count)]
    return [reply.provider for reply in await asyncio.gather(*asked)]


def calls(simulator: SimulatorProcess, name: str) -> Counter[str]:
    ids = [call.request_id or "" for call in simulator.ledger()]
    return Counter(one for one in ids if one.startswith(name))


@pytest.mark.parametrize("fault", ["server_error", "cut", "timeout"])
async def test_a_dead_provider_is_left_alone_and_nobody_sees_an_error(
    house: House,
    simulator: SimulatorProcess,
    spare: SimulatorProcess,
    optimizer: AsyncOptimizer,
    fault: str,
) -> None:
    assert set(await ask(optimizer, "before", 10)) == {"first"}

    async with house.events("optimizer.circuit.#") as events:
        simulator.change(faults=Faults(**{fault: 1.0}).model_dump())
        assert set(await ask(optimizer, "during", 40)) == {"spare"}
        during = calls(simulator, "during")
        assert max(during.values()) == 1
        assert await ask(optimizer, "later", 40) == ["spare"] * 40
        assert calls(simulator, "later").total() <= 8

        simulator.change(faults=Faults().model_dump())
        await until(lambda: comes_back(optimizer), timeout_s=90)
        await until(lambda: len(events) >= 2)

    kinds = [event.type for event in events]
    assert kinds[0] == "optimizer.circuit.opened"
    assert kinds[-1] == "optimizer.circuit.closed"
    assert {event.model_dump()["provider"] for event in events} == {"first"}


_again = iter(range(10_000))


async def comes_back(optimizer: AsyncOptimizer) -> bool:
    return await ask(optimizer, f"again-{next(_again)}", 1) == ["first"]


async def test_what_waited_there_goes_elsewhere_too(
    simulator: SimulatorProcess, spare: SimulatorProcess, optimizer: AsyncOptimizer
) -> None:
    """More than may be in flight at once: most are still in its queue when it dies."""
    simulator.change(latency=Latency(median_s=0.3).model_dump())
    asked = asyncio.create_task(ask(optimizer, "waits", 120))
    await until(lambda: len(simulator.ledger()) >= 8)
    simulator.change(faults=Faults(server_error=1.0).model_dump())

    providers = Counter(await asked)

    assert providers.total() == 120
    assert providers["spare"] >= 90
    assert calls(simulator, "waits").total() <= 60


async def test_one_that_refuses_connections_comes_back_when_it_is_there_again(
    house: House, spare: SimulatorProcess
) -> None:
    with SimulatorProcess() as first:
        port = httpx.URL(first.base_url).port or 0
        fleet = house.fleet(provider("first", first, price=0.1) + provider("spare", spare, price=0.9))
    async with house.workers(fleet), house.agent() as optimizer:
        assert set(await ask(optimizer, "during", 30)) == {"spare"}

        with SimulatorProcess(port=port):
            await until(lambda: comes_back(optimizer), timeout_s=90)
