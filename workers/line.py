"""One line of jobs at a provider's pool: what was delivered from a queue, and when it may go on."""

import asyncio
import math
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

_SIZED_EVERY: Final = 10
_SAMPLES: Final = 30
_WORTH_IT: Final = 0.25
"""A change of the prefetch is a new consumer: only for that much more or less."""
_AT_LEAST: Final = 2

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
        self._in_flight = 0
        self._usually_in_flight = 0.0
        self._seconds = 0
        self._closed_at = -math.inf
        self._needs: int | None = None

    async def consume(self, share: int) -> None:
        """Consumes with a prefetch of this share at most; with another one than before, anew.

        A closed line: once it opens.
        """
        async with self._changing:
            self._resting = False
            if self.closed_for is None:
                self._holds_nothing = False
                await self._consume(share if self._needs is None else min(share, self._needs))

    def measure(self) -> None:
        """To be called each second: sizes the prefetch.

        As long as limits keep it waiting it needs little more than it has in flight, its rate times the
        calls' latency (Little's law); what it holds beyond that nobody else can start, nor see in its
        place in the queue.
        """
        self._seconds += 1
        self._usually_in_flight += (self._in_flight - self._usually_in_flight) / min(self._seconds, _SAMPLES)
        if self._seconds % _SIZED_EVERY:
            return
        if asyncio.get_running_loop().time() - self._closed_at > LONG_WAIT_S:
            self._needs = None
            return
        needs = math.ceil(2 * self._usually_in_flight) + _AT_LEAST
        if self._needs is None or abs(needs - self._needs) > _WORTH_IT * self._needs:
            self._needs = needs
            self._stirred()

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
        """The next delivery; `put_back` or `end` follows."""
        self._in_flight += 1
        return self._held.pop(0)

    def end(self) -> None:
        """What was taken is done with."""
        self._in_flight -= 1

    def put_back(self, held: Held) -> None:
        """A delivery that could not be started, to its old place in the order."""
        self._in_flight -= 1
        if self._holds_nothing:
            held.delivery.give_back()
        elif held.delivery.is_held:
            insort(self._held, held)

    def pause(self, seconds: float, limit: str) -> None:
        """Starts nothing for a while: a short one with the deliveries in hand, a long one without."""
        self._closed_at = asyncio.get_running_loop().time()
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
        if prefetch < self._prefetch:
            await self._hand_all_back()  # somebody else may have more use for it
        else:
            await self._stop_consuming()
        self._prefetch, self._holds_nothing = prefetch, False
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
