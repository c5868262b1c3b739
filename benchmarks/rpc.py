"""Cache hits against a bare aio-pika RPC echo, in one run: `make bench`.

Both send 600-byte prompts to another process, through a quorum queue and back through a classic one,
persistent and confirmed on both sides. The echo returns the body. The optimizer reads the request, asks
Redis, finds the answer, publishes two events, and replies. The rounds alternate, since machines are
noisy: the figure is the median of each round's ratio, absolute times are only printed.
"""

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from benchmarks.echo import EchoClient
from broker import declaring
from producer_sdk import AsyncOptimizer
from sandbox.nodes import Brokers, find_brokers
from sandbox.simulator import SimulatorProcess
from topology.declaration import declaration
from topology.loading import load_fleet

PROMPT_BYTES = 600
DISTINCT = 100
Call = Callable[[int], Awaitable[object]]


@dataclass(frozen=True)
class Round:
    """What one round measured: calls in a second with many outstanding, seconds for one alone."""

    calls_per_s: float
    p50_s: float


async def throughput(call: Call, calls: int, outstanding: int) -> float:
    """Calls in a second, with so many outstanding."""
    turns = iter(range(calls))

    async def ask() -> None:
        for n in turns:
            await call(n)

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(outstanding)))
    return calls / (time.perf_counter() - began)


async def alone(sides: dict[str, Call], calls: int) -> dict[str, float]:
    """The median seconds of one call with no other outstanding; the sides take turns, ten calls each."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for start in range(0, calls, 10):
        for name, call in sides.items():
            for n in range(start, start + 10):
                at = time.perf_counter()
                await call(n)
                times[name].append(time.perf_counter() - at)
    return {name: statistics.median(taken) for name, taken in times.items()}


@asynccontextmanager
async def workers(brokers: Brokers, folder: Path) -> AsyncIterator[None]:
    """One front and one backend process, and the echo's server."""
    with SimulatorProcess() as simulator:
        config = folder / "fleet.toml"
        config.write_text(
            f'[providers.simulated]\nbase_url = "{simulator.base_url}"\n'
            'api_keys = ["env:SIMULATED_KEY"]\nconcurrency = 32\n'
            '[[providers.simulated.models]]\nid = "sim-small"\n',
            "utf-8",
        )
        environ = {
            **os.environ,
            "SIMULATED_KEY": "sk-simulated",
            "OPTIMIZER_AMQP_URL": brokers.amqp_url,
            "OPTIMIZER_REDIS_URL": brokers.redis_url,
        }
        if brokers.management_url is None:
            raise SystemExit("OPTIMIZER_MANAGEMENT_URL is not set, and policies need it")
        fleet = load_fleet(config, environ)
        await declaring.apply(declaration(fleet), brokers.amqp_url, brokers.management_url)
        worker = ("-m", "console.main", "worker", "--config", str(config))
        processes = [
            start(environ, *worker, "front"),
            start(environ, *worker, "backend:simulated"),
            start(environ, "-m", "benchmarks.echo"),
        ]
        try:
            for process in processes:
                await asyncio.to_thread(_until_ready, process)
            yield
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)


def start(environ: dict[str, str], *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *command], env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _until_ready(process: "subprocess.Popen[str]") -> None:
    for line in process.stdout or ():
        if line.strip() == "ready":
            return
    raise SystemExit(f"{process.args!r} ended before it was ready")


async def compare(brokers: Brokers, folder: Path, options: argparse.Namespace) -> None:
    prompts = [f"{n:06d} ".ljust(PROMPT_BYTES, "x") for n in range(DISTINCT)]
    async with (
        workers(brokers, folder),
        EchoClient(brokers.amqp_url) as echo,
        AsyncOptimizer("benchmark", url=brokers.amqp_url) as optimizer,
    ):

        async def hit(n: int) -> None:
            reply = await optimizer.chat(prompts[n % DISTINCT], cache_ttl_s=86400)
            if reply.source != "cache":
                raise SystemExit(f"no hit, but {reply.source}: nothing is measured")

        async def bare(n: int) -> None:
            await echo.call(prompts[n % DISTINCT].encode())

        await optimizer.map(prompts, cache_ttl_s=86400)  # the answers are in the cache from here on
        sides = {"bare echo": bare, "cache hit": hit}
        measured: dict[str, list[Round]] = {name: [] for name in sides}
        for call in sides.values():
            await throughput(call, options.calls // 4, options.outstanding)
        for number in range(options.rounds):
            many = {
                name: await throughput(call, options.calls, options.outstanding)
                for name, call in sides.items()
            }
            one = await alone(sides, options.alone)
            for name in sides:
                result = Round(many[name], one[name])
                measured[name].append(result)
                print(
                    f"round {number + 1} of {options.rounds}  {name}  "
                    f"{result.calls_per_s:6.0f} calls/s  {result.p50_s * 1000:5.2f} ms",
                    file=sys.stderr,
                )
    report(measured, options)


def report(measured: dict[str, list[Round]], options: argparse.Namespace) -> None:
    print(
        f"\n| {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()} | "
        f"calls/s, {options.outstanding} outstanding | p50 of one alone |\n| --- | --- | --- |"
    )
    for name, rounds in measured.items():
        calls = statistics.median(r.calls_per_s for r in rounds)
        p50_s = statistics.median(r.p50_s for r in rounds)
        print(f"| {name} | {calls:.0f} | {p50_s * 1000:.2f} ms |")
    pairs = list(zip(*measured.values(), strict=True))
    throughput = statistics.median(hit.calls_per_s / bare.calls_per_s for bare, hit in pairs)
    latency = statistics.median(hit.p50_s / bare.p50_s for bare, hit in pairs)
    print(f"| ratio, median of {options.rounds} rounds | {throughput:.2f} | {latency:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000, help="in each round (default 3000)")
    parser.add_argument("--outstanding", type=int, default=128, help="calls at once (default 128)")
    parser.add_argument("--alone", type=int, default=300, help="calls one by one (default 300)")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        with find_brokers(folder, os.environ, say=lambda _: None) as brokers:
            uvloop.run(compare(brokers, folder, options))


if __name__ == "__main__":
    main()
