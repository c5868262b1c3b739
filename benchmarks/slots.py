"""How much of a provider's concurrency is used where calls wait for it.

`python -m benchmarks.slots`: the simulated provider takes so many calls at once and answers 429 beyond
that; more requests wait. For each number of workers, one line: the 429s, and the part of the time for which
slots had calls in them, by the provider's ledger. The first calls and the last are left out.
"""

import argparse
import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

from benchmarks.fleet import Stand, stand
from benchmarks.urgency import FLEET
from producer_sdk import AsyncOptimizer
from sandbox.simulator import Entry, Latency, Settings, SimulatorProcess


async def load(whole: Stand, options: argparse.Namespace) -> None:
    """Keeps several times as many requests waiting as the provider takes at once."""
    names = itertools.count()
    async with AsyncOptimizer("bench", url=whole.rabbitmq.amqp_url) as optimizer:

        async def ask() -> None:
            while True:
                await optimizer.chat(f"Prompt {next(names)}", timeout=options.seconds + 60)

        waiting = [asyncio.create_task(ask()) for _ in range(8 * options.slots)]
        await asyncio.wait(waiting, timeout=options.seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in waiting:
            task.cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    for error in ended:
        if not isinstance(error, asyncio.CancelledError):
            print(f"  {type(error).__name__}: {error}")


def used(ledger: Sequence[Entry], slots: int) -> float:
    """The part of the time between a fifth and four fifths of all calls for which the slots were in use."""
    calls = [(call.arrived_at, call.finished_at or call.arrived_at) for call in ledger]
    begins, ends = calls[len(calls) // 5][0], calls[4 * len(calls) // 5][0]
    within = (min(last, ends) - max(first, begins) for first, last in calls)
    return sum(seconds for seconds in within if seconds > 0) / (slots * (ends - begins))


def measure(workers: int, options: Any) -> None:
    latency = Latency(kind="uniform", low_s=options.fastest, high_s=options.slowest)
    settings = Settings(concurrency=options.slots, latency=latency)
    with SimulatorProcess(settings) as provider, stand() as whole:
        fleet = FLEET.format(base_url=provider.base_url, concurrency=options.slots, limits="")
        whole.configure(fleet, SIMULATED_KEY="sk")
        whole.start_worker("front")
        for _ in range(workers):
            whole.start_worker("backend:all")
        asyncio.run(load(whole, options))
        ledger = provider.ledger()
    refused = sum(call.outcome == "rate_limited" for call in ledger)
    share = used(ledger, options.slots)
    print(f"{workers:2} workers  {refused} x 429 of {len(ledger):4} calls  {share:6.1%}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slots")
    parser.add_argument("--slots", type=int, default=15, help="calls at once; default 15")
    parser.add_argument("--seconds", type=float, default=30.0, help="of load; default 30")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--fastest", type=float, default=0.5, help="seconds that a call takes at least")
    parser.add_argument("--slowest", type=float, default=2.0, help="and at most")
    options = parser.parse_args(arguments)
    for workers in options.workers:
        measure(workers, options)


if __name__ == "__main__":
    main()
