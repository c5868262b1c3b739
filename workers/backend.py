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
from workers.emptying import Emptying
from workers.execution import Execution
from workers.lane import Held, Lane
from workers.moving import GoOn, LaterPlease
from workers.notices import TELL_EVERY_S, in_words
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
        queues = [queue for lane in self._lanes for queue in lane.queues]
        self._emptying = Emptying(worker, provider.name, queues)
        worker.on_lost.append(self._forget)
        worker.on_roster.append(self._stirred.set)
        worker.on_control.append(self._stirred.set)
        worker.on_opened.append(self._look_again)
        worker.reports.append(self._report)

    async def start(self) -> None:
        """Consumes from now on, unless the provider is paused."""
        await self._share_out()

    async def run(self) -> None:
        """Starts jobs as slots and lanes allow, and tells who asks why they wait, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_waits(), name=f"notices {self._provider.name}")
            await self._start_jobs()

    async def _start_jobs(self) -> None:
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
        await self.stop_taking()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._provider.timeout_s + DRAIN_GRACE_S)
        for task in list(self._tasks):
            task.cancel()

    async def retire(self) -> None:
        """Stops consuming and hands back; returns when the last call has ended, however long that takes.

        The worker lives on, so nothing would be redelivered that is abandoned here.
        """
        await self.stop_taking()
        while self._tasks:
            await asyncio.wait(self._tasks)
        for callbacks, own in (
            (self._worker.on_lost, self._forget),
            (self._worker.on_roster, self._stirred.set),
            (self._worker.on_control, self._stirred.set),
            (self._worker.on_opened, self._look_again),
        ):
            callbacks.remove(own)
        self._worker.reports.remove(self._report)

    async def stop_taking(self) -> None:
        """Starts nothing more: stops consuming and hands back what was not started. Calls go on."""
        self._draining = True
        await self._emptying.end()
        for lane in self._lanes:
            await lane.close()

    async def _share_out(self) -> None:
        """This replica's share of the provider's concurrency; the leases in Redis are the hard bound.

        A paused provider has none: its lanes rest, and what waits can be seen in its queues.
        """
        replicas = max(1, len(self._worker.roster.pools(self._provider.name)))
        self._slots = max(1, math.ceil(self._provider.concurrency / replicas))
        paused = self._worker.paused.get(self._provider.name)
        for lane in self._lanes:
            if paused:
                await lane.rest()
            else:
                await lane.consume(self._slots)
        if paused == "drain":
            self._emptying.begin()
        else:
            await self._emptying.end()

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
                    held.delivery.give_back()
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
                is_new = lane.closed_for is None and seconds > 0.0
                lane.pause(seconds, limit)
                if is_new:
                    self._tell_askers(lane)

    async def _tell_waits(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            for lane in self._lanes:
                self._tell_askers(lane)

    def _tell_askers(self, lane: Lane) -> None:
        """Those in hand, whom a closed lane or the pool's calls in flight keep waiting."""
        name, notices = self._provider.name, self._worker.notices
        if lane.closed_for is not None:
            for waiter, position in lane.askers():
                notices.tell(waiter, in_words(lane.closed_for, name), self._opens_at(lane), position)
        elif len(self._tasks) >= self._slots:
            for waiter, position in lane.askers():
                notices.tell(waiter, f"{name} concurrency", position=position)

    def _opens_at(self, lane: Lane) -> float:
        """The instant at which a closed lane is looked at again."""
        return self._worker.clock.now() + lane.opens_at - asyncio.get_running_loop().time()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._stirred.set()

    def _forget(self) -> None:
        for lane in self._lanes:
            lane.forget()

    def _look_again(self) -> None:
        for lane in self._lanes:
            lane.look_again()

    def _report(self) -> Mapping[str, Any]:
        return {
            "providers": {
                self._provider.name: {
                    "running": len(self._tasks),
                    "slots": 0 if self._draining else self._slots,
                    "waiting": sum(lane.waiting() for lane in self._lanes),
                    "lanes": [lane.name for lane in self._lanes],
                    "drained": self._emptying.done and not self._tasks,
                    "closed": {lane.name: lane.closed_for for lane in self._lanes if lane.closed_for},
                    "opens_at": {
                        lane.name: round(self._opens_at(lane), 3) for lane in self._lanes if lane.closed_for
                    },
                }
            }
        }
