"""`optimizer gateway`: the HTTP gateway, for clients that speak OpenAI's protocol."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from console.commands import broker_url, configured_fleet, errors_for_people, run, says
from console.heartbeat import beating
from console.logs import log_to_stderr
from gateway.server import base_url, listen, run_gateway
from gateway.speakers import Speakers
from producer_sdk.settings import AMQP_URL
from topology.fleet import Fleet
from workers.running import stop_on_signals


def gateway_command(
    host: Annotated[
        str | None, typer.Option(help="Where to listen; default: 127.0.0.1, or what fleet.toml says.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="0: a free one; default: 8080, or what fleet.toml says.")
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Take callers from elsewhere than this machine without tokens.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="The fleet's file; default: fleet.toml, if there is one.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Serve OpenAI's protocol over HTTP, until SIGTERM or Ctrl-C, which drain it.

        optimizer gateway
        OPENAI_BASE_URL=http://127.0.0.1:8080/v1 python your_program.py

    Any number may run: they hold nothing.
    """
    log_to_stderr(verbose=verbose)
    with errors_for_people():
        fleet = with_gateway(configured_fleet(config, secrets=False), host, port, open_=open_)
        speakers, amqp_url = Speakers(fleet.gateway), broker_url(AMQP_URL)
        listener = listen(fleet.gateway.host, fleet.gateway.port)

        async def serve() -> None:
            stop, ready = asyncio.Event(), asyncio.Event()
            stop_on_signals(stop)

            def on_ready() -> None:
                says(f"export OPENAI_BASE_URL='{base_url(listener)}'")
                says("ready")
                ready.set()

            async with beating(ready):
                await run_gateway(
                    fleet, speakers, amqp_url, listener, stop=stop, on_ready=on_ready,
                    load=lambda: configured_fleet(config, secrets=False),
                )  # fmt: skip

        run(serve())


@dataclass(frozen=True)
class Beside:
    """The gateway that `optimizer up` runs beside its workers."""

    listener: socket.socket

    @property
    def base_url(self) -> str:
        """What clients on this machine take as their base URL."""
        return base_url(self.listener)

    @asynccontextmanager
    async def drained_first(
        self, fleet: Fleet, amqp_url: str, stop: asyncio.Event, load: Callable[[], Fleet]
    ) -> AsyncIterator[asyncio.Event]:
        """Serves until `stop`; gives what stops the workers: set when the gateway has its last answer."""
        drained = asyncio.Event()

        async def serve() -> None:
            try:
                speakers = Speakers(fleet.gateway)
                await run_gateway(fleet, speakers, amqp_url, self.listener, stop=stop, load=load)
            finally:
                drained.set()

        serving = asyncio.create_task(serve(), name="gateway")
        try:
            yield drained
        finally:
            stop.set()
            await serving


@contextmanager
def gateway_beside(fleet: Fleet, port: int | None) -> Iterator[Beside | None]:
    """The gateway's place, taken at once; None without a port.

    Raises:
        ConfigurationError: It cannot listen there, or may not.
    """
    if port is None:
        yield None
        return
    Speakers(fleet.gateway)
    with listen(fleet.gateway.host, port) as listener:
        yield Beside(listener)


def with_gateway(
    fleet: Fleet, host: str | None = None, port: int | None = None, *, open_: bool = False
) -> Fleet:
    """The fleet with what the command line says of its gateway; None: what the fleet says."""
    given = {"host": host, "port": port, "open": open_ or None}
    section = fleet.gateway.model_copy(update={k: v for k, v in given.items() if v is not None})
    return fleet.model_copy(update={"gateway": section})
