"""The recorder: writes the fleet's events into the database, none lost and none counted twice.

A batch is one transaction, and is acknowledged once that is committed. Whoever dies before that leaves it to
be handed out again; what was entered already changes nothing then.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from aiormq import Channel

from hub.store.database import StoreAway, StoreError, Unstorable
from hub.store.entries import Entry, Unreadable, read_entry
from hub.store.ledger import Ledger
from producer_sdk.transport import Delivery, Subscription
from topology import names
from workers.moving import Moving
from workers.worker import Worker

log = logging.getLogger("optimizer.recorder")

BATCH: Final = 500
PREFETCH: Final = 2 * BATCH
_COMPANY_S: Final = 0.1
"""How long an event waits for others to share its transaction with."""
_TEND_EVERY_S: Final = 30.0
_TEND_ON_S: Final = 1.0
_FIRST_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 30.0
_DAY_S: Final = 86400.0


class Recorder:
    """The role `recorder`. Owns its buffer, and the ledger's use.

    While the database is away it holds nothing: what comes waits in RabbitMQ, in order.
    """

    def __init__(self, worker: Worker, ledger: Ledger) -> None:
        self._worker = worker
        self._ledger = ledger
        self._moving = Moving(worker)
        self._subscription = Subscription(names.RECORDER_QUEUE, PREFETCH, self._take, _declare)
        self._buffer: deque[Delivery] = deque()
        self._batch: list[Delivery] = []
        self._stirred = asyncio.Event()
        self._listening = False
        self._writing: asyncio.Task[None] | None = None
        self._tend_at = 0.0
        self._trouble: str | None = None
        self._backoff_s = _FIRST_BACKOFF_S
        worker.on_lost.append(self._buffer.clear)
        worker.reports.append(self._report)

    async def start(self) -> None:
        """Consumes from now on."""
        await self._listen()

    async def run(self) -> None:
        """Records what comes, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self._ledger.open)
                await self._listen()
                await self._record()
            except StoreAway as away:
                await self._hand_back()
                self._say(str(away))
                await asyncio.sleep(self._backoff_s)
                self._backoff_s = min(2 * self._backoff_s, _LONGEST_BACKOFF_S)

    async def drain(self) -> None:
        """Stops consuming, finishes the transaction that has begun, and hands back the rest."""
        if self._writing is not None:
            with suppress(StoreError):  # what was not committed is handed back
                await self._writing
        await self._hand_back()

    async def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            await self._worker.subscriber.add(self._subscription)

    async def _hand_back(self) -> None:
        self._listening = False
        await self._worker.subscriber.drop(self._subscription)
        for delivery in (*self._batch, *self._buffer):
            delivery.give_back()
        self._batch.clear()
        self._buffer.clear()

    def _take(self, delivery: Delivery) -> None:
        self._buffer.append(delivery)
        self._stirred.set()

    async def _record(self) -> None:
        """Until the database is away."""
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._tend_at):
                    await self._stirred.wait()
            if self._stirred.is_set() and len(self._buffer) < BATCH:
                await asyncio.sleep(_COMPANY_S)
            self._batch = [self._buffer.popleft() for _ in range(min(BATCH, len(self._buffer)))]
            if not self._buffer:
                self._stirred.clear()
            if self._batch:
                await self._enter(self._batch)
            if loop.time() >= self._tend_at:
                keep_s = self._worker.fleet.recorder.keep_days * _DAY_S
                more = await asyncio.to_thread(self._ledger.tend, self._worker.clock.now(), keep_s)
                self._tend_at = loop.time() + (_TEND_ON_S if more else _TEND_EVERY_S)

    async def _enter(self, batch: Sequence[Delivery]) -> None:
        fit: list[tuple[Delivery, Entry]] = []
        for delivery in batch:
            try:
                fit.append((delivery, read_entry(delivery.body)))
            except Unreadable as why:
                await self._moving.keep(delivery, str(why))
        if fit:
            await self._write(fit)

    async def _write(self, fit: Sequence[tuple[Delivery, Entry]]) -> None:
        """All of them, or, where the database refuses them, each by itself."""
        self._writing = asyncio.create_task(self._commit(fit), name="write events")
        try:
            await asyncio.shield(self._writing)
        except Unstorable as refused:
            if len(fit) == 1:
                log.warning("an event cannot be stored", extra={"error": str(refused)})
                await self._moving.keep(fit[0][0], f"event: the database refuses it: {refused}")
                return
            for one in fit:
                await self._write([one])

    async def _commit(self, fit: Sequence[tuple[Delivery, Entry]]) -> None:
        await asyncio.to_thread(self._ledger.record, [entry for _, entry in fit])
        for delivery, _ in fit:
            delivery.ack()
        if self._trouble is not None:
            log.info("the database takes events again")
        self._trouble = None
        self._backoff_s = _FIRST_BACKOFF_S

    def _say(self, trouble: str) -> None:
        """Once, however long it lasts."""
        if self._trouble is None:
            log.warning("the database takes no events, waiting for it", extra={"error": trouble})
        self._trouble = trouble

    def _report(self) -> Mapping[str, Any]:
        return {"database": self._trouble or "up"}


async def _declare(channel: Channel) -> None:
    # Here and not in the topology: a queue that nobody reads only grows.
    await channel.queue_declare(names.RECORDER_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.queue_bind(names.RECORDER_QUEUE, names.EVENTS, "optimizer.#")
