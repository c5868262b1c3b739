import httpx

from sandbox.simulator import SimulatorProcess
from tests.support.gateways import gateway_here
from tests.support.house import House
from tests.support.waiting import until
from topology.fleet import Fleet
from topology.loading import ConfigurationError

SECOND = '[[providers.simulated.models]]\nid = "sim-second"\n'


async def listed(base_url: str) -> list[str]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{base_url}/models")
    return [model["id"] for model in answer.json()["data"]]


async def test_the_list_of_models_follows_what_the_workers_have_read(
    house: House, simulator: SimulatorProcess
) -> None:
    before = house.simulated(simulator.base_url)
    after = house.simulated(simulator.base_url, provider=SECOND)

    async with house.workers(after), gateway_here(house, before, load=lambda: after) as base_url:

        async def has_the_second() -> bool:
            return "simulated/sim-second" in await listed(base_url)

        await until(has_the_second)


async def test_a_file_at_fault_leaves_the_list_as_it_was(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)
    asked = []

    def load() -> Fleet:
        asked.append(1)
        raise ConfigurationError("fleet.toml: no TOML")

    async with house.workers(fleet), gateway_here(house, fleet, load=load) as base_url:
        await until(lambda: bool(asked))
        models = await listed(base_url)

    assert models == ["auto", "simulated/sim-small"]
