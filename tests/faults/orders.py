"""What a worker was told to do at which point, and doing it.

Orders come as lines of JSON on a file descriptor, read by a thread: a frozen event loop takes them too.

    {"point": "backend.after_commit", "nth": 1, "do": "kill"}      kill | stop, when it is passed the nth time

Said is, as lines of JSON on another:

    {"ready": true}                                             all roles consume
    {"armed": "backend.after_commit"}                           the order is taken
    {"point": "backend.after_commit", "pid": 7, "flight": "…"}  it is carried out now; the flight where known
"""

import json
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_SIGNALS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass
class _Order:
    passes_left: int
    number: signal.Signals


class Orders:
    """The orders of one worker process.

    Args:
        reads: The file descriptor that orders come on. Its end ends the process: nobody is left who would.
        writes: The file descriptor to speak on.
    """

    def __init__(self, reads: int, writes: int) -> None:
        self._reads = reads
        self._writes = writes
        self._orders: dict[str, _Order] = {}

    def listen(self) -> None:
        """Takes orders from now on."""
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def take(self, order: Mapping[str, Any]) -> None:
        """One order, in place of an earlier one at its point."""
        self._orders[order["point"]] = _Order(order["nth"], _SIGNALS[order["do"]])

    def say(self, **fields: Any) -> None:
        """One line, in one write."""
        os.write(self._writes, json.dumps(fields).encode() + b"\n")

    def is_armed(self, point: str) -> bool:
        """Whether an order waits at this point."""
        return point in self._orders

    def passing(self, point: str, flight: str | None = None) -> None:
        """Called at a point: goes on, unless this is where and when to die or to freeze."""
        order = self._orders.get(point)
        if order is None:
            return
        order.passes_left -= 1
        if order.passes_left <= 0:
            del self._orders[point]
            self.say(point=point, pid=os.getpid(), flight=flight)
            os.kill(os.getpid(), order.number)

    def _read(self) -> None:
        with os.fdopen(self._reads, encoding="utf-8") as lines:
            for line in lines:
                order = json.loads(line)
                self.take(order)
                self.say(armed=order["point"])
        os._exit(1)
