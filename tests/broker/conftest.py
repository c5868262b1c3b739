from collections.abc import AsyncIterator

import pytest

from sandbox.nodes import Brokers
from tests.broker.test_flights import Desk, open_desk


@pytest.fixture
async def desk(brokers: Brokers) -> AsyncIterator[Desk]:
    async with open_desk(brokers) as desk:
        yield desk
