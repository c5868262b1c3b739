"""Server processes that can be recognised again: a pid file with identity, and an orderly end."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_KILL_LIMIT = 10.0


@dataclass(frozen=True)
class Process:
    """One server process, which leads its own session and process group.

    Attributes:
        pid: Its process id, and that of its group.
        birth: When it was born, in the system's own terms; a recycled pid has another birth.
        child: The handle when this Python process started it, ``None`` when it was found again.
    """

    pid: int
    birth: str
    child: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether it still runs; reaps it when it was our child and has ended."""
        if self.child is not None:
            return self.child.poll() is None
        return _birth(self.pid) == self.birth

    def stop(self, grace: float) -> None:
        """Send SIGTERM, wait up to ``grace`` seconds, then SIGKILL the whole group."""
        if self.alive:
            os.kill(self.pid, signal.SIGTERM)
        if not wait_until(lambda: not self.alive, grace):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            wait_until(lambda: not self.alive, _KILL_LIMIT)


def launch(
    command: Sequence[str], *, environ: Mapping[str, str], folder: Path, output: Path, pid_file: Path
) -> Process:
    """Start a server in a session of its own, so that a terminal's Ctrl-C does not reach it.

    Args:
        command: Absolute path of the program and its arguments.
        environ: The whole environment of the server.
        folder: Its working directory.
        output: File for its standard output and error, emptied first.
        pid_file: Written at once, see :func:`find_again`.
    """
    with output.open("wb") as sink:
        child = subprocess.Popen(  # noqa: S603  # the command is built by our nodes
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = Process(child.pid, _birth(child.pid) or "", child)
    pid_file.write_text(f"{process.pid} {process.birth}\n", encoding="utf-8")
    return process


def find_again(pid_file: Path) -> Process | None:
    """The process a pid file names, if that very process still runs; otherwise ``None``."""
    try:
        pid, _, birth = pid_file.read_text(encoding="utf-8").strip().partition(" ")
        process = Process(int(pid), birth)
    except (OSError, ValueError):
        return None
    return process if birth and process.alive else None


def wait_until(condition: Callable[[], bool], limit: float, interval: float = 0.05) -> bool:
    """Ask ``condition`` every ``interval`` seconds; ``False`` when ``limit`` seconds pass first."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


def _birth(pid: int) -> str | None:
    """When this process was born; ``None`` when it is gone or a zombie."""
    try:
        # The name, in parentheses, may hold spaces; field 3 is the state, 22 the start in ticks.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _birth_by_ps(pid)
    return None if fields[0] == "Z" else f"{boot}/{fields[19]}"


def _birth_by_ps(pid: int) -> str | None:
    answer = subprocess.run(  # noqa: S603  # a fixed command with a number
        ["/bin/ps", "-p", str(pid), "-o", "stat=", "-o", "lstart="],
        capture_output=True,
        text=True,
        check=False,
    )
    state, _, born = answer.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else " ".join(born.split())
