"""The process that workers are forked from: `python -m tests.faults.parent SOCKET`.

It has imported everything a worker needs, has no event loop and no threads, and so has a new worker at work
in a tenth of the time that a fresh interpreter takes. Each connection to its socket is one nursery's: orders
come as lines of JSON, the ends of workers are told the same way.

    {"spawn": 3, "roles": [...], "config": F, "environ": {...}, "line": S, "log": L, "armed": null}
    {"ended": 3, "status": -9}

`armed` is an order that waits from the start. `line` is the socket at which the worker reports, as
`{"worker": 3, "pid": 7}`, and takes its own orders. When a connection ends, its workers are killed; when
stdin ends, all of them, and this process ends too.
"""

import gc
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.orders import Orders
from tests.faults.worker import work


@dataclass
class _Nursery:
    line: socket.socket
    unread: bytes = b""
    children: dict[int, int] = field(default_factory=dict)
    """Process id -> the number that its nursery calls it by."""
    has_left: bool = False

    def say(self, **fields: Any) -> None:
        with suppress(OSError):  # it has left; its end is read next
            self.line.sendall(json.dumps(fields).encode() + b"\n")

    def kill_all(self) -> None:
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)


class Parent:
    """Forks, reaps, tells."""

    def __init__(self, path: str) -> None:
        self._nurseries: list[_Nursery] = []
        self._selector = selectors.DefaultSelector()
        self._entrance = socket.socket(socket.AF_UNIX)
        self._entrance.bind(path)
        self._entrance.listen()
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes):
            end.setblocking(False)

    def serve(self) -> None:
        """Serves until stdin ends."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the test run's affair
        signal.set_wakeup_fd(self._wakes.fileno())
        for readable in (sys.stdin.fileno(), self._entrance, self._woken):
            self._selector.register(readable, selectors.EVENT_READ)
        gc.freeze()  # what is shared with the children stays shared
        print("ready", flush=True)  # noqa: T201 - for who started it
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == sys.stdin.fileno():
                    for nursery in self._nurseries:
                        nursery.kill_all()
                    return
                self._react(key)

    def _react(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._entrance:
            line, _ = self._entrance.accept()
            nursery = _Nursery(line)
            self._nurseries.append(nursery)
            self._selector.register(line, selectors.EVENT_READ, nursery)
        elif key.fileobj is self._woken:
            self._woken.recv(4096)
            self._reap()
        else:
            self._read(key.data)

    def _read(self, nursery: _Nursery) -> None:
        came = nursery.line.recv(1 << 20)
        if not came:
            self._selector.unregister(nursery.line)
            nursery.has_left = True
            nursery.kill_all()
            self._part_with(nursery)
            return
        *lines, nursery.unread = (nursery.unread + came).split(b"\n")
        for line in lines:
            self._spawn(nursery, json.loads(line))

    def _spawn(self, nursery: _Nursery, order: dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            _be_a_worker(order)
        nursery.children[pid] = order["spawn"]

    def _reap(self) -> None:
        while any(nursery.children for nursery in self._nurseries):
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            nursery = next(nursery for nursery in self._nurseries if pid in nursery.children)
            nursery.say(ended=nursery.children.pop(pid), status=os.waitstatus_to_exitcode(status))
            self._part_with(nursery)

    def _part_with(self, nursery: _Nursery) -> None:
        """One that has left is told of its last worker's end before its connection is closed."""
        if nursery.has_left and not nursery.children:
            self._nurseries.remove(nursery)
            nursery.line.close()


def _be_a_worker(order: dict[str, Any]) -> None:
    """Never returns. What the parent holds open is closed, apart from the standard files."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.closerange(3, 4096)
        _open_as(os.devnull, os.O_RDONLY, 0)
        for standard in (1, 2):
            _open_as(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, standard)
        os.environ.clear()
        os.environ.update(order["environ"])
        line = socket.socket(socket.AF_UNIX)
        line.connect(order["line"])
        line.sendall(json.dumps({"worker": order["spawn"], "pid": os.getpid()}).encode() + b"\n")
        orders = Orders(os.dup(line.fileno()), line.fileno())
        if order["armed"]:
            orders.take(order["armed"])
        work(order["roles"], Path(order["config"]), orders, os.environ)
        status = 0
    except BaseException:  # noqa: BLE001 - for the log; a child never goes on as its parent
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _open_as(path: str, flags: int, wanted: int) -> None:
    opened = os.open(path, flags)
    os.dup2(opened, wanted)
    os.close(opened)


if __name__ == "__main__":
    Parent(sys.argv[1]).serve()
