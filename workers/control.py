"""What operators tell a worker while it runs: pause, drain, resume; and to read its configuration again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from aiormq import Channel

from broker import declaring
from broker.flights import StateAway
from producer_sdk.transport import Delivery, Subscription
from topology import names
from topology.declaration import declaration
from topology.digest import digest
from topology.errors import Refused
from topology.fleet import Fleet
from topology.loading import ConfigurationError, VariableMissing
from topology.messages import Control
from workers.worker import Worker

log = logging.getLogger("optimizer.control")

LOOK_EVERY_S: Final = 2.0
"""A control message can be lost: what it says stands in Redis, and is found there this often."""
_PREFETCH: Final = 100
_QUEUE_EXPIRES_MS: Final = 60_000


class Listener:
    """Keeps a worker to what operators have said.

    Args:
        worker: Whose `paused` and, by way of `exchange`, `fleet` follow it.
        load: Reads the worker's own configuration again; None: it has none to read.
        exchange: Goes on under another configuration.
    """

    def __init__(
        self,
        worker: Worker,
        load: Callable[[], Fleet] | None,
        exchange: Callable[[Fleet], Awaitable[None]],
    ) -> None:
        self._worker = worker
        self._queue = names.control_queue(worker.id)
        self._load = load
        self._exchange = exchange
        self._told = asyncio.Event()
        self._to_follow: str | None = None
        self._followed: str | None = None
        self._opened: str | None = None
        self._error: str | None = None
        self._config = digest(worker.fleet)
        worker.reports.append(self._report)

    async def open(self) -> None:
        """Finds what was said before this worker started, and listens from now on."""
        with suppress(StateAway):  # `claim` keeps to it even so
            said = await self._worker.controls.read()
            self._worker.paused = said.paused
            self._followed, self._opened = said.reload, said.opened
        await self._worker.learning.look()
        await self._worker.subscriber.add(
            Subscription(self._queue, _PREFETCH, self._on_delivery, self._declare, self._rename)
        )

    async def run(self) -> None:
        """Follows, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._told.wait()
            self._told.clear()
            await self._look()
            await self._worker.learning.look()
            if self._to_follow is not None:
                id_, self._to_follow = self._to_follow, None
                await self._reload(id_)

    def _on_delivery(self, delivery: Delivery) -> None:
        delivery.ack()
        try:
            control = Control.from_bytes(delivery.body)
        except Refused as refused:
            log.warning("unreadable control message", extra={"error": refused.message})
            return
        if control.action == "renew":
            self._worker.underway.renew_now(control.flight)
            return
        log.info("told", extra={"action": control.action, "provider": control.provider})
        if control.action == "reload":
            self._to_follow = control.id
        self._told.set()

    async def _look(self) -> None:
        try:
            said = await self._worker.controls.read()
            if said.forgotten and self._worker.paused:
                await self._worker.controls.write_back(self._worker.paused)
                return
        except StateAway:
            return
        if said.reload is not None and said.reload != self._followed:
            self._to_follow = said.reload
        if said.opened != self._opened:
            self._opened = said.opened
            for callback in self._worker.on_opened:
                callback()
        if said.paused != self._worker.paused:
            log.info("paused providers", extra={"paused": dict(said.paused)})
            self._worker.paused = said.paused
            for callback in self._worker.on_control:
                callback()

    async def _reload(self, id_: str) -> None:
        """Goes on under the configuration as it is now; where it cannot be used, under the one at hand."""
        before = self._worker.fleet
        try:
            fleet = await self._read()
            await self._check_topology(fleet)
        except (ConfigurationError, declaring.TopologyError, OSError) as error:
            self._error = _explained(error)
            log.error("the new configuration cannot be used", extra={"error": self._error})  # noqa: TRY400
        else:
            self._error, self._config = None, digest(fleet)
            if fleet != before:
                await self._exchange(fleet)
            log.info("reloaded", extra={"config": self._config, "changed": fleet != before})
        self._followed = id_

    async def _read(self) -> Fleet:
        if self._load is None:
            raise ConfigurationError("this process was given its configuration and no file to read again")
        return await asyncio.to_thread(self._load)

    async def _check_topology(self, fleet: Fleet) -> None:
        """A consumer of a queue that is missing would take the channel of all the others with it."""
        absent = await declaring.missing(declaration(fleet), self._worker.subscriber.url)
        if absent:
            named = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
            raise declaring.TopologyError(f"{named}: missing in RabbitMQ; run: optimizer topology apply")

    async def _declare(self, channel: Channel) -> None:
        # Not exclusive: after a cut, the broker may hold the old connection for alive for another half
        # minute, and would not let its successor have the queue.
        await channel.queue_declare(
            self._queue,
            durable=True,
            arguments={"x-queue-type": "classic", "x-expires": _QUEUE_EXPIRES_MS},
        )
        await channel.queue_bind(self._queue, names.CONTROL)

    def _rename(self, queue: str) -> None:
        self._queue = queue

    def _report(self) -> Mapping[str, Any]:
        return {
            "paused": dict(self._worker.paused),
            "config": self._config,
            "config_error": self._error,
            "reloaded": self._followed,
        }


def _explained(error: Exception) -> str:
    if isinstance(error, VariableMissing):
        return f"{error}. A running process gets no new variables: name a file ('file:PATH'), or restart it"
    return str(error)
