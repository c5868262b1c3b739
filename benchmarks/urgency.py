"""Who goes first: urgent requests, the classes' shares, and agents beside one that has a lot waiting.

`python -m benchmarks.urgency`: three measurements against the simulated provider's ledger, with everything
real and in processes of its own.

order   Very many requests of class batch wait for a provider that gives one permit at a time; 200 times one
        of class high is asked. How many batch calls start between its being asked and its own start: one,
        where its permit was granted before the urgent one was known of.
shares  All three classes wait. The starts of each, for 1 and for 8 workers; 8 : 3 : 1 is right.
agents  One agent has very many requests waiting, then 179 others send 10 each. Jain's index over the next
        1,790 starts, among all 180.
"""

import argparse
import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Self

import aio_pika

from benchmarks.fleet import Stand, stand
from producer_sdk import AsyncOptimizer
from sandbox.simulator import Entry, Latency, Limit, Settings, SimulatorProcess

SHARES = {"high": 8, "normal": 3, "batch": 1}
FLEET = """
[fleet]
requests_per_minute = 1e6
agent_requests_per_minute = 1e6
concurrency = 1000
timeout_s = 3600
[providers.simulated]
base_url = "{base_url}"
api_keys = ["env:SIMULATED_KEY"]
concurrency = {concurrency}
limits = [{limits}]
[[providers.simulated.models]]
id = "sim-small"
"""


@contextmanager
def provider_of(whole: Stand, rate: int, workers: int, window_s: float = 1.0) -> Iterator[SimulatorProcess]:
    """A provider that takes so many calls in a window, and the workers."""
    settings = Settings(limits=(Limit(requests=rate, window_s=window_s),), latency=Latency(median_s=0.1))
    with SimulatorProcess(settings) as provider:
        concurrency = max(2 * rate, 4 * workers)
        limits = f"{{ requests = {rate}, window_s = {window_s} }}"
        text = FLEET.format(base_url=provider.base_url, concurrency=concurrency, limits=limits)
        whole.configure(text, SIMULATED_KEY="sk-simulated")
        for _ in range(2):
            whole.start_worker("front")
        for _ in range(workers):
            whole.start_worker("backend:all")
        yield provider
        whole.end_workers()


