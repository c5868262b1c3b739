"""`optimizer up` as a child process: started, waited for, and stopped in order."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field

from sandbox.demo.errors import DemoFailed

READY_TIMEOUT_S: Final = 120.0
DRAIN_TIMEOUT_S: Final = 90.0

_POLL_S: Final = 0.1
_TAIL_LINES: Final = 20


class Ready(BaseModel):
    """What the ready file says: where everything is. URLs may carry passwords, and do not show in `repr`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    amqp_url: str = Field(repr=False)
    redis_url: str = Field(repr=False)
    management_url: str | None = Field(default=None, repr=False)
    simulators: dict[str, str] = {}


class Up:
    """Starts `optimizer up` on entry and stops it on exit, whatever happened between.

    The child leads a session of its own, so that a terminal's Ctrl-C reaches it through us alone, once,
    after the agents have gone. What it writes goes to `folder/demo/up.log`.

    Args:
        folder: The optimizer's own, `.optimizer`.
        arguments: What follows `optimizer up`, such as `["--simulate"]`.
        command: The program itself.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        *,
        command: Sequence[str] = (sys.executable, "-m", "console.main", "up"),
    ) -> None:
        own = demo_folder(folder)
        self.log_file = own / "up.log"
        self._ready_file = own / "ready.json"
        self._command = [*command, *arguments, "--folder", str(folder), "--ready-file", str(self._ready_file)]
        self._child: asyncio.subprocess.Process | None = None
        self.exit_status: int | None = None

    async def ready(self) -> Ready:
        """Waits until everything is ready.

        Raises:
            DemoFailed: It took longer than 120 s; with the last lines of its log.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not self._ready_file.is_file():  # noqa: ASYNC110 - a file tells nobody
                    await asyncio.sleep(_POLL_S)
                value: dict[str, Any] = json.loads(self._ready_file.read_text("utf-8"))
                return Ready.model_validate(value)
        raise DemoFailed(self._epitaph(f"was not ready within {READY_TIMEOUT_S:.0f} s"))

    async def ended(self) -> None:
        """Waits until it ends, and raises `DemoFailed` with the last lines of its log: nobody asked it to."""
        await self._running().wait()
        raise DemoFailed(self._epitaph("ended too early"))

    async def __aenter__(self) -> Self:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)
        with self.log_file.open("wb") as log:
            self._child = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        child = self._running()
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.terminate()
            try:
                await asyncio.wait_for(child.wait(), DRAIN_TIMEOUT_S)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                await child.wait()
        self.exit_status = child.returncode
        self._ready_file.unlink(missing_ok=True)

    def tail(self) -> str:
        """The last lines of what it wrote."""
        lines = self.log_file.read_text("utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(f"  {line}" for line in lines)

    def _epitaph(self, how: str) -> str:
        return f"`optimizer up` {how}; the end of {self.log_file}:\n{self.tail()}"

    def _running(self) -> asyncio.subprocess.Process:
        if self._child is None:
            raise RuntimeError("not started: use `async with`")
        return self._child


def demo_folder(folder: Path) -> Path:
    """Where the demo keeps what is its own: the log, a real provider's configuration."""
    return folder / "demo"
