"""How long the gateway takes for /health: idle, and with 500 requests in flight.

`python -m benchmarks.gateway_health`. Everything is real and in processes of its own: RabbitMQ, Redis, a
front, a backend, the gateway, a provider that does not answer. The figure is the ratio of the medians.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvloop

from benchmarks.fleet import stand
from sandbox.simulator import Latency, Settings, SimulatorProcess

FOREVER_S = 3600.0


@contextmanager
def gateway() -> Iterator[str]:
    """The URL of a gateway before a fleet whose provider never answers."""
    with SimulatorProcess(Settings(latency=Latency(median_s=FOREVER_S))) as simulator, stand() as whole:
        text = (
            f'[providers.simulated]\nbase_url = "{simulator.base_url}"\napi_keys = ["env:SIMULATED_KEY"]\n'
            'timeout_s = 3600\n[[providers.simulated.models]]\nid = "sim-small"\n'
        )
        whole.configure(text, SIMULATED_KEY="sk-simulated")
        whole.start_worker("front", "backend:simulated")
        command = [sys.executable, "-m", "console.main", "gateway", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--config", str(whole.config)], env=whole.environ, text=True, stderr=subprocess.PIPE
        )
        try:
            yield _until_ready(process)[-2].partition("'")[2].removesuffix("/v1'\n")
        finally:
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
        if (left := await in_flight(asking)) < options.in_flight:
            raise SystemExit(f"only {left} requests were in flight in the end")
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
    with gateway() as url:
        uvloop.run(compare(url, options))


if __name__ == "__main__":
    main()
