"""How right the expected start of waiting requests is.

`python -m benchmarks.expected`: requests of several agents and classes wait for the simulated provider; where
each of a sample stands is asked as `optimizer status REQUEST` asks it, and compared with its call's arrival
in the ledger. The error of one that waited w seconds from the asking, and was expected to wait e, is
|e - w| / w. Those that wait for less than ten permits are left out.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.fleet import Stand, stand
from benchmarks.urgency import FLEET, Crowd, taken, until_started
from broker.opening import open_redis
from broker.whereabouts import Tracer, Whereabouts
from sandbox.simulator import Latency, Limit, Settings, SimulatorProcess
from topology.loading import load_fleet


@dataclass(frozen=True)
class Case:
    """What binds, and what waits."""

    name: str
    limits: str
    provider: Settings
    concurrency: int
    classes: dict[str, int]


CASES = (
    Case(
        "sliding",
        "{ requests = 30, window_s = 10 }",
        Settings(limits=(Limit(requests=30, window_s=10.0),), latency=Latency(median_s=0.3, sigma=0.5)),
        50,
        {"normal": 250},
    ),
    Case(
        "bucket",
        '{ requests = 30, window_s = 10, counting = "bucket", burst = 5 }',
        Settings(latency=Latency(median_s=0.3, sigma=0.5)),
        50,
        {"normal": 250},
    ),
    Case(
        "tokens",
        "{ tokens = 3000, window_s = 10 }",
        Settings(latency=Latency(median_s=0.3, sigma=0.5)),
        50,
        {"normal": 250},
    ),
    Case("concurrency", "", Settings(latency=Latency(median_s=1.5, sigma=0.5)), 5, {"normal": 250}),
    Case(
        "classes",
        "{ requests = 40, window_s = 10 }",
        Settings(latency=Latency(median_s=0.3, sigma=0.5)),
        50,
        {"high": 100, "normal": 120, "batch": 80},
    ),
)


@dataclass(frozen=True)
class Sample:
    """What was said of a request, and when."""

    asked_at: float
    standing: Whereabouts


async def measure(whole: Stand, provider: SimulatorProcess, case: Case, options: argparse.Namespace) -> None:
    """Asks again and again while all of it goes through."""
    draws = random.Random(options.seed)
    samples: list[Sample] = []
    total = sum(case.classes.values())
    fleet = load_fleet(whole.config, whole.environ)
    async with Crowd(whole.rabbitmq.amqp_url) as crowd, open_redis(whole.redis.redis_url, 10.0) as redis:
        standings = Tracer(redis, fleet)
        crowd.send("warm", "warm", 10, priority="normal")  # what calls take is learned from some
        await until_started(provider, 10)
        jobs = [(kind, n) for kind, count in case.classes.items() for n in range(count)]
        draws.shuffle(jobs)
        ids = []
        for kind, n in jobs:
            agent = f"agent-{n % options.agents}"
            ids.append(crowd.send_one(agent, kind, priority=kind))
        while len(ledger := taken(provider)) < total + 10:
            for id_ in draws.sample(ids, 20):
                samples += [Sample(time.time(), one) for one in await standings.of(id_)]
            await asyncio.sleep(options.every)
    starts = {call.request_id: call.arrived_at for call in ledger}
    report(case, samples, starts)


def report(case: Case, samples: Sequence[Sample], starts: dict[str | None, float]) -> None:
    errors, unknown = [], 0
    order = sorted(starts.values())
    for sample in samples:
        standing = sample.standing
        start = starts.get(standing.request)
        if standing.state != "queued" or start is None:
            continue
        if sum(sample.asked_at < at < start for at in order) <= 10:
            continue
        if standing.starts_at is None:
            unknown += 1
            continue
        waited = start - sample.asked_at
        errors.append((standing.starts_at - sample.asked_at - waited) / waited)
    absolute = sorted(abs(error) for error in errors)
    print(
        f"{case.name:12} {len(errors)} samples, {unknown} without an expectation: error p50 "
        f"{statistics.median(absolute):.1%}, p90 {absolute[len(absolute) * 9 // 10]:.1%}, "
        f"bias {statistics.median(errors):+.1%}",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.expected")
    parser.add_argument("what", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--agents", type=int, default=12, help="that share what waits; default 12")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between samples; default 1")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    for case in CASES:
        if case.name not in options.what:
            continue
        with stand() as whole, SimulatorProcess(case.provider) as provider:
            text = FLEET.format(base_url=provider.base_url, concurrency=case.concurrency, limits=case.limits)
            whole.configure(text, SIMULATED_KEY="sk-simulated")
            whole.start_worker("front")
            for _ in range(options.workers):
                whole.start_worker("backend:all")
            asyncio.run(measure(whole, provider, case, options))


if __name__ == "__main__":
    main()
