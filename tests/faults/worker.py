"""A worker that dies or freezes where it is told to: `python -m tests.faults.worker ROLE... --config F`.

As `optimizer worker` otherwise; SIGUSR1 has it log where its tasks stand. Orders come on stdin, see
`orders.py`. Times that are constants in production can be shortened by the environment, so that a test of
what follows them is quick.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from console.commands import broker_urls, configured_fleet, errors_for_people, run
from console.logs import log_to_stderr
from tests.faults.orders import Orders
from tests.faults.seams import wrap_seams
from tests.support.stacks import stacks
from workers.running import run_roles, stop_on_signals

SHORTENED: Final = ("LEASE_S", "RENEW_EVERY_S", "BACKOFF_S")
"""Constants of `broker.flights`; `FAULTS_<name>` in the environment takes their place."""
IN_CALL_S: Final = "FAULTS_IN_CALL_S"
PREFIX: Final = "FAULTS_PREFIX"


def work(roles: Sequence[str], config: Path, orders: Orders, environ: Mapping[str, str]) -> None:
    """Works until SIGTERM, or until an order ends it.

    Args:
        roles: As for `optimizer worker`.
        config: The fleet's file.
        orders: Listened to from now on.
        environ: The brokers' URLs, the keys, and what is to be shortened.
    """
    _shorten(environ)
    wrap_seams(orders, roles[0].partition(":")[0], float(environ.get(IN_CALL_S, "0.05")))
    orders.listen()
    log_to_stderr()
    with errors_for_people():
        run(_work(roles, config, orders, environ.get(PREFIX, "")))


async def _work(roles: Sequence[str], config: Path, orders: Orders, prefix: str) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: sys.stderr.write(stacks()))
    amqp_url, redis_url = broker_urls()
    await run_roles(
        roles, configured_fleet(config, secrets=True), amqp_url, redis_url,
        stop=stop, prefix=prefix, on_ready=lambda: orders.say(ready=True),
        load=lambda: configured_fleet(config, secrets=True),
    )  # fmt: skip


def _shorten(environ: Mapping[str, str]) -> None:
    """Each module that uses one of the constants has a name of its own for it."""
    ours = [m for name, m in sys.modules.items() if name.partition(".")[0] in {"broker", "workers"}]
    for constant in SHORTENED:
        if value := environ.get(f"FAULTS_{constant}"):
            for module in ours:
                if hasattr(module, constant):
                    setattr(module, constant, float(value))


def main() -> None:
    """Runs one worker on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.worker")
    parser.add_argument("roles", nargs="+")
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    work(options.roles, options.config, Orders(sys.stdin.fileno(), sys.stdout.fileno()), os.environ)


if __name__ == "__main__":
    main()
