"""What becomes of the blocking clients' threads and connections when the process ends, or is forked."""

import atexit
import os
import threading
import time
from typing import Final
from weakref import WeakSet

from producer_sdk.pika_calls import PikaCalls

_EXIT_S: Final = 3.0

OPENING: Final = threading.RLock()
"""Held while a driver is made, and while the process is forked: a child never sees half of one."""

DRIVERS: Final[WeakSet[PikaCalls]] = WeakSet()
"""The drivers that this process made."""


@atexit.register
def _close_all() -> None:
    for calls in list(DRIVERS):
        calls.close(0.0, quietly=True)
    until = time.monotonic() + _EXIT_S
    for calls in list(DRIVERS):
        calls.close(max(0.0, until - time.monotonic()), quietly=True)


def _leave_all_to_parent() -> None:
    try:
        for calls in list(DRIVERS):
            calls.leave_to_parent()
        DRIVERS.clear()
    finally:
        OPENING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=OPENING.acquire, after_in_parent=OPENING.release, after_in_child=_leave_all_to_parent
    )
