"""What goes wrong around the workers: brokers restarted, a network cut, Redis flushed, a freeze."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis

from tests.chaos.books import Books
from tests.chaos.brokers import Place
from tests.chaos.schedule import Fault
from tests.chaos.striking import Striking
from tests.support.house import House
from tests.support.proxy import Proxy, proxy_to

_CUT_S = 6.0
_HALF_OPEN_S = 8.0
_FROZEN_LEASES = 1.5
_PROVIDER_FAILS_S = 20.0
_OF_RABBITMQ = frozenset({"rabbitmq", "cut", "halfopen"})


@dataclass
class Lines:
    """The lines that workers and agents use; without proxies where none will be cut."""

    house: House
    proxies: Sequence[Proxy] = ()


@asynccontextmanager
async def lines_to(place: Place, faults: Sequence[Fault]) -> AsyncIterator[Lines]:
    """Opens a proxy to each broker if the network is to fail."""
    house = place.house
    if not {"cut", "halfopen"} & set(faults):
        yield Lines(house)
        return
    async with AsyncExitStack() as stack:
        urls, proxies = [], []
        for url in (house.amqp_url, house.redis_url):
            parts = urlsplit(url)
            proxy = await stack.enter_async_context(proxy_to(parts.hostname or "", parts.port or 0))
            user = f"{parts.username}:{parts.password}@" if parts.username else ""
            urls.append(urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{proxy.port}")))
            proxies.append(proxy)
        yield Lines(replace(house, amqp_url=urls[0], redis_url=urls[1]), proxies)


class Breaking:
    """Carries a schedule's faults out, one at a time; nobody is killed meanwhile."""

    def __init__(
        self, place: Place, lines: Lines, striking: Striking, books: Books, lease_s: float, seed: int
    ) -> None:
        self._place = place
        self._lines = lines
        self._striking = striking
        self._books = books
        self._lease_s = lease_s
        self._random = random.Random(seed)

    async def carry_out(self, fault: Fault) -> None:
        """Breaks it and mends it."""
        self._striking.open.clear()
        began = time.time()
        try:
            await self._break(fault)
        finally:
            self._striking.open.set()
        if fault in _OF_RABBITMQ:
            self._books.outages.append((began, time.time()))
        self._books.faults.append(fault)

    async def _break(self, fault: Fault) -> None:
        match fault:
            case "rabbitmq" | "redis":
                node = self._place.nodes[fault]
                await asyncio.to_thread(node.stop)
                await asyncio.to_thread(node.start)
            case "cut":
                self._cut()
                await asyncio.sleep(_CUT_S)
                self._restore()
            case "halfopen":
                for proxy in self._lines.proxies:
                    proxy.silence()
                await asyncio.sleep(_HALF_OPEN_S)
                self._cut()  # a stream with a hole in it is of no use
                self._restore()
            case "freeze":
                await self._freeze()
            case "flush":
                async with Redis.from_url(self._place.house.redis_url) as redis:
                    await redis.flushall()
                self._books.flushes.append(time.time())
            case "provider":
                await self._have_the_provider_fail()

    def _cut(self) -> None:
        for proxy in self._lines.proxies:
            proxy.cut()

    def _restore(self) -> None:
        for proxy in self._lines.proxies:
            proxy.restore()

    async def _freeze(self) -> None:
        """Past its lease: others take its flights over, and it wakes to find them gone."""
        seat = self._random.choice([seat for seat in self._striking.alive if seat.startswith("backend")])
        worker = self._striking.alive[seat]
        worker.stop()
        self._books.frozen_pids.add(worker.pid)
        await asyncio.sleep(self._lease_s * _FROZEN_LEASES)
        worker.cont()

    async def _have_the_provider_fail(self) -> None:
        self._place.provider.change(faults={"server_error": 0.1, "rate_limited": 0.1, "unavailable": 0.1})
        await asyncio.sleep(_PROVIDER_FAILS_S)
        self._place.provider.change(faults={"server_error": 0.0, "rate_limited": 0.0, "unavailable": 0.0})
