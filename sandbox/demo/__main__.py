"""`python -m sandbox.demo`: the demo's command line."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from rich.console import Console

from sandbox.demo.errors import DemoFailed, Interrupted, Unusable
from sandbox.demo.running import Options, run_demo

_LONGEST_S = 300.0
"""Well below the 600 s for which answers are kept, so that a repeat never comes too late."""


_PLAIN_WIDTH = 160
"""Columns where no terminal says how many it has."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name. Default: the process's own.

    Returns:
        The exit status: 0 when all is as expected, 1 when it is not, 2 for options that cannot be
        used, 130 after Ctrl-C.
    """
    options = _read(arguments)
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    try:
        return asyncio.run(_main(options, console))
    except Unusable as error:
        console.print(f"demo: {error}", style="red", highlight=False, markup=False)
        return 2
    except DemoFailed as error:
        console.print(f"demo: {error}", style="red", highlight=False, markup=False)
        return 1
    except (Interrupted, KeyboardInterrupt):
        console.print("interrupted; nothing is left running", highlight=False)
        return 130


async def _main(options: Options, console: Console) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if not stop.is_set():
            console.print("stopping in order, which takes a few seconds", highlight=False)
        stop.set()

    # A second Ctrl-C finds the same handler: it asks again for what is under way.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    return await run_demo(options, console, stop)


def _read(arguments: list[str] | None) -> Options:
    parser = _parser()
    given = parser.parse_args(arguments)
    if not 1.0 <= given.seconds <= _LONGEST_S:
        parser.error(f"--seconds: from 1 to {_LONGEST_S:g}, so that no answer outlives its 600 s")
    if given.requests < 1:
        parser.error("--requests: at least 1")
    return Options(
        workload=given.workload,
        trace=given.trace,
        most=given.requests,
        provider=given.provider,
        key_env=given.key_env,
        seconds=given.seconds,
        seed=given.seed,
        folder=given.folder,
        json_file=given.json,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.demo",
        description="Send 28 agents' requests through a real RabbitMQ, a real Redis and real HTTP.",
    )
    add = parser.add_argument
    add("--workload", choices=("fleet", "trace"), default="fleet", help="timers and bursts, or a file")
    add("--trace", metavar="FILE", type=Path, help="Mooncake JSON lines or Azure CSV; default: a sample")
    add("--requests", metavar="N", type=int, default=800, help="most requests of a trace (default 800)")
    add("--seconds", metavar="S", type=float, default=20.0, help="time to spread them over (default 20)")
    add("--seed", metavar="N", type=int, default=1, help="of the workload (default 1)")
    add("--provider", metavar="NAME", help="a real one, with its key in the environment: 20 calls, 0.05 USD")
    add("--key-env", metavar="VARIABLE", help="the variable with its key; default: the catalogue's")
    add("--folder", metavar="DIR", type=Path, default=Path(".optimizer"), help="default .optimizer")
    add("--json", metavar="FILE", type=Path, help="write the figures there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
