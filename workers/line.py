"""One line of jobs at a provider's pool: what was delivered from a queue, and when it may go on."""

import asyncio
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from producer_sdk.transport import Delivery, Subscriber, Subscription
from topology import names
from topology.messages import Waiter
from topology.names import Priority
from workers.notices import asker_of

LONG_WAIT_S: Final = 60.0
"""A line that is closed for longer hands its deliveries back: a message held too long is taken away."""

_order = count()


@dataclass(frozen=True, order=True)
class Held:
    """A delivery in hand, in the order in which it came; its `asker` wants to know why it waits."""

    order: int
    delivery: Delivery = field(compare=False)
    asker: Waiter | None = field(default=None, compare=False)


class Line:
    """Consumes one queue of a lane, and closes while a claim of it is refused.

    Each priority has a line of its own, so that what waits for a turn, for the pace of a day or for a large
    permit holds up nobody else.

    Args:
        provider: Whose line it is.
        lane: `any`, or a model's slug.
        priority: Of all that is in it.
        subscriber: The connection to consume on.
        stirred: Called when a delivery has come or the line is open again.
    """

    def __init__(
        self,
        provider: str,
        lane: str,
        priority: Priority,
        subscriber: Subscriber,
        stirred: Callable[[], None],
    ) -> None:
        self.lane = lane
        self.priority = priority
        self.name = f"{lane}.{priority.value}"
        self.queue = names.jobs_queue(provider, lane, priority)
        self.closed_for: str | None = None
        self.opens_at = 0.0
        self._subscriber = subscriber
        self._stirred = stirred
        self._held: list[Held] = []
        self._subscription: Subscription | None = None
        self._prefetch = 0
        self._reopening: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._resting = False
        self._holds_nothing = False

    async def consume(self, prefetch: int) -> None:
        """Consumes with this prefetch; with another one than before, anew. A closed line: once it opens."""
        async with self._changing:
            self._resting = False
            if self.closed_for is None:
                self._holds_nothing = False
                await self._consume(prefetch)

    async def rest(self) -> None:
        """Consumes nothing and holds nothing until `consume`: what waits is in its queue, for all to see."""
        async with self._changing:
            if not self._resting:
                self._resting = True
                await self._hand_all_back()

    async def close(self) -> None:
        """Stops consuming for good and hands back whatever was not started."""
        if self._reopening is not None:
            self._reopening.cancel()
        async with self._changing:
            self._resting = True
            await self._hand_all_back()

    def forget(self) -> None:
        """The channel is gone: what was not started will be delivered again."""
        self._held.clear()

    @property
    def is_ready(self) -> bool:
        """Whether something can be started now."""
        return bool(self._held) and self.closed_for is None and not self._resting

    @property
    def waiting(self) -> int:
        """How many deliveries are in hand."""
        return len(self._held)

    def askers(self) -> list[tuple[Waiter, int]]:
        """Those in hand who want to know why they wait, each with how many are before it."""
        return [(one.asker, place) for place, one in enumerate(self._held) if one.asker is not None]

    def take(self) -> Held:
        """The next delivery."""
        return self._held.pop(0)

    def put_back(self, held: Held) -> None:
        """A delivery that could not be started, to its old place in the order."""
        if self._holds_nothing:
            held.delivery.give_back()
        elif held.delivery.is_held:
            insort(self._held, held)

    def pause(self, seconds: float, limit: str) -> None:
        """Starts nothing for a while: a short one with the deliveries in hand, a long one without."""
        if self.closed_for is None:
            self.closed_for, self.opens_at = limit, asyncio.get_running_loop().time() + seconds
            self._reopen_in(seconds)

    def look_again(self) -> None:
        """Asks again now, whenever it was told to: something has been opened."""
        if self.closed_for is not None and self._reopening is not None:
            self._reopening.cancel()
            self._reopen_in(0.0)

    def _reopen_in(self, seconds: float) -> None:
        self._reopening = asyncio.create_task(self._reopen(seconds), name=f"reopen {self.queue}")

    async def _reopen(self, seconds: float) -> None:
        if seconds > LONG_WAIT_S:
            async with self._changing:
                await self._hand_all_back()
        await asyncio.sleep(seconds)
        async with self._changing:
            self.closed_for = None
            if self._subscription is None and not self._resting:
                self._holds_nothing = False
                await self._consume(self._prefetch)
        self._stirred()

    def _take(self, delivery: Delivery) -> None:
        if self._holds_nothing:  # it was on its way when we stopped
            delivery.give_back()
            return
        self._held.append(Held(next(_order), delivery, asker_of(delivery.body)))
        self._stirred()

    async def _consume(self, prefetch: int) -> None:
        if prefetch == self._prefetch and self._subscription is not None:
            return
        self._prefetch = prefetch
        await self._stop_consuming()
        self._subscription = Subscription(self.queue, prefetch, self._take)
        await self._subscriber.add(self._subscription)

    async def _stop_consuming(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._subscriber.drop(subscription)

    async def _hand_all_back(self) -> None:
        await self._stop_consuming()
        while self._held:
            self._held.pop(0).delivery.give_back()
        self._holds_nothing = True
