from collections.abc import Iterator

import httpx
import pytest

from sandbox.simulator import SimulatorProcess


@pytest.fixture
def simulator(request: pytest.FixtureRequest, simulator_process: SimulatorProcess) -> SimulatorProcess:
    """The simulator as the module's SETTINGS want it, with an empty ledger."""
    simulator_process.change(**request.module.SETTINGS.model_dump(mode="json"))
    simulator_process.reset()
    return simulator_process


@pytest.fixture
def client(request: pytest.FixtureRequest, simulator: SimulatorProcess) -> Iterator[httpx.Client]:
    """A client with the module's KEY."""
    with connect(simulator, getattr(request.module, "KEY", "any")) as client:
        yield client


def connect(simulator: SimulatorProcess, key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=simulator.base_url, headers=headers, trust_env=False)
