"""How much of a provider's limits is used, and whether one call too many ever arrives.

`python -m benchmarks.limits`: the simulated provider allows 120 requests and 30,000 tokens in a window,
and charges the prompt and the bound on the answer on arrival. More requests wait than it takes. For each way
of counting and each number of workers, one line: the 429s, and what was used of the limit that binds, in the
worst of the full windows. Everything is real and in processes of its own. `--kill-every 10` kills a worker
that often; `--redis stop` restarts Redis in the middle, `--redis kill` kills it and starts it again.
"""

import argparse
import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from benchmarks.fleet import Stand, stand
from producer_sdk import AsyncOptimizer
from sandbox.simulator import Entry, Latency, Limit, Settings, SimulatorProcess

REQUESTS, TOKENS = 120, 30_000
_FLEET = """
[fleet]
requests_per_minute = 1e6
agent_requests_per_minute = 1e6
concurrency = 1000
max_spends = 50
[providers.simulated]
base_url = "{base_url}"
api_keys = ["env:SIMULATED_KEY"]
concurrency = {concurrency}
limits = [
  {{ requests = {requests}, window_s = {window_s}, counting = "{counting}" }},
  {{ tokens = {tokens}, window_s = {window_s}, counting = "{counting}" }},
]
[[providers.simulated.models]]
id = "sim-small"
"""


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    counting: str
    workers: int
    binding: str
    """`requests` or `tokens`: which of the two is used up first."""


@contextmanager
def provider_of(whole: Stand, cell: Cell, options: argparse.Namespace) -> Iterator[SimulatorProcess]:
    """A provider, a configuration that says what it says itself, and the workers."""
    counting: Any = cell.counting
    limits = (
        Limit(requests=REQUESTS, window_s=options.window, counting=counting),
        Limit(tokens=TOKENS, window_s=options.window, counting=counting),
    )
    latency = Latency(kind="uniform", low_s=options.fastest, high_s=options.slowest)
    with SimulatorProcess(Settings(limits=limits, latency=latency)) as provider:
        in_flight = REQUESTS / options.window * options.slowest
        text = _FLEET.format(
            base_url=provider.base_url, concurrency=int(2 * in_flight) + 2 * cell.workers,
            requests=REQUESTS, tokens=TOKENS, window_s=options.window, counting=cell.counting,
        )  # fmt: skip
        whole.configure(text, SIMULATED_KEY="sk-simulated")
        whole.start_worker("front")
        for _ in range(cell.workers):
            whole.start_worker("backend:all")
        yield provider


async def kill_every(whole: Stand, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        whole.replace_worker("backend:all")


async def restart_redis(whole: Stand, how: str, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await whole.restart(whole.redis, kill=how == "kill")


async def load(whole: Stand, provider: SimulatorProcess, cell: Cell, options: Any) -> None:
    """Keeps more requests waiting than the provider takes, until the last window is full."""
    lasts_s = (options.windows + 1.5) * options.window
    draws = random.Random(options.seed)
    names = itertools.count()
    share = 1.4 if cell.binding == "tokens" else 0.8
    mean = share * TOKENS / REQUESTS

    async with AsyncOptimizer("bench", url=whole.rabbitmq.amqp_url) as optimizer:

        async def ask() -> None:
            while True:
                prompt = f"{next(names)} {cell} {options.seed} " + "x" * draws.randrange(40, 400)
                bound = max(1, int(draws.uniform(0.4, 1.6) * mean) - len(prompt) // 4)
                try:
                    await optimizer.chat(prompt, max_tokens=bound, timeout=lasts_s)
                except Exception as error:  # noqa: BLE001 - a figure of the table
                    print(f"  {type(error).__name__}: {error}")

        waiting = [asyncio.create_task(ask()) for _ in range(2 * REQUESTS)]
        trouble: list[asyncio.Task[None]] = []
        if options.kill_every:
            trouble.append(asyncio.create_task(kill_every(whole, options.kill_every)))
        if options.redis:
            trouble.append(asyncio.create_task(restart_redis(whole, options.redis, lasts_s / 2)))
        began = time.monotonic()
        while not provider.ledger():
            await asyncio.sleep(0.1)
            if time.monotonic() - began > 60:
                raise SystemExit("no call came within a minute")
        await asyncio.sleep(lasts_s)
        for task in (*waiting, *trouble):
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for task in trouble:
            with suppress(asyncio.CancelledError):
                await task


@dataclass(frozen=True)
class Verdict:
    """What the provider's ledger says.

    Attributes:
        outcomes: How the calls ended, as the provider sees it.
        shares: What was used of the limit that binds, in each full window: the first begins with the first
            call, or with the calendar's next one where windows are `fixed`.
        fullest: The same for the fullest window of that length, wherever it starts.
    """

    outcomes: Counter[str]
    shares: list[float]
    fullest: float


def judge(provider: SimulatorProcess, cell: Cell, options: argparse.Namespace) -> Verdict:
    """A plain log of the calls that the provider took, each charged on its arrival."""
    ledger = provider.ledger()
    taken = [call for call in ledger if call.outcome not in {"rate_limited", "unauthorized"}]
    first = min(call.arrived_at for call in taken)
    if cell.counting == "fixed":
        first += options.window - first % options.window
    borders = [first + n * options.window for n in range(options.windows)]
    return Verdict(
        Counter(call.outcome for call in ledger),
        [_used(taken, starts, options.window) for starts in borders],
        max(_used(taken, call.arrived_at, options.window) for call in taken),
    )


def _used(taken: Sequence[Entry], starts: float, window_s: float) -> float:
    inside = [call for call in taken if starts <= call.arrived_at < starts + window_s]
    return max(len(inside) / REQUESTS, sum(call.charged_tokens or 0 for call in inside) / TOKENS)


def measure(cell: Cell, options: argparse.Namespace) -> None:
    with stand() as whole, provider_of(whole, cell, options) as provider:
        asyncio.run(load(whole, provider, cell, options))
        verdict = judge(provider, cell, options)
    each = " ".join(f"{share:.1%}" for share in verdict.shares)
    what = f"{cell.counting:8} {cell.binding:9} {cell.workers:2} workers"
    calls = f"{verdict.outcomes['rate_limited']} x 429 of {verdict.outcomes.total():5} calls"
    used = f"worst window {min(verdict.shares):6.1%}, fullest {verdict.fullest:6.1%}"
    print(f"{what}  {calls}  {used}  ({each})", flush=True)
    if strange := verdict.outcomes.keys() - {"ok", "rate_limited", "running", "cut"}:
        print(f"  and {', '.join(f'{verdict.outcomes[name]} {name}' for name in sorted(strange))}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits")
    parser.add_argument("--window", type=float, default=60.0, help="seconds; default 60")
    parser.add_argument("--windows", type=int, default=5, help="full windows that are judged; default 5")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--counting", nargs="+", default=["sliding", "fixed", "bucket"])
    parser.add_argument("--binding", nargs="+", default=["requests"], help="requests, tokens, or both")
    parser.add_argument("--fastest", type=float, default=0.2, help="seconds that a call takes at least")
    parser.add_argument("--slowest", type=float, default=8.0, help="and at most")
    parser.add_argument("--kill-every", type=float, default=0.0, help="seconds; 0 kills nobody")
    parser.add_argument("--redis", choices=["stop", "kill"], help="what happens to Redis in the middle")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    for counting, binding, workers in itertools.product(options.counting, options.binding, options.workers):
        measure(Cell(counting, workers, binding), options)


if __name__ == "__main__":
    main()
