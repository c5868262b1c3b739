"""How long the gateway takes for /health: idle, and with 500 requests in flight.

`python -m benchmarks.gateway_health`. Everything is real and in processes of its own: RabbitMQ, Redis, a
front, a backend, the gateway, a provider that does not answer. The figure is the ratio of the medians.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import uvloop

from broker import declaring
from sandbox.nodes import Brokers, find_brokers
from sandbox.simulator import Latency, Settings, SimulatorProcess
from topology.declaration import declaration
from topology.loading import load_fleet

FOREVER_S = 3600.0


@contextmanager
def gateway(brokers: Brokers, folder: Path) -> Iterator[str]:
    """The URL of a gateway before a fleet whose provider never answers."""
    with SimulatorProcess(Settings(latency=Latency(median_s=FOREVER_S))) as simulator:
        config = folder / "fleet.toml"
        config.write_text(
            f'[providers.simulated]\nbase_url = "{simulator.base_url}"\nkeyless = true\n'
            'timeout_s = 3600\n[[providers.simulated.models]]\nid = "sim-small"\n',
            "utf-8",
        )
        environ = {
            **os.environ,
            "OPTIMIZER_AMQP_URL": brokers.amqp_url,
            "OPTIMIZER_REDIS_URL": brokers.redis_url,
        }
        if brokers.management_url is None:
            raise SystemExit("OPTIMIZER_MANAGEMENT_URL is not set, and policies need it")
        whole = declaration(load_fleet(config, environ))
        asyncio.run(declaring.apply(whole, brokers.amqp_url, brokers.management_url))
        command = [sys.executable, "-m", "console.main"]
        processes = [
            subprocess.Popen(
                [*command, *words, "--config", str(config)], env=environ, text=True, stderr=subprocess.PIPE
            )
            for words in (
                ["worker", "front", "backend:simulated"],
                ["gateway", "--port", "0"],
            )
        ]
        try:
            said = [_until_ready(process) for process in processes][-1]
            yield said[-2].partition("'")[2].removesuffix("/v1'\n")
        finally:
            for process in processes:
                process.kill()  # to drain would be to wait for the provider
                process.wait(30)


def _until_ready(process: "subprocess.Popen[str]") -> list[str]:
    said = []
    for line in process.stderr or ():
        said.append(line)
        if line.strip() == "ready":
            return said
    raise SystemExit(f"{process.args!r} ended before it was ready: {''.join(said)}")


async def compare(url: str, options: argparse.Namespace) -> None:
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=url, timeout=FOREVER_S) as asking,
        httpx.AsyncClient(base_url=url, timeout=FOREVER_S, limits=limits) as loading,
    ):
        await until_healthy(asking)
        await measure(asking, options.samples)
        idle = await measure(asking, options.samples)
        load = [
            asyncio.create_task(loading.post("/v1/chat/completions", json=chat(n)))
            for n in range(options.in_flight)
        ]
        while await in_flight(asking) < options.in_flight:  # noqa: ASYNC110 - another process's counter
            await asyncio.sleep(0.1)
        loaded = await measure(asking, options.samples)
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
    print(f"| /health, {options.samples} times | p50 | p95 |\n| --- | --- | --- |")
    for name, times in (("idle", idle), (f"{options.in_flight} in flight", loaded)):
        print(f"| {name} | {1000 * p50(times):.2f} ms | {1000 * p95(times):.2f} ms |")
    print(f"| ratio | {p50(loaded) / p50(idle):.2f} | {p95(loaded) / p95(idle):.2f} |")


async def until_healthy(client: httpx.AsyncClient) -> None:
    while (await client.get("/health")).status_code != 200:  # noqa: ASYNC110 - another process's state
        await asyncio.sleep(0.1)


async def in_flight(client: httpx.AsyncClient) -> int:
    name = "optimizer_gateway_in_flight "
    lines = (await client.get("/metrics")).text.splitlines()
    return int(float(next(line for line in lines if line.startswith(name)).removeprefix(name)))


async def measure(client: httpx.AsyncClient, samples: int) -> list[float]:
    """Seconds of each answer; all must be 200."""
    times = []
    for _ in range(samples):
        at = time.perf_counter()
        answer = await client.get("/health")
        times.append(time.perf_counter() - at)
        if answer.status_code != 200:
            raise SystemExit(f"unhealthy: {answer.text}")
    return times


def chat(number: int) -> dict[str, object]:
    return {"model": "auto", "messages": [{"role": "user", "content": f"Prompt {number}"}]}


def p50(times: list[float]) -> float:
    return statistics.median(times)


def p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-flight", type=int, default=500, help="requests that wait (default 500)")
    parser.add_argument("--samples", type=int, default=1000, help="of /health, each time (default 1000)")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        with (
            find_brokers(folder, os.environ, say=lambda _: None) as brokers,
            gateway(brokers, folder) as url,
        ):
            uvloop.run(compare(url, options))


if __name__ == "__main__":
    main()
