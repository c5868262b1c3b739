"""One process at a time may use a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.nodes.errors import FolderInUse


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold ``folder/lock`` for this process; the kernel lets go when the process ends, however.

    Raises:
        FolderInUse: Another process holds it; the text names its pid.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise FolderInUse(f"{folder} is in use by process {holder}: stop that one first") from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
