"""The backend: one provider's pool. It holds what its prefetch allows and starts what its slots allow."""

import asyncio
import logging
import math
from collections.abc import Mapping
from typing import Any, Final

from topology.events import EventType
from topology.fleet import Provider
from topology.names import Priority
from topology.turns import WeightedTurns
from workers.calling import ProviderClient
from workers.execution import Execution
from workers.lane import Held, Lane
from workers.moving import GoOn, LaterPlease
from workers.worker import Worker

log = logging.getLogger("optimizer.backend")

DRAIN_GRACE_S: Final = 10.0
_WORTH_TELLING_S: Final = 0.5
"""Waits for a call in flight to end are shorter, and nobody's concern."""


class Pool:
    """The role `backend:<provider>`.

    Owns its lanes and the tasks of its calls. A call is no child of a consumer or a channel: when the
    connection breaks, it goes on and commits.
    """

    def __init__(self, worker: Worker, provider: Provider, client: ProviderClient) -> None:
        self._worker = worker
        self._provider = provider
        self._stirred = asyncio.Event()
        self._execution = Execution(worker, provider, client)
        self._lanes = [
            Lane(provider.name, name, worker.subscriber, self._stirred.set) for name in provider.lanes
        ]
        shares = worker.fleet.priorities
        self._turns = WeightedTurns({p: float(getattr(shares, p.value)) for p in Priority})
        self._next_lane = 0
        self._slots = provider.concurrency
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        worker.on_lost.append(self._forget)
        worker.on_roster.append(self._stirred.set)
        worker.reports.append(self._report)

    async def start(self) -> None:
        """Consumes from now on."""
        for lane in self._lanes:
            await lane.consume(self._slots)

    async def run(self) -> None:
        """Starts jobs as slots and lanes allow, until cancelled."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            await self._share_out()
            while len(self._tasks) < self._slots and (chosen := self._next()):
                lane, priority, held = chosen
                task = asyncio.create_task(
                    self._execute(lane, priority, held), name=f"job {self._provider.name}"
                )
                self._tasks.add(task)
                task.add_done_callback(self._ended)

    async def drain(self) -> None:
        """Stops consuming, hands back what was not started, and lets running calls finish.

        Calls are bounded by the provider's `timeout_s`; after that and some grace, what is left is
        abandoned to redelivery.
        """
        self._draining = True
        for lane in self._lanes:
            await lane.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._provider.timeout_s + DRAIN_GRACE_S)
        for task in list(self._tasks):
            task.cancel()

    async def _share_out(self) -> None:
        """This replica's share of the provider's concurrency; the leases in Redis are the hard bound."""
        replicas = max(1, len(self._worker.roster.pools(self._provider.name)))
        self._slots = max(1, math.ceil(self._provider.concurrency / replicas))
        for lane in self._lanes:
            if lane.closed_for is None:
                await lane.consume(self._slots)

    def _next(self) -> tuple[Lane, Priority, Held] | None:
        ready = {lane: lane.ready() for lane in self._lanes}
        priority = self._turns.next({p for priorities in ready.values() for p in priorities})
        if priority is None:
            return None
        for _ in self._lanes:  # lanes of one priority take turns
            lane = self._lanes[self._next_lane % len(self._lanes)]
            self._next_lane += 1
            if priority in ready[lane]:
                return lane, priority, lane.take(priority)
        return None

    async def _execute(self, lane: Lane, priority: Priority, held: Held) -> None:
        try:
            executed = await self._execution.execute(held.delivery)
        except Exception:  # a fault of ours; one job must not stop the pool, nor be lost
            log.exception("a job failed unexpectedly", extra={"provider": self._provider.name})
            await self._execution.set_aside(held.delivery)
            return
        match executed:
            case GoOn():
                pass
            case LaterPlease(seconds=seconds, limit=limit):
                if self._draining:
                    await held.delivery.give_back()
                    return
                lane.put_back(held, priority)
                if lane.closed_for is None and seconds > _WORTH_TELLING_S:
                    self._worker.events.emit(
                        EventType.RATE_LIMIT,
                        provider=self._provider.name,
                        lane=lane.name,
                        limit=limit,
                        wait_s=round(seconds, 3),
                    )
                lane.pause(seconds, limit)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._stirred.set()

    def _forget(self) -> None:
        for lane in self._lanes:
            lane.forget()

    def _report(self) -> Mapping[str, Any]:
        return {
            "providers": {
                self._provider.name: {
                    "running": len(self._tasks),
                    "slots": self._slots,
                    "waiting": sum(lane.waiting() for lane in self._lanes),
                    "lanes": [lane.name for lane in self._lanes],
                    "closed": {lane.name: lane.closed_for for lane in self._lanes if lane.closed_for},
                }
            }
        }
