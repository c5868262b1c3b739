"""The front: admits requests. Duplicates are answered from Redis; the rest become jobs.

The way of a request through here: read, route, `admit`, carry out. Never an acknowledgement before the
broker has confirmed the next hop; whatever dies in between is handed out again and decided again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final

from broker.answers import Admitted, Spot
from broker.flights import Admission, StateAway
from producer_sdk.transport import Delivery, Outgoing, Subscription
from topology import names
from topology.messages import Waiter
from topology.names import Priority
from topology.turns import WeightedTurns
from workers.cancelling import Cancelling, Withdrawal
from workers.deciding import Deciding, Plan
from workers.forecasts import Forecasts
from workers.moving import AGAIN_S, Moving
from workers.obstacles import Lookout
from workers.reading import Readable, Reader, Unfit
from workers.replies import Reached, Replies
from workers.worker import Worker

log = logging.getLogger("optimizer.front")

PREFETCH: Final = 200
_BATCH: Final = 64
_BATCH_BYTES: Final = 4 * 1024 * 1024
"""Reading takes a second for the worst 8 MiB; between batches, the connections have their turn."""


class Front:
    """The role `front`.

    Owns its buffers and tasks. It takes from the queues what its prefetch allows, admits in batches, and
    lets any number of publishes wait for their confirms at once.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._forecasts = Forecasts(worker)
        self._follow_configuration()
        self._moving = Moving(worker)
        self._cancelling = Cancelling(worker)
        self._lookout = Lookout(worker)
        self._deciding = Deciding(worker, self._lookout)
        self._replies = Replies(worker.publisher, worker.events, worker.clock)
        self._buffers: dict[Priority, deque[Delivery]] = {p: deque() for p in Priority}
        self._stirred = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()
        self._unanswered = 0
        self._all_answered = asyncio.Event()
        self._subscriptions: list[Subscription] = []
        self.admitted = 0
        worker.on_lost.append(self._forget)
        worker.on_control.append(self._follow_configuration)
        worker.reports.append(lambda: {"admitted": self.admitted})

    def _follow_configuration(self) -> None:
        """What is built from the configuration; anew after a reload."""
        self._reader = Reader(self._worker, self._forecasts)
        self._turns = WeightedTurns(self._worker.fleet.priorities.shares)

    async def start(self) -> None:
        """Consumes from now on."""
        self._forecasts.start()
        for priority, buffer in self._buffers.items():
            subscription = Subscription(names.requests_queue(priority), PREFETCH, partial(self._take, buffer))
            self._subscriptions.append(subscription)
            await self._worker.subscriber.add(subscription)

    async def run(self) -> None:
        """Admits what comes, until cancelled."""
        while True:
            await self._stirred.wait()
            batch = self._next_batch()
            if not batch:
                self._stirred.clear()
                continue
            await self._serve(batch)

    async def drain(self) -> None:
        """Stops consuming, hands back what was not begun, and finishes what was."""
        self._lookout.close()
        self._forecasts.close()
        for subscription in self._subscriptions:
            await self._worker.subscriber.drop(subscription)
        for buffer in self._buffers.values():
            while buffer:
                buffer.popleft().give_back()
        while self._tasks or self._unanswered:
            self._all_answered.clear()
            if self._tasks:
                await asyncio.wait(self._tasks)
            if self._unanswered:
                await self._all_answered.wait()

    def _take(self, buffer: deque[Delivery], delivery: Delivery) -> None:
        buffer.append(delivery)
        self._stirred.set()

    def _forget(self) -> None:
        for buffer in self._buffers.values():
            buffer.clear()

    def _next_batch(self) -> list[Delivery]:
        batch: list[Delivery] = []
        size_bytes = 0
        while len(batch) < _BATCH and size_bytes < _BATCH_BYTES:
            priority = self._turns.next([p for p, buffer in self._buffers.items() if buffer])
            if priority is None:
                break
            batch.append(self._buffers[priority].popleft())
            size_bytes += len(batch[-1].body)
        return batch

    async def _serve(self, batch: Sequence[Delivery]) -> None:
        try:
            await self._serve_together(batch)
        except Exception as error:  # a fault of ours; find the request it is about, and go on with the rest
            log.exception("a batch failed unexpectedly", extra={"requests": len(batch)})
            if len(batch) > 1:
                for delivery in batch:
                    await self._serve([delivery])
                return
            self._own(self._moving.keep(batch[0], f"internal: {type(error).__name__}"))

    async def _serve_together(self, batch: Sequence[Delivery]) -> None:
        reads = [self._reader.read(delivery) for delivery in batch]
        for _, part in groupby(reads, key=_is_withdrawal):  # in order: a cancel is about what came before it
            await self._serve_alike(list(part))

    async def _serve_alike(self, reads: Sequence[Readable | Withdrawal | Unfit]) -> None:
        """Requests only, or cancels only."""
        if withdrawn := [read for read in reads if isinstance(read, Withdrawal)]:
            await self._cancelling.carry_out(withdrawn)
            return
        fit = [read for read in reads if isinstance(read, Readable)]
        answers = await self._admit([read.admission for read in fit])
        plans = [self._deciding.decide(read, answer) for read, answer in zip(fit, answers, strict=True)]
        plans += [self._deciding.refuse(read) for read in reads if isinstance(read, Unfit)]
        self.admitted += len(fit)
        await self._carry_out(plans)

    def _own(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work, name="front publishes")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _admit(self, admissions: Sequence[Admission]) -> list[Admitted]:
        """Waits as long as Redis is away: the messages are held, and safe in RabbitMQ."""
        while True:
            try:
                return await self._worker.flights.admit(admissions)
            except StateAway as error:
                log.warning("Redis is away, admitting nothing", extra={"error": str(error)})
                await asyncio.sleep(AGAIN_S)

    async def _carry_out(self, plans: Sequence[Plan]) -> None:
        await self._worker.publisher.wait_until_up()
        for plan in plans:
            if plan.publish is not None:
                self._own(self._publish(plan.delivery, plan.publish, plan.spot))
            elif plan.answer is not None:
                self._unanswered += 1
                self._replies.tell(plan.answer, partial(self._answered, plan))
            else:
                plan.delivery.ack()

    async def _publish(self, delivery: Delivery, message: Outgoing, spot: Spot | None) -> None:
        if spot is not None:
            message = await self._worker.sides.placed(message, spot)
        await self._moving.send_on(delivery, message)

    def _answered(self, plan: Plan, reached: Reached) -> None:
        self._unanswered -= 1
        if reached is Reached.NO:
            asyncio.get_running_loop().call_later(AGAIN_S, plan.delivery.give_back)
        elif reached is Reached.AWAY and plan.again is not None:
            self._own(self._moving.send_on(plan.delivery, plan.again))
        elif plan.settle is None:
            plan.delivery.ack()
        else:
            self._own(self._settle(plan.delivery, *plan.settle))
        if not self._unanswered:
            self._all_answered.set()

    async def _settle(self, delivery: Delivery, fingerprint: str, waiter: Waiter) -> None:
        try:
            await self._worker.flights.settle(fingerprint, [waiter])
        except StateAway:
            await asyncio.sleep(AGAIN_S)
            delivery.give_back()  # decided again, and then known to be done
        else:
            delivery.ack()


def _is_withdrawal(read: Readable | Withdrawal | Unfit) -> bool:
    return isinstance(read, Withdrawal)
