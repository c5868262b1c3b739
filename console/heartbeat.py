"""A file that a living process touches each second, and the check of it: a container's health check.

It says that the process is ready and its event loop turns, and no more. Whether the brokers answer and the
fleet is complete says `optimizer health`: restarting a worker would not bring back a broker.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

HEARTBEAT_FILE: Final = "OPTIMIZER_HEARTBEAT_FILE"
BEAT_S: Final = 1.0
SILENCE_S: Final = 10.0
"""The oldest beat that still counts as life: a worker is busy for less, even on a loaded machine."""


@asynccontextmanager
async def beating(
    ready: asyncio.Event | None = None, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[None]:
    """Touches the file that `OPTIMIZER_HEARTBEAT_FILE` names each second; without the variable, does nothing.

    The file goes on leaving. One that cannot be written is no reason to stop working: the check tells of it.

    Args:
        ready: Set when the first beat may come; None: at once.
        environ: Where the variable is read.
    """
    name = environ.get(HEARTBEAT_FILE)
    if not name:
        yield
        return
    task = asyncio.create_task(_beat(Path(name), ready), name="heartbeat file")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _beat(file: Path, ready: asyncio.Event | None) -> None:
    if ready is not None:
        await ready.wait()
    try:
        while True:
            file.touch()  # noqa: ASYNC240 - a file's time, which in a container is in memory
            await asyncio.sleep(BEAT_S)
    finally:
        file.unlink(missing_ok=True)  # noqa: ASYNC240 - the same


def what_is_wrong(environ: Mapping[str, str] = os.environ) -> str | None:
    """One line on why the process does not count as alive; None when it does."""
    name = environ.get(HEARTBEAT_FILE)
    if not name:
        return f"{HEARTBEAT_FILE} is not set"
    try:
        silent_s = time.time() - Path(name).stat().st_mtime
    except OSError as error:
        return f"no heartbeat: {name}: {error.strerror}"
    return None if silent_s <= SILENCE_S else f"the last heartbeat was {silent_s:.0f} s ago"


if __name__ == "__main__":
    sys.exit(what_is_wrong(os.environ))
