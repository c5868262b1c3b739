from collections.abc import AsyncIterator

import pytest

from tests.support.clients import DRIVERS, Client, Driver, open_client
from tests.support.house import House


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    """The library that carries the calls: each test that asks for it runs with both."""
    found: Driver = request.param
    return found


@pytest.fixture
async def declared(house: House) -> House:
    """A house with its queues, and nobody who answers."""
    await house.declare(house.simulated("http://127.0.0.1:1/v1"))
    return house


@pytest.fixture
async def client(driver: Driver, declared: House) -> AsyncIterator[Client]:
    async with open_client(driver, declared.amqp_url) as client:
        yield client
