"""A provider dies in one way after the other: what its callers notice, and whether it comes back.

`python -m benchmarks.failover`: two providers, the cheaper one is asked first. It works, then it fails every
call, then it works again; requests come all the time. For each way to fail: the errors that callers saw, the
most calls of one request that reached it while it was dead, how much longer the requests took that had to go
elsewhere (95th percentile, without the time-out itself, against that of the healthy time), and how long after
it had healed it was used again. Exits with 1 when a figure is off.
"""

import argparse
import asyncio
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

import httpx

from benchmarks.fleet import Stand, stand
from producer_sdk import AsyncOptimizer
from sandbox.simulator import Faults, Latency, Settings, SimulatorProcess

TIMEOUT_S = 2.0
KINDS = ("refused", "server_error", "unavailable", "timeout", "slow", "cut", "malformed")
_FLEET = """
[fleet]
requests_per_minute = 1e6
agent_requests_per_minute = 1e6
concurrency = 1000
"""
_PROVIDER = """
[providers.{name}]
base_url = "{base_url}"
api_keys = ["env:SIMULATED_KEY"]
concurrency = 40
timeout_s = {timeout_s}
[[providers.{name}.models]]
id = "sim-small"
input_usd_per_mtok = {price}
output_usd_per_mtok = {price}
"""
_LATENCY = Latency(kind="lognormal", median_s=0.2, sigma=0.4, high_s=1.0)


@dataclass(frozen=True)
class Asked:
    """One request, as its caller saw it."""

    name: str
    at: float
    seconds: float
    provider: str | None
    attempts: int
    error: str | None


class Load:
    """Requests at random instants, as long as it is entered; those under way at the end are waited for."""

    def __init__(self, url: str, rate: float, seed: int) -> None:
        self._url = url
        self._rate = rate
        self._draws = random.Random(seed)
        self._names = itertools.count()
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.asked: list[Asked] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        async with AsyncOptimizer("bench", url=self._url) as optimizer, asyncio.TaskGroup() as group:
            while not self._stopped.is_set():
                group.create_task(self._ask(optimizer))
                await asyncio.sleep(self._draws.expovariate(self._rate))

    async def _ask(self, optimizer: AsyncOptimizer) -> None:
        name, at = f"r{next(self._names)}", time.time()
        provider, attempts, error = None, 0, None
        try:
            reply = await optimizer.chat(f"A prompt of {name} {self._url}", request_id=name, timeout=60)
            provider, attempts = reply.provider, reply.attempts
        except Exception as caught:  # noqa: BLE001 - a figure
            error = f"{type(caught).__name__}: {caught}"
        self.asked.append(Asked(name, at, time.time() - at, provider, attempts, error))


def _is_back(one: Asked, healed_at: float) -> bool:
    return one.provider == "first" and one.at > healed_at


def p95_s(asked: Sequence[Asked]) -> float:
    seconds = sorted(one.seconds for one in asked)
    return seconds[int(0.95 * (len(seconds) - 1))]


async def one_death(whole: Stand, first: SimulatorProcess, kind: str, options: argparse.Namespace) -> bool:
    async with Load(whole.rabbitmq.amqp_url, options.rate, options.seed) as load, AsyncExitStack() as stack:
        await asyncio.sleep(options.phase)
        died_at = time.time()
        if kind == "refused":
            port = httpx.URL(first.base_url).port or 0
            first.stop()
            await asyncio.sleep(options.phase)
            healed = stack.enter_context(SimulatorProcess(Settings(latency=_LATENCY), port=port))
        else:
            first.change(faults=Faults(**{kind: 1.0}, slow_s=30.0, hang_s=30.0).model_dump())
            await asyncio.sleep(options.phase)
            first.change(faults=Faults().model_dump())
            healed = first
        healed_at = time.time()
        while time.time() < healed_at + 60:
            await asyncio.sleep(0.1)
            if any(_is_back(one, healed_at) for one in load.asked):
                break
        back_s = time.time() - healed_at
        ledger = healed.ledger()
    healthy = [one for one in load.asked if one.at < died_at - TIMEOUT_S]
    dead = [call for call in ledger if died_at < call.arrived_at < healed_at]
    most = max(Counter(call.request_id for call in dead).values(), default=0)
    moved = [one for one in load.asked if one.attempts > 1 and one.provider == "spare"]
    timed_out = TIMEOUT_S if kind in {"timeout", "slow"} else 0.0
    ratio = (p95_s(moved) - timed_out) / p95_s(healthy) if moved else 0.0
    errors = [one for one in load.asked if one.error]
    good = not errors and most <= 1 and ratio <= 5.0 and back_s < 45
    print(
        f"{kind:13} {len(load.asked):5} requests, {len(errors)} errors; dead {options.phase:g} s: "
        f"{len(dead)} calls reached it, of one request {most} at most; "
        f"moved after a failure {len(moved)}, p95 beyond the time-out {ratio:.2f} x the healthy "
        f"{p95_s(healthy):.2f} s; used again after {back_s:.1f} s  {'ok' if good else 'NOT MET'}",
        flush=True,
    )
    for one in errors[:3]:
        print(f"  {one.name}: {one.error}")
    return good


def measure(kind: str, options: argparse.Namespace) -> bool:
    settings = Settings(latency=_LATENCY)
    with stand() as whole, SimulatorProcess(settings) as first, SimulatorProcess(settings) as spare:
        providers = "".join(
            _PROVIDER.format(name=name, base_url=process.base_url, price=price, timeout_s=TIMEOUT_S)
            for name, process, price in (("first", first, 0.1), ("spare", spare, 0.9))
        )
        whole.configure(_FLEET + providers, SIMULATED_KEY="sk-simulated")
        whole.start_worker("front")
        for _ in range(options.workers):
            whole.start_worker("backend:all")
        asyncio.run(_answered(whole))
        return asyncio.run(one_death(whole, first, kind, options))


async def _answered(whole: Stand) -> None:
    """Until the workers work."""
    async with AsyncOptimizer("first", url=whole.rabbitmq.amqp_url) as optimizer:
        await optimizer.chat("Are you there?", timeout=60)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover")
    parser.add_argument("kinds", nargs="*", default=KINDS, help=f"of {', '.join(KINDS)}; default all")
    parser.add_argument("--phase", type=float, default=15.0, help="seconds healthy, and dead; default 15")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second; default 20")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    met = [measure(kind, options) for kind in options.kinds]
    if not all(met):
        sys.exit(1)


if __name__ == "__main__":
    main()
