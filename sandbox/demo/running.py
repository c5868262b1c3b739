"""The demo from start to end: the optimizer up, the agents at work, the figures, everything down."""

import asyncio
import os
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from rich.console import Console

from sandbox.demo import expectations, real, table
from sandbox.demo.agents import Sent, Tally, play
from sandbox.demo.errors import Interrupted, Unusable
from sandbox.demo.fleet import fleet_workload
from sandbox.demo.ledger import Call, calls_of_replies, read_ledgers
from sandbox.demo.progress import shown
from sandbox.demo.savings import Figures, figures
from sandbox.demo.trace import SAMPLE, read_trace, trace_workload
from sandbox.demo.up import Ready, Up, demo_folder
from sandbox.demo.workload import Workload

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What the demo is told.

    Attributes:
        workload: `fleet` or `trace`.
        trace: The file to play; None: the project's own sample.
        most: How many requests of a trace are played at most.
        provider: A real provider of the catalogue; None: a simulated one.
        key_env: The variable with the provider's key; None: the catalogue's.
        seconds: How long the requests are spread over.
        folder: Where the optimizer keeps what it keeps.
        json_file: Where to write the figures; None: nowhere.
    """

    workload: Literal["fleet", "trace"] = "fleet"
    trace: Path | None = None
    most: int = 800
    provider: str | None = None
    key_env: str | None = None
    seconds: float = 20.0
    seed: int = 1
    folder: Path = Path(".optimizer")
    json_file: Path | None = None


@dataclass(frozen=True)
class _Plan:
    """What is going to be played, through which provider."""

    workload: Workload
    arguments: tuple[str, ...]
    provider: real.RealProvider | None = None

    @property
    def through(self) -> str:
        """The provider, for people."""
        return self.provider.name if self.provider else "a simulated provider"


async def run_demo(options: Options, console: Console, stop: asyncio.Event) -> int:
    """Runs the demo.

    Args:
        options: What it is told.
        console: Where it prints.
        stop: Set when it is to end early.

    Returns:
        The exit status: 0 when all is as expected, 1 when something is not.

    Raises:
        DemoFailed: It could not be carried out; everything is down again.
        Interrupted: `stop` was set; everything is down again.
    """
    plan = _plan(options)
    if plan.provider:
        console.print(
            f"A real provider: {plan.provider.name}. The ceiling is {real.CEILING_CALLS} calls and "
            f"{real.CEILING_USD} USD in 24 hours; it is a limit in the fleet's configuration.",
            highlight=False,
        )
    console.print(plan.workload.title, highlight=False)
    up = Up(options.folder, plan.arguments)
    try:
        async with up:
            requests, calls, elapsed_s = await _play(plan, up, console, stop)
    finally:
        console.print(f"optimizer up has stopped (exit status {up.exit_status})", highlight=False)
    counted = figures(requests, calls, elapsed_s)
    checked = (*_expected(plan, counted), _stopped_in_order(up))
    table.show(console, plan.workload, counted, checked, plan.through)
    if options.json_file:
        table.write_json(options.json_file, plan.workload, counted, checked, plan.through)
    return 0 if all(one.holds for one in checked) else 1


def _plan(options: Options) -> _Plan:
    run = secrets.token_hex(4)
    if options.provider:
        if options.workload == "trace" or options.trace:
            raise Unusable("--provider: a real provider is never sent a trace; leave out --trace")
        provider = real.find_provider(options.provider, options.key_env, os.environ)
        path = demo_folder(options.folder) / "fleet.toml"
        real.write_fleet(provider, path)
        workload = real.real_workload(provider, options.seed, options.seconds)
        return _Plan(workload, ("--config", str(path)), provider)
    if options.workload == "trace" or options.trace:
        trace = read_trace(options.trace or SAMPLE, options.most)
        return _Plan(trace_workload(trace, options.seed, options.seconds, run), ("--simulate",))
    return _Plan(fleet_workload(options.seed, options.seconds, run), ("--simulate",))


async def _play(
    plan: _Plan, up: Up, console: Console, stop: asyncio.Event
) -> tuple[list[Sent], list[Call], float]:
    console.print(f"starting RabbitMQ, Redis and the workers (log: {up.log_file})", highlight=False)
    ready: Ready = await _unless(stop, up, up.ready())
    tally = Tally(len(plan.workload.asks))
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with shown(tally, console):
        requests = await _unless(stop, up, play(plan.workload, ready.amqp_url, tally))
    elapsed_s = loop.time() - began
    calls = calls_of_replies(requests) if plan.provider else await read_ledgers(ready.simulators.values())
    return requests, calls, elapsed_s


async def _unless(stop: asyncio.Event, up: Up, work: Coroutine[object, object, T]) -> T:
    """The work's result, unless the optimizer ends or somebody wants all of it to."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait(), name="wait for Ctrl-C")
    ending = asyncio.create_task(up.ended(), name="watch optimizer up")
    try:
        await asyncio.wait({working, stopping, ending}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if stopping.done():
            raise Interrupted
        ending.result()
        raise AssertionError("`ended` raises")
    finally:
        for task in (working, stopping, ending):
            task.cancel()
        await asyncio.gather(working, stopping, ending, return_exceptions=True)


def _expected(plan: _Plan, counted: Figures) -> tuple[expectations.Expectation, ...]:
    if plan.provider:
        return expectations.of_real(counted, real.CEILING_CALLS, real.CEILING_USD)
    return expectations.of_simulated(counted)


def _stopped_in_order(up: Up) -> expectations.Expectation:
    return expectations.Expectation(
        "the optimizer drained and stopped in order", up.exit_status == 0, f"exit status {up.exit_status}"
    )