class Crowd:
    """Agents whose requests are named `<kind>.<number>`, and so can be told apart in the ledger."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stack = AsyncExitStack()
        self._agents: dict[str, AsyncOptimizer] = {}
        self._names = itertools.count()
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def ask(self, agent: str, kind: str, **options: Any) -> None:
        """Asks once and waits for the answer."""
        await self._ask(agent, f"{kind}.{next(self._names)}", **options)

    async def _ask(self, agent: str, name: str, **options: Any) -> None:
        if agent not in self._agents:
            optimizer = AsyncOptimizer(agent, url=self._url)
            self._agents[agent] = await self._stack.enter_async_context(optimizer)
        await self._agents[agent].chat(f"A prompt of {name}", request_id=name, timeout=3600, **options)

    def send(self, agent: str, kind: str, count: int, **options: Any) -> None:
        """Asks so often, and waits for nothing."""
        for _ in range(count):
            self.send_one(agent, kind, **options)

    def send_one(self, agent: str, kind: str, **options: Any) -> str:
        """Asks once and waits for nothing; returns the request's id."""
        name = f"{kind}.{next(self._names)}"
        self.own(self._ask(agent, name, **options))
        return name

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs this until the crowd goes."""
        self._tasks.append(asyncio.create_task(work))


async def waiting(whole: Stand, priority: str) -> int:
    """How many jobs are ready in the queues of this class."""
    connection = await aio_pika.connect(whole.rabbitmq.amqp_url)
    count = 0
    async with connection:
        for side in range(9):
            name = f"jobs.simulated.any.{priority}" + (f".{side}" if side else "")
            try:
                channel = await connection.channel()
                found = (await channel.declare_queue(name, passive=True)).declaration_result
            except aio_pika.exceptions.ChannelNotFoundEntity:
                break
            count += found.message_count or 0
    return count


async def until_waiting(whole: Stand, priority: str, count: int, within_s: float = 600.0) -> None:
    """Until about that many wait."""
    until = time.monotonic() + within_s
    while await waiting(whole, priority) < count:
        if time.monotonic() > until:
            raise SystemExit(f"{count} jobs of class {priority} do not wait after {within_s:g} s")
        await asyncio.sleep(0.5)


async def until_started(provider: SimulatorProcess, count: int, within_s: float = 600.0) -> list[Entry]:
    """The ledger, once it has so many calls."""
    until = time.monotonic() + within_s
    while len(ledger := taken(provider)) < count:
        if time.monotonic() > until:
            raise SystemExit(f"{count} calls have not started after {within_s:g} s, but {len(ledger)}")
        await asyncio.sleep(0.2)
    return ledger


def taken(provider: SimulatorProcess) -> list[Entry]:
    calls = [call for call in provider.ledger() if call.outcome != "rate_limited"]
    return sorted(calls, key=lambda call: call.arrived_at)


def kind_of(call: Entry) -> str:
    return (call.request_id or "").partition(".")[0]


async def order(whole: Stand, provider: SimulatorProcess, options: argparse.Namespace) -> None:
    """200 urgent requests among very many that are not."""
    draws = random.Random(options.seed)
    async with Crowd(whole.rabbitmq.amqp_url) as crowd:
        crowd.send("crowd", "batch", options.waiting, priority="batch")
        await until_waiting(whole, "batch", options.waiting * 9 // 10)
        asked: list[float] = []
        for _ in range(options.times):
            await asyncio.sleep(draws.uniform(0.0, 0.5))
            asked.append(time.time())
            await crowd.ask("urgent", "high", priority="high")
        ledger = taken(provider)
    starts = sorted(call.arrived_at for call in ledger if kind_of(call) == "high")
    batch = [call.arrived_at for call in ledger if kind_of(call) == "batch"]
    between = [sum(at < b < start for b in batch) for at, start in zip(asked, starts, strict=True)]
    waits_s = sorted(start - at for at, start in zip(asked, starts, strict=True))
    often = ", ".join(f"{n} {count} times" for n, count in sorted(Counter(between).items()))
    print(
        f"order   {options.times} urgent requests, {options.waiting} waiting: batch calls before it {often}; "
        f"from asking to start p50 {waits_s[len(waits_s) // 2]:.3f} s, most {waits_s[-1]:.3f} s",
        flush=True,
    )


async def shares(whole: Stand, provider: SimulatorProcess, workers: int, starts: int) -> None:
    """All classes wait for as long as it takes."""
    async with Crowd(whole.rabbitmq.amqp_url) as crowd:
        for kind in SHARES:
            crowd.send(kind, kind, 2 * starts, priority=kind)
        for kind in SHARES:
            await until_waiting(whole, kind, starts)
        before = len(taken(provider))
        ledger = await until_started(provider, before + starts)
    counts = Counter(kind_of(call) for call in ledger[before : before + starts])
    total = sum(SHARES.values())
    off = {kind: counts[kind] / starts / (share / total) - 1 for kind, share in SHARES.items()}
    print(
        f"shares  {workers} workers, {starts} starts: "
        + ", ".join(f"{kind} {counts[kind]} ({off[kind]:+.1%})" for kind in SHARES),
        flush=True,
    )


async def agents(whole: Stand, provider: SimulatorProcess, options: argparse.Namespace) -> None:
    """One has very much to do, then many have a little."""
    async with Crowd(whole.rabbitmq.amqp_url) as crowd:
        crowd.send("hog", "hog", options.waiting, priority="normal")
        await until_waiting(whole, "normal", options.waiting * 9 // 10)
        await asyncio.to_thread(whole.command, "pause", "simulated")  # until everybody is there
        already, count = await waiting(whole, "normal"), options.others * options.each
        for n in range(options.others):
            crowd.send(f"agent-{n}", f"agent-{n}", options.each, priority="normal")
        await until_waiting(whole, "normal", already + count)
        before = len(taken(provider))
        await asyncio.to_thread(whole.command, "resume", "simulated")
        ledger = await until_started(provider, before + count)
    counts = Counter(kind_of(call) for call in ledger[before : before + count])
    each = [counts["hog"], *(counts[f"agent-{n}"] for n in range(options.others))]
    index = sum(each) ** 2 / (len(each) * sum(share**2 for share in each))
    print(
        f"agents  one with {options.waiting} waiting, then {options.others} with {options.each} each: "
        f"of the next {count} starts {counts['hog']} are its own; Jain's index {index:.3f}",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.urgency")
    parser.add_argument("what", nargs="*", default=["order", "shares", "agents"])
    parser.add_argument("--waiting", type=int, default=5000, help="of what must wait; default 5000")
    parser.add_argument("--times", type=int, default=200, help="urgent requests; default 200")
    parser.add_argument("--starts", type=int, default=1200, help="that the shares are taken of; default 1200")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--others", type=int, default=179, help="agents beside the busy one; default 179")
    parser.add_argument("--each", type=int, default=10, help="requests of each of them; default 10")
    parser.add_argument("--rate", type=int, default=40, help="calls a second that the provider takes")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if "order" in options.what:
        with stand() as whole, provider_of(whole, 1, 4, 0.3) as provider:
            asyncio.run(order(whole, provider, options))
    if "shares" in options.what:
        for workers in options.workers:
            with stand() as whole, provider_of(whole, options.rate, workers) as provider:
                asyncio.run(shares(whole, provider, workers, options.starts))
    if "agents" in options.what:
        with stand() as whole, provider_of(whole, options.rate, 4) as provider:
            asyncio.run(agents(whole, provider, options))


if __name__ == "__main__":
    main()
