"""Signs of life for whoever started the process: a file for a container's health check, words for systemd.

They say that the process is ready and its event loop turns, and no more. Whether the brokers answer and the
fleet is complete says `optimizer health`: restarting a worker would not bring back a broker.
"""

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

HEARTBEAT_FILE: Final = "OPTIMIZER_HEARTBEAT_FILE"
NOTIFY_SOCKET: Final = "NOTIFY_SOCKET"
"""Where systemd listens, for services of `Type=notify` (sd_notify(3))."""
BEAT_S: Final = 1.0
SILENCE_S: Final = 10.0
"""The oldest beat that still counts as life: a worker is busy for less, even on a loaded machine."""


@asynccontextmanager
async def beating(
    ready: asyncio.Event | None = None, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[None]:
    """Each second touches the file that `OPTIMIZER_HEARTBEAT_FILE` names, and tells systemd that we live.

    Without these variables it does nothing. The file goes on leaving. One that cannot be written is no reason
    to stop working: the check tells of it. systemd hears `READY=1` once, and `WATCHDOG=1` with each beat.

    Args:
        ready: Set when the first beat may come; None: at once.
        environ: Where the variables are read.
    """
    file, systemd = environ.get(HEARTBEAT_FILE), environ.get(NOTIFY_SOCKET)
    if not file and not systemd:
        yield
        return
    task = asyncio.create_task(_beat(Path(file) if file else None, systemd, ready), name="signs of life")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _beat(file: Path | None, systemd: str | None, ready: asyncio.Event | None) -> None:
    if ready is not None:
        await ready.wait()
    words = b"READY=1\nWATCHDOG=1"
    try:
        while True:
            if file is not None:
                file.touch()  # noqa: ASYNC240 - a file's time, which in a container is in memory
            if systemd is not None:
                _notify(systemd, words)
                words = b"WATCHDOG=1"
            await asyncio.sleep(BEAT_S)
    finally:
        if file is not None:
            file.unlink(missing_ok=True)  # noqa: ASYNC240 - the same


def _notify(systemd: str, words: bytes) -> None:
    """One datagram. What systemd does not take now it gets a second later, or its watchdog is right."""
    address = f"\0{systemd[1:]}" if systemd.startswith("@") else systemd
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.setblocking(False)
        line.sendto(words, address)


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
