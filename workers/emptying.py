"""Emptying the queues of a drained provider: what waits moves to another candidate of its route."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from aio_pika.abc import AbstractConnection

from broker.declaring import TopologyError
from broker.sweeping import depth, sweep, with_sides
from producer_sdk.connecting import AWAY, CONNECT_TIMEOUT_S, connected
from producer_sdk.transport import Outgoing
from topology import names
from topology.errors import Refused
from topology.fleet import Fleet
from topology.messages import Job
from workers.ending import end_all
from workers.keeping import kept
from workers.moving import Moving
from workers.worker import Worker

log = logging.getLogger("optimizer.emptying")

_LOOK_EVERY_S: Final = 1.0
_State = tuple[int, Mapping[str, str], Fleet]
"""How many wait, and what decides whether they can move."""


class Emptying:
    """Passes over the queues while the provider is drained; owns its task and its connection.

    Only what may come to another end is looked at: a queue is passed over again when messages have come
    to it, or when the configuration or the set of paused providers has changed.

    Attributes:
        done: Whether every queue has been passed over since `begin`; what is left there has nowhere to go.
    """

    def __init__(self, worker: Worker, provider: str, queues: Sequence[str]) -> None:
        self._worker = worker
        self._provider = provider
        self._queues = queues
        self._moving = Moving(worker)
        self._seen: dict[str, _State] = {}
        self._task: asyncio.Task[None] | None = None
        self.done = False

    def begin(self) -> None:
        """Moves what waits, from now on; a second word changes nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"empty {self._provider}")

    async def end(self) -> None:
        """Leaves what waits where it is."""
        task, self._task = self._task, None
        self._seen.clear()
        self.done = False
        if task is not None:
            await end_all([task])

    async def _run(self) -> None:
        while True:
            try:
                async with connected(self._worker.subscriber.url, CONNECT_TIMEOUT_S) as connection:
                    while True:
                        queues = await with_sides(connection, self._queues)
                        passed = [await self._pass_over(connection, queue) for queue in queues]
                        self.done = all(passed)
                        await asyncio.sleep(_LOOK_EVERY_S)
            except (*AWAY, TopologyError) as error:
                log.warning(
                    "emptying is interrupted", extra={"provider": self._provider, "error": str(error)}
                )
            except Exception:  # a fault of ours; the jobs are safe in their queues, and the pool goes on
                log.exception("emptying failed unexpectedly", extra={"provider": self._provider})
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _pass_over(self, connection: AbstractConnection, queue: str) -> bool:
        """Whether nothing can be moved any more; False while another worker has not heard, and consumes."""
        found = await depth(connection, queue)
        if found is None:
            return True
        state = (found[0], self._worker.paused, self._worker.fleet)
        if self._seen.get(queue) == state:
            return True
        stays = 0

        async def onward(body: bytes) -> list[Outgoing]:
            nonlocal stays
            message = await self._onward(queue, body)
            stays += message.routing_key == queue
            return [message]

        passed = await sweep(connection, self._worker.publisher, queue, onward)
        if passed is None:
            return False
        self._seen[queue] = (stays, *state[1:])
        if passed > stays:
            log.info("moved to other providers", extra={"queue": queue, "jobs": passed - stays})
        return True

    async def _onward(self, queue: str, body: bytes) -> Outgoing:
        try:
            job = Job.from_bytes(body)
        except Refused as refused:
            return kept(queue, body, refused.message)
        moved = self._moving.elsewhere(job)
        if moved is None:
            return Outgoing(names.JOBS, queue, body, correlation_id=job.waiter.id, app_id=job.waiter.agent)
        return await self._moving.handed_on(job, moved, "drained")
