"""Who answers how many requests before their deadlines, where quotas are scarce.

`make bench-goodput TRACE=AzureLLMInferenceTrace_code.csv`: a stretch of a real trace is asked of four
simulated providers with four kinds of limits, over real HTTP: by the optimizer, by OpenAI's client with
retries, and by LiteLLM's Router where its Python is given. Beside them stands the most that anybody could
answer, what a schedule by deadlines reaches, and a fair one by the optimizer's own rules: classes by their
shares, the agents of a class in turn. All meet the same requests, instants, deadlines and providers, one
after the other, with nothing used.

Trace, windows, latencies and deadlines are shortened by one factor (`--faster`). What the programs take
themselves, their heartbeats and their own pauses are not, apart from LiteLLM's.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.goodput.asks import Answered, Ask
from benchmarks.goodput.load import CLASSES, Stretch, asks_of
from benchmarks.goodput.offers import OFFERS, capacity_per_minute
from benchmarks.goodput.optimum import most_in_time
from benchmarks.goodput.ours import ask_ours
from benchmarks.goodput.plain import ask_plainly
from benchmarks.goodput.router import ask_router
from benchmarks.goodput.schedule import Fairly, Order, answered_at, earliest_deadline
from sandbox.demo.errors import Unusable
from sandbox.demo.trace import read_trace
from sandbox.simulator import SimulatorProcess
from topology.sections import PrioritiesSection

TRACE_URL = "https://github.com/Azure/AzurePublicDataset/blob/master/data/AzureLLMInferenceTrace_code.csv"
_ALL = 10**9
_SHARES = {priority.value: share for priority, share in PrioritiesSection().shares.items()}
_WHO = """ours; dealt: ours, with the provider of each request named by its agent, by lot; plain; litellm;
default: ours plain litellm"""

Way = Callable[[Sequence[Ask], Mapping[str, SimulatorProcess]], list[Answered]]
"""Asks all of it of these providers."""


@dataclass(frozen=True)
class Figures:
    """What one way of asking came to.

    Attributes:
        load: Requests asked, as a part of what the quotas allow in that time.
        in_time: Requests answered before their deadlines.
        most: So many nobody can surpass.
        missed: Requests of each priority that were not.
        errors: How the callers' requests ended that got no answer.
        refused: 429s that the providers sent.
        calls: Calls that reached the providers, refused ones included.
        by_provider: Calls that each answered.
        over_after_s: From the last request to the last answer, in seconds as measured.
    """

    who: str
    load: float
    asked: int
    in_time: int
    most: int
    missed: dict[str, int]
    errors: dict[str, int]
    refused: int
    calls: int
    by_provider: dict[str, int]
    over_after_s: float

    def line(self) -> str:
        """The figures as a line of the table."""
        kept = f"{self.in_time:5} of {self.asked:5} {self.in_time / self.most:7.1%}"
        calls = f"calls of {_told(self.by_provider)}; " if self.by_provider else ""
        return (
            f"{self.who:30} {kept} {self.refused:7} of {self.calls:5} {self.over_after_s:7.1f} s\n"
            f"    {calls}missed: {_told(self.missed)}; "
            f"errors: {_told(self.errors)}"
        )


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts)) or "none"


def measured(who: str, load: float, asks: Sequence[Ask], way: Way, most: int, faster: float) -> Figures:
    """Asks all of it of providers of which nothing has been used."""
    with ExitStack() as stack:
        providers = {o.name: stack.enter_context(SimulatorProcess(o.settings(faster))) for o in OFFERS}
        answered = way(asks, providers)
        ledgers = {name: provider.ledger() for name, provider in providers.items()}
    deadlines = {asked.name: asked.deadline_s for asked in asks}
    in_time = {one.name for one in answered if one.error is None and one.at_s <= deadlines[one.name]}
    calls = [call for ledger in ledgers.values() for call in ledger]
    return Figures(
        who, load, len(asks), len(in_time), most,
        missed=dict(Counter(asked.priority for asked in asks if asked.name not in in_time)),
        errors=dict(Counter(one.error for one in answered if one.error is not None)),
        refused=sum(call.outcome == "rate_limited" for call in calls),
        calls=len(calls),
        by_provider={name: sum(call.outcome == "ok" for call in own) for name, own in ledgers.items()},
        over_after_s=max((one.at_s for one in answered if one.error is None), default=0.0) - asks[-1].at_s,
    )  # fmt: skip


def scheduled(who: str, load: float, asks: Sequence[Ask], most: int, faster: float, order: Order) -> Figures:
    """A schedule that keeps every limit, for whoever asks no network."""
    answers = answered_at(asks, OFFERS, faster, order)
    missed: Counter[str] = Counter(asked.priority for asked in asks if asked.name not in answers)
    over_s = max(answers.values(), default=0.0) - asks[-1].at_s
    return Figures(who, load, len(asks), len(answers), most, dict(missed), {}, 0, len(answers), {}, over_s)


def ways(options: argparse.Namespace) -> dict[str, Way]:
    """Who asks, by name."""
    faster, python = options.faster, options.litellm_python
    found: dict[str, Way] = {
        name: partial(ask_ours, offers=OFFERS, faster=faster, workers=options.workers, dealt=name == "dealt")
        for name in ("ours", "dealt")
    }
    found["plain"] = partial(ask_plainly, retries=options.retries)
    for strategy in options.litellm_strategies if python else ():
        found[f"litellm {strategy}"] = partial(
            ask_router,
            offers=OFFERS,
            faster=faster,
            python=python,
            strategy=strategy,
            retries=options.retries,
        )
    return {name: way for name, way in found.items() if name.split()[0] in options.who}


def measure(load: float, options: argparse.Namespace) -> list[Figures]:
    """One load, asked in every way, and printed as it goes."""
    stretch = Stretch(
        options.begin, options.seconds, options.faster, load * capacity_per_minute(), options.seed
    )
    asks = asks_of(read_trace(options.trace, _ALL), stretch)
    supplies = [offer.supply(options.faster) for offer in OFFERS]
    most = most_in_time(((asked.at_s, asked.deadline_s) for asked in asks), supplies)
    print(f"\nload {load:g}: {len(asks)} requests, of which nobody can answer more than {most} in time")
    print(f"{'':30} {'in time':>14} {'of best':>7} {'429s of calls':>16} {'over after':>9}")
    figures = []
    for who, order in (("a schedule", earliest_deadline), ("a fair schedule", Fairly(_SHARES))):
        figures.append(scheduled(who, load, asks, most, options.faster, order))
        print(figures[-1].line(), flush=True)
    for who, way in ways(options).items():
        figures.append(measured(who, load, asks, way, most, options.faster))
        print(figures[-1].line(), flush=True)
    return figures


def read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.goodput",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--trace", type=Path, help=f"a file in Azure's or Mooncake's form; one is at\n{TRACE_URL}")
    add("--begin", type=float, default=1080.0, help="where in the trace, in seconds; default 1080")
    add("--seconds", type=float, default=480.0, help="how much of it; default 480")
    add("--faster", type=float, default=6.0, help="so many times as fast; default 6")
    add(
        "--loads", type=float, nargs="+", default=[0.8, 1.3], help="of what the quotas allow; default 0.8 1.3"
    )
    add("--who", nargs="+", default=["ours", "plain", "litellm"], help=_WHO)
    add("--workers", type=int, default=2, help="backends of ours; default 2")
    add("--retries", type=int, default=50, help="at most, of a plain client and of LiteLLM's; default 50")
    add("--litellm-python", type=Path, help="of an environment with litellm; without it that is left out")
    add("--litellm-strategies", nargs="+", default=["usage-based-routing-v2", "simple-shuffle"])
    add("--json", type=Path, help="a file for the figures")
    add("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.trace is None:
        parser.error(
            f"--trace (make: TRACE=) is missing: a file in Azure's or Mooncake's form; one is at {TRACE_URL}"
        )
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = read(arguments)
    parts = ", ".join(f"{c.part:.0%} {c.name} within {c.within_s / options.faster:g} s" for c in CLASSES)
    print(
        f"{options.trace.name} from {options.begin:g} s on, {options.seconds:g} s of it, "
        f"{options.faster:g} times as fast, seed {options.seed}; {parts}"
    )
    try:
        figures = [one for load in options.loads for one in measure(load, options)]
    except Unusable as error:
        sys.exit(f"goodput: {error}")
    if options.json is not None:
        facts: dict[str, Any] = {name: str(value) for name, value in vars(options).items()}
        told = {"measured_at": time.time(), "options": facts, "figures": [asdict(one) for one in figures]}
        options.json.write_text(json.dumps(told, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
