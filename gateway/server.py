"""Serving the gateway inside an event loop: listen, drain, stop."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import uvicorn
from starlette.applications import Starlette
from typing_extensions import override  # in typing from Python 3.12

from gateway.app import Desk, create_app
from gateway.following import Configured
from gateway.health import Health
from gateway.metrics import Metrics
from gateway.speakers import Speakers
from gateway.traffic import Traffic
from producer_sdk.calls import AsyncCalls
from producer_sdk.roster import Roster
from producer_sdk.transport import Subscriber
from topology import names
from topology.fleet import Fleet
from topology.loading import ConfigurationError
from topology.messages import new_id

log = logging.getLogger("optimizer.gateway")

_BACKLOG: Final = 2048
_KEEP_ALIVE_S: Final = 75.0
"""Longer than load balancers keep an idle connection, so that it is never we who cut one in use."""
_GOODBYE_S: Final = 2
"""For writing the last answers, after the drain."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; clients that come before the server runs wait in its backlog.

    Raises:
        ConfigurationError: The address cannot be listened at.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With its protocol's number: without it, asyncio leaves Nagle's algorithm on, 40 ms for an answer.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"the gateway cannot listen at {host}, port {port}: {error.strerror}; choose another with --port"
        ) from None
    return listener


def base_url(listener: socket.socket) -> str:
    """What clients on this machine take as their base URL."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened at
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


async def run_gateway(
    fleet: Fleet,
    speakers: Speakers,
    amqp_url: str,
    listener: socket.socket,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[], None] = lambda: None,
    load: Callable[[], Fleet] | None = None,
) -> None:
    """Serves until `stop` is set, then drains and returns.

    While it drains, new calls and `/health` are answered 503; calls under way have `drain_s` seconds.
    RabbitMQ may be away, then and at any other time.

    Args:
        fleet: The configuration; no secret of a provider is needed.
        speakers: Who may ask.
        amqp_url: RabbitMQ.
        listener: Where to serve; closed at the end.
        stop: Set to drain and stop.
        on_ready: Called once calls are taken.
        load: Reads the configuration again, after the workers have; None: it stays.
    """
    client = names.slug(f"{socket.gethostname()}-{os.getpid()}")
    nonce = new_id()[-12:]
    calls = AsyncCalls(amqp_url, "gateway", names.reply_queue("gateway", client, nonce))
    watch = Subscriber(amqp_url, "gateway watching")
    roster = Roster(f"gateway-{client}-{nonce}")
    configured = Configured(fleet, load)
    health = Health(configured, roster, calls.publisher, calls.subscriber, watch)
    desk = Desk(configured, speakers, calls, Traffic(), health, Metrics(health))
    async with _served(create_app(desk), listener) as serving, calls, watch:
        await roster.listen(watch)
        on_ready()
        links = [link.task for link in (calls.publisher, calls.subscriber, watch) if link.task]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        following = asyncio.create_task(configured.follow(roster), name="configuration")
        side = [serving, *links, *([following] if load else [])]
        try:
            ended, _ = await asyncio.wait([stopping, *side], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            following.cancel()
        for task in ended - {stopping}:
            task.result()  # a side task that dies stops the gateway, loudly
        log.info("draining", extra={"in_flight": len(desk.traffic)})
        await desk.traffic.drain(fleet.gateway.drain_s)
        # Leaving `calls` answers what is left: 503. It is not withdrawn, and may be there for the next try.


@asynccontextmanager
async def _served(app: Starlette, listener: socket.socket) -> AsyncIterator["asyncio.Task[None]"]:
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            backlog=_BACKLOG,
            timeout_keep_alive=int(_KEEP_ALIVE_S),
            timeout_graceful_shutdown=_GOODBYE_S,
        )
    )
    serving = asyncio.create_task(server.serve([listener]), name="http server")
    ready = asyncio.create_task(server.ready.wait(), name="http server starts")
    try:
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        yield serving
    finally:
        ready.cancel()
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they belong to whoever runs us
