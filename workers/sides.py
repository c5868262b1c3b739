"""The queues beside a queue of jobs: each for what an agent has waiting beyond the first few.

`lines.lua` says which one a job goes to. A front makes it stand when it is first needed; the pools hear of
it by the heartbeats, and look for themselves from time to time, since those who know of it may be gone.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from broker.answers import Spot
from producer_sdk.connecting import ANSWER_S, AWAY
from producer_sdk.roster import Roster
from producer_sdk.transport import Outgoing, Publisher, Subscriber
from topology import names
from topology.declaration import Queue

log = logging.getLogger("optimizer.sides")

TURN: Final = "x-turn"
"""The header of a job's message that says when its turn is; without it, it is the next one's."""


class Sides:
    """How many of them stand beside each queue, as far as this worker has heard; they are never removed.

    Attributes:
        known: By the common queue's name.
        on_more: Called when it has heard of more.
    """

    def __init__(self, publisher: Publisher, subscriber: Subscriber, roster: Roster) -> None:
        self._publisher = publisher
        self._subscriber = subscriber
        self._roster = roster
        self._standing = asyncio.Lock()
        self.known: dict[str, int] = {}
        self.on_more: list[Callable[[], None]] = []

    def report(self) -> Mapping[str, Any]:
        """What the heartbeat says of them."""
        return {"sides": dict(self.known)} if self.known else {}

    def hear(self) -> None:
        """Learns what the others' heartbeats tell."""
        for report in self._roster.workers():
            for queue, sides in (report.get("sides") or {}).items():
                self._learn(queue, sides)

    def beside(self, queue: str) -> Iterator[str]:
        """The names of those beside this queue."""
        for side in range(1, self.known.get(queue, 0) + 1):
            yield names.side_queue(queue, side)

    def are_beside(self, queue: str) -> bool:
        """Whether there are any."""
        return queue in self.known

    async def look(self, queue: str) -> None:
        """Looks whether there are more of them than is known."""
        while (side := self.known.get(queue, 0) + 1) <= names.SIDES:
            if not await self._subscriber.has_queue(names.side_queue(queue, side)):
                return
            self._learn(queue, side)

    async def placed(self, message: Outgoing, spot: Spot) -> Outgoing:
        """The message of a job, on its way to its spot in the line."""
        queue = await self._stand(message.routing_key, spot.side) if spot.side else message.routing_key
        headers = {**(message.headers or {}), TURN: f"{spot.turn:.6f}"}
        return replace(message, routing_key=queue, headers=headers)

    async def _stand(self, queue: str, side: int) -> str:
        """Makes this one stand, and all before it; returns its name, or the common one's where it cannot."""
        try:
            async with self._standing:
                for missing in range(self.known.get(queue, 0) + 1, side + 1):
                    await self._declare(names.side_queue(queue, missing))
                    self._learn(queue, missing)
        except AWAY as error:
            log.warning("no queue beside the common one", extra={"queue": queue, "error": str(error)})
            return queue
        return names.side_queue(queue, side)

    async def _declare(self, name: str) -> None:
        async with asyncio.timeout(ANSWER_S), self._publisher.another_channel() as channel:
            await channel.queue_declare(name, durable=True, arguments=Queue(name, ()).arguments)
            await channel.queue_bind(name, names.JOBS, name)

    def _learn(self, queue: str, sides: int) -> None:
        if sides > self.known.get(queue, 0):
            self.known[queue] = min(sides, names.SIDES)
            for told in self.on_more:
                told()
