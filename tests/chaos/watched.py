"""A worker as `optimizer worker` runs it, that says every few seconds what it holds, as JSON.

Tasks and memory blocks can be counted from within alone; the rest is what the system says of the process.
"""

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from console.commands import broker_urls, configured_fleet, errors_for_people, run
from console.logs import log_to_stderr
from workers.running import run_roles, stop_on_signals

EVERY_S: Final = 5.0


async def _work(roles: Sequence[str], config: Path) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    loop = asyncio.get_running_loop()
    threading.Thread(target=_say_what_is_held, args=(loop,), name="held", daemon=True).start()
    fleet = configured_fleet(config, secrets=True)
    amqp_url, redis_url = broker_urls()
    await run_roles(roles, fleet, amqp_url, redis_url, stop=stop, on_ready=lambda: _say({"ready": True}))


def _say_what_is_held(loop: asyncio.AbstractEventLoop) -> None:
    """From a thread, so that it is no task itself."""
    while True:
        time.sleep(EVERY_S)
        _say(
            {
                "memory_mib": _resident_bytes() / 2**20,
                "blocks": sys.getallocatedblocks(),
                "tasks": len(asyncio.all_tasks(loop)),
                "open files": len(list(Path("/proc/self/fd").iterdir())),
            }
        )


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _say(value: dict[str, object]) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201 - its output


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.watched")
    parser.add_argument("roles", nargs="+")
    parser.add_argument("--config", type=Path, required=True)
    told = parser.parse_args()
    log_to_stderr()
    with errors_for_people():
        run(_work(told.roles, told.config))


if __name__ == "__main__":
    main()
