"""A house with workers that can be told to die, an agent that asks, and the account at the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aio_pika

from producer_sdk import AsyncOptimizer, Reply
from sandbox.simulator import Latency, SimulatorProcess
from sandbox.simulator.ledger import Entry
from tests.faults.nursery import FaultyWorker, Nursery, nursery
from tests.support.house import House
from tests.support.resting import at_rest, unrest
from tests.support.waiting import until
from topology import names
from topology.events import EventType
from topology.messages import Event

LEASE_S: Final = 2.0
"""Of the workers that are to die with a claim; whoever comes after them waits for its end."""
POOL: Final = "backend:simulated"
JOBS: Final = names.jobs_queue("simulated", names.ANY_LANE, names.Priority.NORMAL)
REQUESTS: Final = names.requests_queue(names.Priority.NORMAL)
_FENCE: Final = "optimizer.test.fence"
_REST_S: Final = 30.0
_PROVIDER: Final = """
[providers.simulated]
base_url = "{base_url}"
api_keys = ["env:SIMULATED_KEY"]
concurrency = {concurrency}
timeout_s = {timeout_s}
[[providers.simulated.models]]
id = "sim-small"
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.60
"""


@dataclass
class Scene:
    """What a test of one death needs.

    Attributes:
        optimizer: The agent that asks, unless the test has others.
        events: All events from the start.
    """

    house: House
    simulator: SimulatorProcess
    nursery: Nursery
    optimizer: AsyncOptimizer
    events: list[Event]

    def ask(self, prompt: str, timeout: float = 30.0, **options: Any) -> "asyncio.Task[Reply]":
        """Asks in a task of its own."""
        return asyncio.create_task(self.optimizer.chat(prompt, timeout=timeout, **options))

    async def dies_at(self, worker: FaultyWorker) -> None:
        """Waits until the worker has come to its point, and is gone."""
        await worker.fired()
        await worker.ended()

    async def dies_in_call(self, worker: FaultyWorker, bought: int) -> None:
        """As `dies_at` for `backend.in_call` with `do="stop"`: more than `bought` calls are made by then."""
        await worker.fired()
        await until(lambda: len(self.calls()) > bought)
        worker.kill()
        await worker.ended()

    def calls(self) -> list[Entry]:
        """The provider's ledger: what was bought, whatever anybody else believes."""
        return self.simulator.ledger()

    def of(self, type_: EventType) -> list[Event]:
        """The events of one type, each once: a redelivered job may tell of the same again."""
        return list({event.id: event for event in self.events if event.type == type_}.values())

    def beats(self, role: str) -> list[Event]:
        """The heartbeats of workers with this role."""
        of_all = (event for event in self.events if event.type == EventType.WORKER_HEALTH)
        return [event for event in of_all if role in (event.model_extra or {})["roles"]]

    async def lease_ends(self) -> None:
        """Waits until no flight is leased any more."""

        async def over() -> bool:
            return not any("lease:" in clause for clause in await unrest(self.house))

        await until(over)

    async def ends_with(self, *, calls: int, doubtful: int = 0, duplicate: int = 0) -> None:
        """Waits until the house is at rest, with the workers and without them, and settles the account.

        Args:
            calls: How many calls the provider has seen.
            doubtful: How many of the claims were reported as doubtful spends.
            duplicate: How many calls were reported as duplicate spends.
        """
        await at_rest(self.house, _REST_S)
        await self.nursery.drain()
        if await unrest(self.house):  # a second copy of a job, which was in somebody's hands and is back now
            await self.nursery.start("front")
            await self.nursery.start(POOL)
            await at_rest(self.house, _REST_S)
            await self.nursery.drain()
        await at_rest(self.house, _REST_S)
        await self._fence()
        ledger = self.calls()
        doubts, duplicates = self.of(EventType.SPEND_DOUBTFUL), self.of(EventType.SPEND_DUPLICATE)
        assert (len(ledger), len(doubts), len(duplicates)) == (calls, doubtful, duplicate)
        started = {_call(event) for event in self.of(EventType.CALL_STARTED)}
        assert {entry.call_id for entry in ledger} <= started
        assert {_call(event) for event in duplicates} <= {entry.call_id for entry in ledger}

    async def _fence(self) -> None:
        """Waits until the events that were published before now have come."""
        connection = await aio_pika.connect(self.house.amqp_url)
        async with connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(names.EVENTS, ensure=False)
            body = Event(id=_FENCE, type=_FENCE, at=0.0).to_bytes()
            await exchange.publish(aio_pika.Message(body), _FENCE)
        await until(lambda: any(event.type == _FENCE for event in self.events))


def _call(event: Event) -> str:
    return str((event.model_extra or {})["call"])


@asynccontextmanager
async def scene(
    house: House,
    simulator: SimulatorProcess,
    *,
    latency_s: float = 0.0,
    concurrency: int = 40,
    timeout_s: float = 30.0,
    more: str = "",
) -> AsyncIterator[Scene]:
    """Opens a house with the simulated provider, without workers.

    Args:
        house: Where.
        simulator: The provider.
        latency_s: How long its answers take.
        concurrency: Of the provider.
        timeout_s: How long the provider may take.
        more: TOML text of other tables.
    """
    simulator.change(latency=Latency(median_s=latency_s).model_dump())
    text = _PROVIDER.format(base_url=simulator.base_url, concurrency=concurrency, timeout_s=timeout_s)
    fleet = house.fleet(text + more)
    await house.declare(fleet)
    async with house.events() as events, nursery(house) as n, house.agent() as optimizer:
        yield Scene(house, simulator, n, optimizer, events)
