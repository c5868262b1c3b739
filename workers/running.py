"""Running roles in a process: start, work, drain, stop."""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final, Protocol

from topology.fleet import Fleet
from workers.backend import Pool
from workers.calling import ProviderClient
from workers.front import Front
from workers.worker import Worker, open_worker

log = logging.getLogger("optimizer.running")

FRONT: Final = "front"
BACKEND: Final = "backend"
ALL: Final = "all"


class UnknownRole(ValueError):
    """A role that no worker has; the text lists those there are."""


class Role(Protocol):
    """What a worker can be."""

    async def start(self) -> None:
        """Consumes from now on."""

    async def run(self) -> None:
        """Works until cancelled."""

    async def drain(self) -> None:
        """Takes nothing more, and finishes or hands back what was taken."""


def expand_roles(roles: Sequence[str], fleet: Fleet) -> tuple[str, ...]:
    """The roles with `backend:all` spelled out.

    Raises:
        UnknownRole: One of them is none, or names a provider that is not enabled.
    """
    expanded: list[str] = []
    for role in roles:
        kind, _, provider = role.partition(":")
        if role == FRONT:
            expanded.append(role)
        elif kind == BACKEND and provider == ALL:
            expanded += [f"{BACKEND}:{name}" for name in fleet.providers]
        elif kind == BACKEND and provider in fleet.providers:
            expanded.append(role)
        else:
            there = ", ".join([FRONT, "backend:all", *(f"backend:{n}" for n in fleet.providers)])
            raise UnknownRole(f"role {role!r} is none of: {there}")
    return tuple(dict.fromkeys(expanded))


async def run_roles(
    roles: Sequence[str],
    fleet: Fleet,
    amqp_url: str,
    redis_url: str,
    *,
    stop: asyncio.Event,
    prefix: str = "",
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Runs the roles until `stop` is set, then drains them and returns.

    Args:
        roles: `front`, `backend:<provider>`, `backend:all`.
        fleet: The configuration; with secrets where there are backends.
        amqp_url: RabbitMQ, with the topology applied.
        redis_url: Redis.
        stop: Set to drain and stop.
        prefix: Put before every Redis key.
        on_ready: Called once all roles consume.

    Raises:
        UnknownRole: A role is none.
    """
    names = expand_roles(roles, fleet)
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(open_worker(fleet, amqp_url, redis_url, names, prefix))
        made = [await _make(name, worker, stack) for name in names]
        await _work(worker, made, stop, on_ready)


async def _make(name: str, worker: Worker, stack: AsyncExitStack) -> Role:
    kind, _, provider_name = name.partition(":")
    if kind == FRONT:
        return Front(worker)
    provider = worker.fleet.providers[provider_name]
    client = await stack.enter_async_context(ProviderClient(provider))
    return Pool(worker, provider, client)


async def _work(
    worker: Worker, roles: Sequence[Role], stop: asyncio.Event, on_ready: Callable[[], None]
) -> None:
    """Starts in order, works, and stops in the order that loses nothing.

    Draining comes before the side tasks end: what is drained still publishes, and is still alive to the
    rest of the fleet while it does.
    """
    for role in roles:
        await role.start()
    await worker.subscriber.wait_until_up()
    await worker.publisher.wait_until_up()
    side = [
        asyncio.create_task(worker.beat(), name="heartbeat"),
        asyncio.create_task(worker.events.run(), name="events"),
    ]
    main = [asyncio.create_task(role.run(), name=f"role {type(role).__name__}") for role in roles]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    connections = [link.task for link in (worker.publisher, worker.subscriber) if link.task]
    on_ready()
    try:
        ended, _ = await asyncio.wait(
            [stopping, *side, *main, *connections], return_when=asyncio.FIRST_COMPLETED
        )
        await _end([stopping, *main])
        await asyncio.gather(*(role.drain() for role in roles))
        worker.report(leaving=True)
    finally:
        await _end(side)
    await worker.events.flush()
    for task in ended - {stopping}:
        task.result()  # a side task that dies stops its worker, loudly


async def _end(tasks: Sequence["asyncio.Task[object]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and Ctrl-C set `stop`; a second one ends the process at once, unfinished calls and all."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            log.warning("stopping at once")
            loop.call_soon(_exit_at_once)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)


def _exit_at_once() -> None:
    raise SystemExit(130)
