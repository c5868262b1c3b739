"""Publishing events: learning events with a confirm, the others as they come."""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from producer_sdk.transport import Outgoing, Published, Publisher
from topology import names
from topology.events import EventType
from topology.messages import Event, new_id

log = logging.getLogger("optimizer.events")

_MOST_WAITING: Final = 20_000
_AT_ONCE: Final = 256
_PAUSE_S: Final = 0.02
_TIMEOUT_S: Final = 10.0


class Events:
    """Publishes on `optimizer.events`.

    `emit` never waits and never fails: what cannot be published in time is dropped and counted. Events
    that the books rest on go through `publish`, whose word can be relied on.
    """

    def __init__(self, publisher: Publisher, clock: "Clock") -> None:
        self._publisher = publisher
        self._clock = clock
        self._waiting: deque[tuple[EventType, float, dict[str, Any]]] = deque(maxlen=_MOST_WAITING)
        self._stirred = asyncio.Event()
        self.dropped = 0

    def event(self, type_: EventType, **fields: Any) -> Event:
        """An event that happens now; `agent` and `request_id` are fields like the others."""
        fields.setdefault("id", new_id())
        return Event(type=type_.value, at=self._clock.now(), **fields)

    def emit(self, type_: EventType, **fields: Any) -> None:
        """Publishes soon, if at all. What it takes to pack it is done then, too: replies go first."""
        if len(self._waiting) == _MOST_WAITING:
            self.dropped += 1
        self._waiting.append((type_, self._clock.now(), fields))
        self._stirred.set()

    async def publish(self, body: bytes, timeout: float = _TIMEOUT_S) -> bool:
        """Publishes a packed event; True when it is confirmed within `timeout` seconds.

        A classic queue that watches events and whose node is away keeps the confirm back for all. Then the
        recorder's queue gets the event by itself; without a recorder nobody keeps books.
        """
        message = _message(Event.from_bytes(body).type, body)
        outcome = await self._publisher.publish(message, timeout=timeout)
        if outcome is Published.REFUSED or (outcome is Published.LOST and self._publisher.is_up):
            kept = Outgoing("", names.RECORDER_QUEUE, body)
            outcome = await self._publisher.publish(kept, timeout=timeout)
        return outcome in {Published.CONFIRMED, Published.RETURNED}

    async def run(self) -> None:
        """Publishes what `emit` was given, until cancelled."""
        while True:
            await self._stirred.wait()
            await asyncio.sleep(_PAUSE_S)  # replies go first, and events in company
            self._stirred.clear()
            await self.flush()

    async def flush(self) -> None:
        """Publishes all that waits, once each, and waits for the broker's word on the last."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            if not await self._publisher.wait_until_up(_TIMEOUT_S):
                self.dropped += len(batch)
                continue
            messages = [message for waiting in batch if (message := self._packed(*waiting))]
            for message in messages[:-1]:
                self._publisher.send(message, self._count)
            for message in messages[-1:]:
                self._count(await self._publisher.publish(message, timeout=_TIMEOUT_S))

    def _packed(self, type_: EventType, at: float, fields: Mapping[str, Any]) -> Outgoing | None:
        try:
            event = Event(**{"id": new_id(), **fields}, type=type_.value, at=at)
            return _message(event.type, event.to_bytes())
        except Exception:  # a fault of ours; no worker dies of an event
            log.exception("an event could not be packed", extra={"type": type_.value})
            self.dropped += 1
            return None

    def _count(self, outcome: Published) -> None:
        self.dropped += outcome is not Published.CONFIRMED


def _message(type_: str, body: bytes) -> Outgoing:
    return Outgoing(names.EVENTS, type_, body, mandatory=False)


class Clock:
    """Redis's clock as far as this process knows it, in epoch seconds.

    Instants that processes share are Redis's; durations are the monotonic clock's.
    """

    def __init__(self) -> None:
        self._ahead_s: float | None = None

    def set(self, shared_now: float) -> None:
        """Redis has just said what time it is."""
        self._ahead_s = shared_now - asyncio.get_running_loop().time()

    def now(self) -> float:
        """The instant, in epoch seconds.

        Raises:
            RuntimeError: The clock was never set.
        """
        if self._ahead_s is None:
            raise RuntimeError("the clock is read before Redis has said what time it is")
        return asyncio.get_running_loop().time() + self._ahead_s
