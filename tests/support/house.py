"""A place of its own for each test: a virtual host, a key prefix, and workers inside the test's process."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aio_pika
import httpx

from broker import declaring
from broker.sweeping import with_sides
from producer_sdk import AsyncOptimizer
from tests.support.stacks import stacks
from topology import names
from topology.declaration import declaration
from topology.fleet import Fleet
from topology.loading import load_fleet
from topology.messages import Event
from workers.running import run_roles

SIMULATED = """
[fleet]
{fleet}
[cache]
{cache}
[providers.simulated]
base_url = "{base_url}"
api_keys = ["env:SIMULATED_KEY"]
concurrency = {concurrency}
{provider}
[[providers.simulated.models]]
id = "sim-small"
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.60
"""

_DRAIN_LIMIT_S: Final = 90.0


@dataclass
class House:
    """One test's brokers, with everything in them apart from other tests'."""

    amqp_url: str
    redis_url: str
    management_url: str
    vhost: str
    prefix: str
    folder: Path
    environ: dict[str, str] = field(default_factory=lambda: {"SIMULATED_KEY": "sk-simulated"})

    def fleet(self, text: str) -> Fleet:
        path = self.folder / "fleet.toml"
        path.write_text(text, "utf-8")
        return load_fleet(path, self.environ)

    def simulated(
        self,
        base_url: str,
        *,
        fleet: str = "",
        cache: str = "",
        provider: str = "",
        concurrency: int = 40,
    ) -> Fleet:
        """A fleet with the simulated provider alone; more lines for its tables as TOML text."""
        text = SIMULATED.format(
            base_url=base_url, fleet=fleet, cache=cache, provider=provider, concurrency=concurrency
        )
        return self.fleet(text)

    async def declare(self, fleet: Fleet) -> None:
        await declaring.apply(declaration(fleet), self.amqp_url, self.management_url)

    @asynccontextmanager
    async def workers(
        self, fleet: Fleet, *processes: Sequence[str]
    ) -> AsyncIterator[list["asyncio.Task[None]"]]:
        """Workers in this event loop, one for each list of roles; drained at the end."""
        await self.declare(fleet)
        stop = asyncio.Event()
        running: list[asyncio.Task[None]] = []
        for roles in processes or (["front", "backend:all"],):
            ready = asyncio.Event()
            task = asyncio.create_task(
                run_roles(
                    roles, fleet, self.amqp_url, self.redis_url,
                    stop=stop, prefix=self.prefix, on_ready=ready.set,
                    load=lambda: load_fleet(self.folder / "fleet.toml", self.environ),
                )
            )  # fmt: skip
            waiting = asyncio.create_task(ready.wait())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            running.append(task)
            if task.done():
                task.result()
        try:
            yield running
        finally:
            stop.set()
            _, left = await asyncio.wait(running, timeout=_DRAIN_LIMIT_S)
            assert not left, f"workers did not drain within {_DRAIN_LIMIT_S:g} s\n{stacks()}"
            await asyncio.gather(*running)

    def agent(self, name: str = "tester", **options: Any) -> AsyncOptimizer:
        return AsyncOptimizer(name, url=self.amqp_url, **options)

    @asynccontextmanager
    async def events(self, pattern: str = "optimizer.#") -> AsyncIterator[list[Event]]:
        """The events from now on, in a list that grows."""
        seen: list[Event] = []
        connection = await aio_pika.connect(self.amqp_url)
        async with connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange(names.EVENTS, "topic", durable=True)
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(exchange, pattern)

            async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                seen.append(Event.from_bytes(message.body))

            await queue.consume(take, no_ack=True)
            yield seen

    async def depth(self, queue: str) -> int:
        """Messages ready in a queue, and in those beside it, as passive declarations count them."""
        connection = await aio_pika.connect(self.amqp_url)
        async with connection:
            channel = await connection.channel()
            count = 0
            for name in await with_sides(connection, [queue]):
                declared = await channel.declare_queue(name, passive=True)
                count += declared.declaration_result.message_count or 0
            return count


def echo_of(prompt: str) -> str:
    """What the simulated provider's answer to a prompt begins with."""
    return f"echo:{hashlib.sha256(prompt.encode()).hexdigest()[:16]}"


def create_vhost(management_url: str, name: str) -> None:
    httpx.put(f"{management_url}/api/vhosts/{name}", timeout=30).raise_for_status()
    user = httpx.URL(management_url).username or "guest"
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    httpx.put(f"{management_url}/api/permissions/{name}/{user}", json=rights, timeout=30).raise_for_status()


def delete_vhost(management_url: str, name: str) -> None:
    httpx.delete(f"{management_url}/api/vhosts/{name}", timeout=60)


def test_environ(house: House) -> dict[str, str]:
    """The environment of a child process that works in this house."""
    return {
        **os.environ,
        **house.environ,
        "OPTIMIZER_AMQP_URL": house.amqp_url,
        "OPTIMIZER_REDIS_URL": house.redis_url,
        "OPTIMIZER_MANAGEMENT_URL": house.management_url,
    }
