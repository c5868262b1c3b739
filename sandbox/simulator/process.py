"""A simulated provider in a process of its own, for tests, demos and benchmarks."""

import json
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from sandbox.simulator.invoice import Form
from sandbox.simulator.ledger import Entry, Summary
from sandbox.simulator.settings import Settings

# Admin calls go to loopback, whatever proxy the environment names.
_OPENER = build_opener(ProxyHandler({}))


class SimulatorProcess:
    """Spawns a simulator on entry and stops it on exit; blocking.

    ::

        with SimulatorProcess(Settings(concurrency=2)) as simulator:
            httpx.post(f"{simulator.base_url}/chat/completions", ...)
            assert simulator.summary().billed == 1

    Args:
        settings: What the provider is told, as `Settings` or as the table of a settings file.
            Default: `Settings()`. Passed through a pipe, so keys show in no process list.
        ledger_path: File that finished calls are appended to as JSON lines. `None`: none.
        port: TCP port on loopback. Default 0: a free one.
        start_timeout_s: Longest wait for the ready line, seconds. Default 30.
        stop_timeout_s: Longest wait after SIGTERM before SIGKILL, seconds. Default 5.
    """

    def __init__(
        self,
        settings: Settings | Mapping[str, Any] | None = None,
        *,
        ledger_path: Path | None = None,
        port: int = 0,
        start_timeout_s: float = 30.0,
        stop_timeout_s: float = 5.0,
    ) -> None:
        given = settings if isinstance(settings, Settings) else Settings(**(settings or {}))
        self._settings = given
        self._ledger_path = ledger_path
        self._port = port
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._base_url: str | None = None

    @property
    def base_url(self) -> str:
        """Where the provider is, ending in /v1.

        Raises:
            RuntimeError: It is not started.
        """
        if self._base_url is None:
            raise RuntimeError("the simulator is not started")
        return self._base_url

    @property
    def pid(self) -> int:
        """The process's id.

        Raises:
            RuntimeError: It is not started.
        """
        if self._process is None:
            raise RuntimeError("the simulator is not started")
        return self._process.pid

    def start(self) -> None:
        """Spawn the process and wait until it accepts connections.

        Raises:
            RuntimeError: It ended, or was not ready in time; its stderr is our stderr.
        """
        command = [sys.executable, "-m", "sandbox.simulator", "--settings", "-", "--with-parent"]
        command += ["--port", str(self._port)]
        if self._ledger_path is not None:
            command += ["--ledger", str(self._ledger_path.absolute())]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],  # where the package is found, installed or not
            start_new_session=True,
        )
        try:
            self._base_url = self._await_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int | None:
        """Stop the process: SIGTERM, later SIGKILL. Stopping twice is harmless.

        Returns:
            Its exit status, negative for a signal; `None` if it was not running.
        """
        process, self._process, self._base_url = self._process, None, None
        if process is None:
            return None
        with process:  # closes the pipes
            process.terminate()
            try:
                process.wait(self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.returncode

    def ledger(self, since: int = 0) -> list[Entry]:
        """Entries numbered above `since`, in order of arrival, calls in progress included."""
        rows = self._ask("GET", f"/ledger?since={since}")["entries"]
        return [Entry.model_validate(row) for row in rows]

    def counts(self) -> tuple[int, int]:
        """How many calls have arrived, and how many are in progress; cheap, however long the ledger is."""
        health = self._ask("GET", "/health")
        return health["calls"], health["in_flight"]

    def summary(self) -> Summary:
        """The ledger in figures."""
        return Summary.model_validate(self._ask("GET", "/summary"))

    def invoice(self, form: Form = "csv") -> str:
        """What it charges for, a line for each call: CSV with a heading, or JSON lines."""
        return self._send("GET", f"/invoice?format={form}").decode()

    def reset(self) -> None:
        """Clear the ledger, the use of limits and the script."""
        self._ask("POST", "/reset")

    def change(self, **settings: object) -> None:
        """Change settings at run time: tables are merged by field, lists replaced whole.

        Raises:
            ValueError: The result is no valid settings; nothing has changed.
        """
        self._ask("PATCH", "/settings", settings)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _await_ready(self, process: subprocess.Popen[str]) -> str:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the simulator's pipes are missing")
        with suppress(BrokenPipeError):  # it has ended; there will be no ready line either
            process.stdin.write(self._settings.model_dump_json())
            process.stdin.close()
        deadline = time.monotonic() + self._start_timeout_s
        readable, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
        if not readable:
            raise RuntimeError("the simulator was not ready in time")
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the simulator ended before it was ready")
        return str(json.loads(line)["base_url"])

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        return json.loads(self._send(method, path, None if body is None else json.dumps(body).encode()))

    def _send(self, method: str, path: str, raw: bytes | None = None) -> bytes:
        url = self.base_url.removesuffix("/v1") + "/_simulator" + path
        request = Request(url, raw, {"content-type": "application/json"}, method=method)  # noqa: S310
        try:
            with _OPENER.open(request, timeout=30.0) as response:
                return bytes(response.read())
        except HTTPError as exc:
            with exc:
                raise ValueError(exc.read().decode()) from None
