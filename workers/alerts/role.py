"""The role `alerts`: listens to how calls go, looks what is left of quotas, and tells each alert once.

Of all replicas the one that holds the lease in Redis does it. What it knows is written there before it is
told, so that whoever follows goes on where it stopped.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import httpx
from aiormq import Channel

from broker.flights import StateAway
from broker.remaining import Quotas, Remaining
from producer_sdk.transport import Delivery, Subscription
from topology import names
from topology.alerts import State, Trouble
from topology.errors import Refused
from topology.loading import ConfigurationError
from topology.messages import Event, new_id
from workers.alerts.firing import News, follow
from workers.alerts.heard import HEARD, hear, still_wrong
from workers.alerts.memory import Memory
from workers.alerts.outbox import Outbox, Tell
from workers.alerts.rules import of_calls, of_days, of_limits
from workers.alerts.webhooks import Target, post, targets_of
from workers.worker import Worker

log = logging.getLogger("optimizer.alerts")

_LOOK_EVERY_S: Final = 1.0
_LIMITS_EVERY_S: Final = 5.0
_LEAST_PAUSE_S: Final = 0.5
_BATCH: Final = 500
_PREFETCH: Final = 2 * _BATCH
_AGAIN_S: Final = 5.0
_PATIENCE_S: Final = 0.5
_EVENTS: Final = "events"
"""The destination of what is published."""
_QUEUE_EXPIRES_MS: Final = 86_400_000
_DAY_S: Final = 86400.0


class Alerts:
    """Owns its buffer, and while it leads its memory and those that tell.

    Nothing waits for it: what goes wrong here is logged, and is tried again.

    Args:
        worker: Whose configuration, Redis and connections it uses.
        http: What webhooks are posted with; not closed here.

    Raises:
        ConfigurationError: The URL or the key of a webhook is missing.
    """

    def __init__(self, worker: Worker, http: httpx.AsyncClient) -> None:
        self._worker = worker
        self._http = http
        self._subscription = Subscription(names.ALERTS_QUEUE, _PREFETCH, self._take, _declare)
        self._targets = targets_of(worker.fleet.alerts)
        self._buffer: deque[Delivery] = deque()
        self._noted: list[Delivery] = []
        self._stirred = asyncio.Event()
        self._memory: Memory | None = None
        self._outbox: Outbox | None = None
        self._quotas: Quotas | None = None
        self._limits: list[Remaining] = []
        self._limits_at = 0.0
        self._judged_at = 0.0
        self._retarget = False
        worker.on_lost.append(self._forget)
        worker.on_control.append(self._reread)

    async def start(self) -> None:
        """Nothing is consumed before it leads."""

    async def run(self) -> None:
        """Judges and tells whenever it leads, until cancelled."""
        while True:
            try:
                await self._work()
            except StateAway:  # the worker's own watch says so
                await asyncio.sleep(_LOOK_EVERY_S)
            except Exception:  # a fault of ours; no call ends for it
                log.exception("alerts could not be judged; trying again")
                await self._stand_by()
                await asyncio.sleep(_AGAIN_S)

    async def drain(self) -> None:
        """Hands back what was not noted, and leaves the rest to another replica."""
        if self._memory is None:
            return
        if self._outbox is not None:
            await self._outbox.close(_PATIENCE_S)
        with suppress(StateAway):
            await self._write(self._memory)  # what is told by now
            await self._worker.alert_state.resign()
        await self._stand_by()

    async def _work(self) -> None:
        """As long as nothing fails."""
        while True:
            if await self._leads():
                await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._stirred.wait()
            self._stirred.clear()

    async def _leads(self) -> bool:
        lead = await self._worker.alert_state.lead()
        if lead == "lost":
            await self._stand_by()
            return False
        if lead == "gained":
            await self._stand_by()
        if self._memory is None:
            now = self._worker.clock.now()
            self._memory = Memory(await self._worker.alert_state.load(Memory.TABLES, Memory.minutes(now)))
            self._limits_at = self._judged_at = 0.0
            await self._worker.subscriber.add(self._subscription)
        if self._outbox is not None and self._retarget:
            await self._outbox.close()
            self._outbox = None
        self._retarget = False
        if self._outbox is None:
            self._outbox = Outbox(self._memory.untold, self._destinations(), self._stirred.set)
        return True

    async def _stand_by(self) -> None:
        """Another leads, or nobody can for now."""
        if self._outbox is not None:
            await self._outbox.close()
        self._memory = self._outbox = None
        await self._worker.subscriber.drop(self._subscription)
        for delivery in (*self._noted, *self._buffer):
            delivery.give_back()
        self._forget()

    async def _look(self) -> None:
        """Notes what was heard, judges, writes that down, and tells it."""
        assert self._memory is not None and self._outbox is not None  # noqa: S101, PT018 - it leads
        memory, outbox, now = self._memory, self._outbox, self._worker.clock.now()
        while self._buffer:
            self._noted.append(self._buffer.popleft())
            self._hear(memory, self._noted[-1])
        for news in await self._judge(memory, now):
            if news.trouble.name not in self._worker.fleet.alerts.silence:
                outbox.add(_event(news, now))
        if await self._write(memory):
            outbox.tell()
        else:
            await self._stand_by()

    async def _write(self, memory: Memory) -> bool:
        """Writes down all that has changed, and acknowledges what it came of; False: another leads."""
        changes = memory.take_changes()
        try:
            written = await self._worker.alert_state.write(*changes)
        except BaseException:
            memory.put_back(*changes)
            raise
        if written:
            for delivery in self._noted:
                delivery.ack()
            self._noted.clear()
        return written

    def _hear(self, memory: Memory, delivery: Delivery) -> None:
        try:
            event = Event.from_bytes(delivery.body)
        except Refused:
            return  # anybody may publish one
        ours = (event.model_extra or {}).get("provider") in self._worker.fleet.providers
        if ours and abs(event.at - self._worker.clock.now()) < _DAY_S:
            for id_, heard in hear(event, memory.heard.rows, memory.counts).items():
                memory.heard.put(id_, heard)

    async def _judge(self, memory: Memory, now: float) -> list[News]:
        """What is new; not again within half a second, however much is heard."""
        if now - self._judged_at < _LEAST_PAUSE_S:
            return []
        self._judged_at = now
        section = self._worker.fleet.alerts
        await self._look_at_limits(now)
        firing = memory.firing.rows
        days, notices = of_days(self._limits, memory.days.rows, now)
        troubles = [
            *of_limits(self._limits, section, firing),
            *of_calls(memory.counts, section, firing, now),
            *await self._heard(memory, now),
        ]
        memory.counts.forget(now)
        after, news = follow(
            firing, troubles, now,
            resolve_after_s=section.resolve_after_s, repeat_after_s=section.repeat_after_s,
        )  # fmt: skip
        memory.firing.replace(after)
        memory.days.replace(days)
        return [*news, *(News(State.RESOLVED, notice, now) for notice in notices)]

    async def _look_at_limits(self, now: float) -> None:
        if now - self._limits_at >= _LIMITS_EVERY_S:
            if self._quotas is None or self._quotas.fleet is not self._worker.fleet:
                self._quotas = Quotas(self._worker.flights, self._worker.fleet)
            self._limits = await self._quotas.remaining(now)
            self._limits_at = now

    async def _heard(self, memory: Memory, now: float) -> Iterable[Trouble]:
        heard = memory.heard.rows
        closed = await self._worker.alert_state.closed(one.place for one in heard.values())
        lasting = {id_: heard[id_] for id_ in still_wrong(heard, closed, self._worker.fleet, now)}
        memory.heard.replace(lasting)
        return [one.trouble for one in lasting.values()]

    def _destinations(self) -> dict[str, Tell]:
        return {_EVENTS: self._publish, **{target.id: self._poster(target) for target in self._targets}}

    async def _publish(self, event: Event) -> None:
        """Until it is confirmed."""
        body = event.to_bytes()
        while not await self._worker.events.publish(body):  # noqa: ASYNC110 - it is no poll, but a try
            await asyncio.sleep(_AGAIN_S)

    def _poster(self, target: Target) -> Tell:
        return lambda event: post(self._http, target, event, self._worker.clock.now() - event.at)

    def _reread(self) -> None:
        """Under another configuration others may be told."""
        try:
            targets = targets_of(self._worker.fleet.alerts)
        except ConfigurationError as error:
            log.error("the webhooks stay as they were", extra={"error": str(error)})  # noqa: TRY400
            return
        if targets != self._targets:
            self._targets = targets
            self._retarget = True
            self._stirred.set()

    def _forget(self) -> None:
        """What was delivered is the broker's again."""
        self._buffer.clear()
        self._noted.clear()

    def _take(self, delivery: Delivery) -> None:
        self._buffer.append(delivery)
        if len(self._buffer) >= _BATCH:
            self._stirred.set()


def _event(news: News, now: float) -> Event:
    trouble = news.trouble
    return Event(
        id=new_id(),
        type=trouble.name.event.value,
        at=now,
        name=trouble.name.value,
        state=news.state.value,
        severity=trouble.severity.value,
        text=trouble.text,
        value=trouble.value,
        threshold=trouble.threshold,
        since=news.since,
        repeated=news.repeated,
        **trouble.about.model_dump(),
    )


async def _declare(channel: Channel) -> None:
    # Here and not in the topology: without the role nobody needs it. A classic queue could keep back the
    # confirms of other workers' events while its node is away.
    await channel.queue_declare(
        names.ALERTS_QUEUE,
        durable=True,
        arguments={"x-queue-type": "quorum", "x-expires": _QUEUE_EXPIRES_MS},
    )
    for type_ in HEARD:
        await channel.queue_bind(names.ALERTS_QUEUE, names.EVENTS, type_.value)
