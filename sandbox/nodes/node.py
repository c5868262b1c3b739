"""The life of a private server process, whichever server it is."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sandbox.nodes.errors import NodeError, NodeFailed
from sandbox.nodes.ports import is_free, remembered_ports, settle_ports
from sandbox.nodes.processes import Process, find_again, launch, wait_until

_TRIES = 3
_START_LIMIT = 90.0
_ADOPTION_LIMIT = 20.0
_STOP_GRACE = 30.0
_PORTS_LIMIT = 5.0
_TAIL_LINES = 20


@dataclass(frozen=True)
class Launch:
    """How to start a server: absolute path and arguments, and its whole environment."""

    command: tuple[str, ...]
    environ: Mapping[str, str]


class Node(ABC):
    """A server as a private process on 127.0.0.1, with everything it owns in one folder.

    Ports are chosen once and remembered in the folder. A node that a killed process left behind is
    recognised by its pid file and adopted; where it does not answer, it is stopped and replaced.
    One process at a time may use a folder: see ``find_brokers``, which holds a lock on it.
    """

    title: str

    def __init__(self, folder: Path, ports: Mapping[str, int | None], *, keep: bool) -> None:
        self.folder = folder.absolute()
        self._wanted = dict(ports)
        self._keep = keep
        self._ports: dict[str, int] = {}
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            NodeError: The node is not started.
        """
        if self._process is None:
            raise NodeError(f"{self.title} is not started")
        return self._process.pid

    def start(self) -> None:
        """Start the server, or adopt the one that still runs, and wait until it answers.

        Does nothing when already started. Blocks for at most 90 seconds.

        Raises:
            NodeFailed: It died, did not answer in time, or a port that was asked for is in use.
            NoBroker: The server is not installed.
        """
        if self._process is not None:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._adopt():
            return
        self._ports = settle_ports(self._ports_file, self._wanted)
        try:
            for tries_left in reversed(range(_TRIES)):
                process = self._process = self._launch(self._prepare())
                answered = wait_until(lambda: not process.alive or self._answers(), _START_LIMIT)  # noqa: B023
                if process.alive or not tries_left or not self._was_bad_luck():
                    break
            self._check(process, answered=answered)
        except BaseException:
            self.stop()
            raise

    def _launch(self, plan: Launch) -> Process:
        return launch(
            plan.command,
            environ=plan.environ,
            folder=self.folder,
            output=self._output,
            pid_file=self._pid_file,
        )

    def stop(self) -> None:
        """Stop the server in order, by force after 30 seconds; harmless when it is not started.

        The folder is deleted afterwards unless it is to be kept.
        """
        if self._process is None:
            return
        if self._process.alive:
            self._before_stop()
        self._end(self._process)
        self._pid_file.unlink(missing_ok=True)
        self._process = None  # last, so that an interrupted stop can be repeated
        if not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def discard(self) -> None:
        """Delete the folder with all data, ending first a server that a killed process left running."""
        self._ports = remembered_ports(self._ports_file)
        if (left := find_again(self._pid_file)) is not None:
            self._end(left)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self) -> Launch:
        """Write the server's files; ``self._ports`` is settled."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server does its work now; asks for a moment only, raises no network error."""

    def _before_stop(self) -> None:  # noqa: B027  # most need nothing
        """What the server needs before SIGTERM, in at most a few seconds."""

    def _sweep(self) -> None:  # noqa: B027  # most leave nothing
        """Remove what outlives the server; ``self._ports`` may be empty."""

    def _adopt(self) -> bool:
        """Take over the server that a killed process left running in this folder."""
        self._ports = remembered_ports(self._ports_file)
        left = find_again(self._pid_file)
        fits = all(port in (None, self._ports.get(name)) for name, port in self._wanted.items())
        if left is not None and fits and self._ports.keys() >= self._wanted.keys():
            wait_until(lambda: not left.alive or self._answers(), _ADOPTION_LIMIT)
            if left.alive and self._answers():
                self._process = left
                return True
        if left is None:
            self._sweep()
        else:
            self._end(left)
        return False

    def _end(self, process: Process) -> None:
        process.stop(_STOP_GRACE)
        self._sweep()
        # A killed process is a zombie before the last of its threads has let go of its sockets.
        wait_until(lambda: all(is_free(port) for port in self._ports.values()), _PORTS_LIMIT)

    def _was_bad_luck(self) -> bool:
        """Whether a server that ended while it started may well start when it is tried again."""
        return False

    def _check(self, process: Process, *, answered: bool) -> None:
        if not process.alive:
            raise NodeFailed(f"{self.title} ended while it started\n{self._tail()}")
        if not answered:
            raise NodeFailed(f"{self.title} did not answer within {_START_LIMIT:.0f} s\n{self._tail()}")

    def _tail(self) -> str:
        """The last lines of what the server wrote."""
        lines: list[str] = []
        for log in (self._output, *sorted(self.folder.glob("log/*.log"))):
            if log.is_file():
                text = log.read_text(encoding="utf-8", errors="replace")
                lines += [f"{log.name}: {line}" for line in text.splitlines()[-_TAIL_LINES:]]
        return "\n".join(lines)

    @property
    def _ports_file(self) -> Path:
        return self.folder / "ports.json"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    @property
    def _output(self) -> Path:
        return self.folder / "output.log"
