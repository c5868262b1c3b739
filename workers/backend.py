"""The backend: one provider's pool. It holds what its prefetch allows and starts what its slots allow."""

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Final

from broker.flights import StateAway
from topology.estimates import AnswerLengths
from topology.events import EventType
from topology.fleet import Provider
from topology.names import Priority
from topology.turns import WeightedTurns
from workers.calling import ProviderClient
from workers.emptying import Emptying
from workers.execution import Execution
from workers.line import Attempt, Line
from workers.moving import GoOn, LaterPlease
from workers.notices import TELL_EVERY_S, in_words
from workers.rebalancing import Rebalancing
from workers.worker import Worker

log = logging.getLogger("optimizer.backend")

DRAIN_GRACE_S: Final = 10.0
_COUNT_EVERY_S: Final = 0.2
_LOOK_BESIDE_S: Final = 30
"""How often a pool looks for queues that nobody is left to tell it of."""
_WORTH_TELLING_S: Final = 0.5
"""Waits for a call in flight to end are shorter, and nobody's concern."""


class Pool:
    """The role `backend:<provider>`.

    Owns its lines and the tasks of its calls. A call is no child of a consumer or a channel: when the
    connection breaks, it goes on and commits.
    """

    def __init__(self, worker: Worker, provider: Provider, client: ProviderClient) -> None:
        self._worker = worker
        self._provider = provider
        self._stirred = asyncio.Event()
        self._answers = AnswerLengths()
        self._execution = Execution(worker, provider, client, self._answers)
        self._lines = [
            Line(provider.name, lane, priority, worker.subscriber, self._stirred.set, worker.sides)
            for lane in provider.lanes
            for priority in Priority
        ]
        self._rebalancing = Rebalancing(worker, self._lines)
        self._turns = WeightedTurns(worker.fleet.priorities.shares)
        self._next_line = 0
        self._replicas = 1
        self._slots = provider.concurrency
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._emptying = Emptying(worker, provider.name, [line.queue for line in self._lines])
        worker.on_lost.append(self._forget)
        worker.on_roster.append(self._stirred.set)
        worker.on_control.append(self._stirred.set)
        worker.on_opened.append(self._look_again)
        worker.sides.on_more.append(self._stirred.set)
        worker.reports.append(self._report)

    async def start(self) -> None:
        """Consumes from now on, unless the provider is paused."""
        await self._share_out()

    async def run(self) -> None:
        """Starts jobs as slots and lines allow, and tells who asks why they wait, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._each_second(), name=f"notices {self._provider.name}")
            group.create_task(self._count_agents(), name=f"agents of {self._provider.name}")
            group.create_task(self._rebalancing.run(), name=f"rebalance {self._provider.name}")
            await self._start_jobs()

    async def _start_jobs(self) -> None:
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            await self._share_out()
            while len(self._tasks) < self._slots and (chosen := self._next()):
                task = asyncio.create_task(self._carry_out(chosen), name=f"job {self._provider.name}")
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
            (self._worker.sides.on_more, self._stirred.set),
        ):
            callbacks.remove(own)
        self._worker.reports.remove(self._report)

    async def stop_taking(self) -> None:
        """Starts nothing more: stops consuming and hands back what was not started. Calls go on."""
        self._draining = True
        await self._emptying.end()
        for line in self._lines:
            await line.close()

    async def _share_out(self) -> None:
        """This replica's share of the provider's concurrency; the leases in Redis are the hard bound.

        A paused provider has none: its lines rest, and what waits can be seen in its queues.
        """
        self._replicas = max(1, len(self._worker.roster.pools(self._provider.name)))
        self._slots = max(1, math.ceil(self._provider.concurrency / self._replicas))
        paused = self._worker.paused.get(self._provider.name)
        for line in self._lines:
            if paused:
                await line.rest()
            else:
                await line.consume(self._slots, self._replicas)
        if paused == "drain":
            self._emptying.begin()
        else:
            await self._emptying.end()

    def _next(self) -> Attempt | None:
        priority = self._turns.next({line.priority for line in self._lines if line.is_ready})
        if priority is None:
            return None
        while True:  # lanes take turns
            line = self._lines[self._next_line % len(self._lines)]
            self._next_line += 1
            if line.priority is priority and line.is_ready:
                leaves_a_slot = len(self._tasks) + 1 < self._slots
                return line.take(self._worker.clock.now(), leaves_a_slot=leaves_a_slot)

    async def _carry_out(self, attempt: Attempt) -> None:
        line, held = attempt.line, attempt.held
        try:
            executed = await self._execution.execute(attempt)
        except Exception:  # a fault of ours; one job must not stop the pool, nor be lost
            log.exception("a job failed unexpectedly", extra={"provider": self._provider.name})
            await self._execution.set_aside(held.delivery)
            executed = GoOn()
        finally:
            attempt.decided()
        match executed:
            case GoOn():
                self._use_again(line.lane)
            case LaterPlease() if self._draining:
                held.delivery.give_back()
            case LaterPlease(limit="round") if line.gives_way(attempt):
                pass
            case LaterPlease(seconds=seconds, limit=limit):
                line.put_back(attempt)
                if line.closed_for is None and seconds > _WORTH_TELLING_S:
                    self._worker.events.emit(
                        EventType.RATE_LIMIT,
                        provider=self._provider.name,
                        lane=line.lane,
                        priority=line.priority.value,
                        limit=limit,
                        wait_s=round(seconds, 3),
                    )
                is_new = line.closed_for is None and seconds > 0.0
                line.pause(seconds, limit)
                if is_new:
                    self._tell_askers(line)

    async def _each_second(self) -> None:
        sides = self._worker.sides
        for second in count():
            if second % _LOOK_BESIDE_S == 0:
                for line in self._lines:
                    await sides.look(line.queue)
            sides.hear()
            self._answers.hear(self._answers_of_others())
            for line in self._lines:
                line.measure()
                self._tell_askers(line)
            await asyncio.sleep(TELL_EVERY_S)

    def _answers_of_others(self) -> Iterator[Mapping[str, Any]]:
        for report in self._worker.roster.workers():
            if report["worker"] != self._worker.id:
                yield ((report.get("providers") or {}).get(self._provider.name) or {}).get("answers") or {}

    async def _count_agents(self) -> None:
        while True:
            for line in self._lines:
                with suppress(StateAway):
                    await line.count(self._worker.flights)
            await asyncio.sleep(_COUNT_EVERY_S)

    def _tell_askers(self, line: Line) -> None:
        """Those in hand, whom a closed line or the pool's calls in flight keep waiting."""
        name, notices = self._provider.name, self._worker.notices
        if line.closed_for is not None:
            for waiter in line.askers():
                notices.tell(waiter, in_words(line.closed_for, name), self._opens_at(line))
        elif len(self._tasks) >= self._slots:
            for waiter in line.askers():
                notices.tell(waiter, f"{name} concurrency")

    def _opens_at(self, line: Line) -> float:
        """The instant at which a closed line is looked at again."""
        return self._worker.clock.now() + line.opens_at - asyncio.get_running_loop().time()

    def _use_again(self, lane: str) -> None:
        """A job has just ended: what is surely ours of the provider's concurrency is not polled for."""
        if len(self._tasks) <= self._provider.concurrency // self._replicas:  # the one that ended among them
            for line in self._lines:
                if line.lane == lane and line.waits_for_a_call:
                    line.look_again()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._stirred.set()

    def _forget(self) -> None:
        for line in self._lines:
            line.forget()

    def _look_again(self) -> None:
        for line in self._lines:
            line.look_again()

    def _report(self) -> Mapping[str, Any]:
        closed = [line for line in self._lines if line.closed_for]
        return {
            "providers": {
                self._provider.name: {
                    "running": len(self._tasks),
                    "slots": 0 if self._draining else self._slots,
                    "waiting": sum(line.waiting for line in self._lines),
                    "lanes": list(self._provider.lanes),
                    "answers": self._answers.told(),
                    "drained": self._emptying.done and not self._tasks,
                    "closed": {line.name: line.closed_for for line in closed},
                    "opens_at": {line.name: round(self._opens_at(line), 3) for line in closed},
                }
            }
        }
