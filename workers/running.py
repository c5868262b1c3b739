"""Running roles in a process: start, work, drain, stop."""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from typing import Any

from topology.fleet import Fleet
from workers.control import Listener
from workers.ending import end_all
from workers.roles import ALERTS, ALL, BACKEND, FRONT, RECORDER, UNDERTAKER, Roles, UnknownRole, expand_roles
from workers.worker import Worker, open_worker

log = logging.getLogger("optimizer.running")

__all__ = [
    "ALERTS",
    "ALL",
    "BACKEND",
    "FRONT",
    "RECORDER",
    "UNDERTAKER",
    "UnknownRole",
    "expand_roles",
    "run_roles",
    "stop_on_signals",
]


async def run_roles(
    roles: Sequence[str],
    fleet: Fleet,
    amqp_url: str,
    redis_url: str,
    *,
    stop: asyncio.Event,
    prefix: str = "",
    on_ready: Callable[[], None] = lambda: None,
    load: Callable[[], Fleet] | None = None,
) -> None:
    """Runs the roles until `stop` is set, then drains them and returns.

    Args:
        roles: `front`, `undertaker`, `recorder`, `alerts`, `backend:<provider>`, `backend:all`.
        fleet: The configuration; with secrets where there are backends.
        amqp_url: RabbitMQ, with the topology applied.
        redis_url: Redis.
        stop: Set to drain and stop.
        prefix: Put before every Redis key.
        on_ready: Called once all roles consume.
        load: Reads the configuration again when an operator asks for it, secrets as in `fleet`; None: that is
            refused.

    Raises:
        UnknownRole: A role is none.
    """
    names = expand_roles(roles, fleet)
    async with (
        open_worker(fleet, amqp_url, redis_url, names, prefix) as worker,
        Roles(worker, roles) as filled,
    ):
        listener = Listener(worker, load, filled.exchange)
        await listener.open()
        await _work(worker, filled, listener, stop, on_ready)


async def _work(
    worker: Worker, roles: Roles, listener: Listener, stop: asyncio.Event, on_ready: Callable[[], None]
) -> None:
    """Starts in order, works, and stops in the order that loses nothing.

    Draining comes before the side tasks end: what is drained still publishes, and is still alive to the
    rest of the fleet while it does.
    """
    await roles.start()
    await worker.subscriber.wait_until_up()
    await worker.publisher.wait_until_up()
    side = [
        asyncio.create_task(worker.beat(), name="heartbeat"),
        asyncio.create_task(worker.events.run(), name="events"),
        asyncio.create_task(worker.books.run(), name="books"),
    ]
    roles.run()
    listening = asyncio.create_task(listener.run(), name="control")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    connections = [link.task for link in (worker.publisher, worker.subscriber) if link.task]
    on_ready()
    try:
        watched: list[asyncio.Future[Any]] = [stopping, listening, roles.failed, *side, *connections]
        ended, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        await end_all([stopping, listening])
        await roles.drain()
        worker.report(leaving=True)
    finally:
        await end_all([*side, stopping, listening])
    await worker.books.settle()
    await worker.events.flush()
    for task in ended - {stopping}:
        task.result()  # a side task that dies stops its worker, loudly


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
