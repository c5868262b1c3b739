"""The books: events that the ledger of calls rests on. Each is published until RabbitMQ has confirmed it."""

import asyncio
import logging
from typing import Any, Final

from topology.events import EventType
from topology.messages import Event
from workers.events import Events

log = logging.getLogger("optimizer.books")

_AGAIN_S: Final = 0.5
_TIMEOUT_S: Final = 5.0
"""Less than is left of a claim's lease when its call ends: nobody is to take it for dead meanwhile."""


class Books:
    """Enters what was begun and what became of it.

    An entry has an id of its own making, so that entering it twice changes nothing. What RabbitMQ does not
    take at once is kept here, and published again until it does; only the end of the process loses it. The
    entry that a call was begun is confirmed before its first byte, so that no call is ever without a record.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._owed: dict[str, bytes] = {}
        self._stirred = asyncio.Event()

    async def enter(self, type_: EventType, id_: str, **fields: Any) -> bool:
        """Publishes an entry; False when RabbitMQ does not take it now, and it follows when it does."""
        return await self.enter_packed(self._events.event(type_, id=id_, **fields).to_bytes())

    async def enter_packed(self, body: bytes) -> bool:
        """As `enter`, for an event that is packed already."""
        if await self._events.publish(body, _TIMEOUT_S):
            return True
        self._owed[Event.from_bytes(body).id] = body
        self._stirred.set()
        return False

    async def run(self) -> None:
        """Publishes what is owed, until cancelled."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            await self.settle()
            if self._owed:
                await asyncio.sleep(_AGAIN_S)
                self._stirred.set()

    async def settle(self) -> None:
        """Tries once more with everything that is owed."""
        for id_, body in list(self._owed.items()):
            if not await self._events.publish(body):
                log.warning("RabbitMQ takes no entries", extra={"owed": len(self._owed)})
                return
            self._owed.pop(id_, None)
