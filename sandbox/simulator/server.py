"""Serving the simulated provider until a signal ends it."""

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from typing_extensions import override  # in typing from Python 3.12

from sandbox.simulator.app import create_app
from sandbox.simulator.calls import Waits
from sandbox.simulator.settings import Settings


def run(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 0,
    ledger_path: Path | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, which also ends the calls in progress.

    Args:
        settings: What the provider is told at first.
        host: Address to listen at. Default: loopback.
        port: TCP port. Default 0: a free one.
        ledger_path: File that finished calls are appended to as JSON lines. `None`: none.
        on_ready: Called with the base URL, ending in /v1, once connections are accepted.

    Raises:
        OSError: The address cannot be listened at.
    """
    app = create_app(settings, ledger_path)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
        ws="none",
    )
    logging.getLogger("uvicorn.error").addFilter(_is_unmeant)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol: without it, asyncio leaves the algorithm of Nagle on, and an answer takes 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        shown = f"[{host}]" if ":" in host else host
        base_url = f"http://{shown}:{listener.getsockname()[1]}/v1"
        ready = (lambda: on_ready(base_url)) if on_ready is not None else (lambda: None)
        _Server(config, app.state.waits, ready).run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, waits: Waits, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._waits = waits
        self._ready = ready

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._waits.end_all()
        await super().shutdown(sockets)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Uvicorn would raise the signal again afterwards; here a signal is the ordinary end.
        self.should_exit = True


def _is_unmeant(record: logging.LogRecord) -> bool:
    """Whether a log record is not about a body that was cut on purpose."""
    return record.getMessage() != "ASGI callable returned without completing response."
