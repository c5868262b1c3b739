"""What waits in queues that the configuration knows no more: it goes back to the entrance."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from aio_pika.abc import AbstractConnection

from broker.declaring import TopologyError
from broker.sweeping import depth, sweep, with_sides
from producer_sdk.connecting import AWAY, CONNECT_TIMEOUT_S, connected
from topology import names
from topology.fleet import Provider
from topology.names import Priority, RetryTier
from workers.ending import end_all
from workers.returning import onward_from
from workers.worker import Worker

log = logging.getLogger("optimizer.leftovers")

_LOOK_EVERY_S: Final = 5.0
"""A front that has not reloaded yet may send them here again, no faster than this."""
_WATCH_S: Final = RetryTier.FIVE_MINUTES.delay_s + 60.0
"""What went round the longest retry tier is back by then; the rest is for `optimizer topology apply`."""


class Leftovers:
    """Looks after queues for a while once their provider, or their lane, is gone from the configuration.

    Owns its tasks. A queue that somebody consumes is left alone: not every worker need have reloaded.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._tasks: set[asyncio.Task[None]] = set()

    def look_after(self, queues: Sequence[str]) -> None:
        """Sends back what waits there, and what still comes."""
        if queues:
            task = asyncio.create_task(self._watch(list(queues)), name="leftovers")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Leaves what waits where it is."""
        await end_all(self._tasks)

    async def _watch(self, queues: list[str]) -> None:
        until = asyncio.get_running_loop().time() + _WATCH_S
        while queues and asyncio.get_running_loop().time() < until:
            try:
                async with connected(self._worker.subscriber.url, CONNECT_TIMEOUT_S) as connection:
                    while queues and asyncio.get_running_loop().time() < until:
                        queues = [queue for queue in queues if await self._pass_over(connection, queue)]
                        await asyncio.sleep(_LOOK_EVERY_S)
            except (*AWAY, TopologyError) as error:
                log.warning("leftovers must wait", extra={"queues": queues, "error": str(error)})
                await asyncio.sleep(_LOOK_EVERY_S)
            except Exception:  # a fault of ours; the jobs are safe in their queues
                log.exception("leftovers failed unexpectedly", extra={"queues": queues})
                return

    async def _pass_over(self, connection: AbstractConnection, queue: str) -> bool:
        """Whether the queue is to be looked at again."""
        known = {q for provider in self._worker.fleet.providers.values() for q in queues_of(provider)}
        if queue in known or await depth(connection, queue) is None:
            return False
        for one in await with_sides(connection, [queue]):
            passed = await sweep(
                connection, self._worker.publisher, one, onward_from(one, self._worker.flights)
            )
            if passed:
                log.info("sent back to the entrance", extra={"queue": one, "jobs": passed})
        return True


def queues_of(provider: Provider) -> list[str]:
    """The queues of a provider's pool."""
    return [names.jobs_queue(provider.name, lane, p) for lane in provider.lanes for p in Priority]
