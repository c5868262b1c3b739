"""A lane of a provider's pool: its three queues, what was delivered from them, and when it may go on."""

import asyncio
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Final

from producer_sdk.transport import Delivery, Subscriber, Subscription
from topology import names
from topology.messages import Waiter
from topology.names import Priority
from workers.notices import asker_of

LONG_WAIT_S: Final = 60.0
"""A lane that is closed for longer hands its deliveries back: a message held too long is taken away."""

_order = count()


@dataclass(frozen=True, order=True)
class Held:
    """A delivery in hand, in the order in which it came; its `asker` wants to know why it waits."""

    order: int
    delivery: Delivery = field(compare=False)
    asker: Waiter | None = field(default=None, compare=False)


class Lane:
    """Consumes one lane's queues, highest priority apart from the rest, within a prefetch for each.

    Args:
        provider: Whose lane it is.
        name: `any`, or a model's slug.
        subscriber: The connection to consume on.
        stirred: Called when a delivery has come or the lane is open again.
    """

    def __init__(self, provider: str, name: str, subscriber: Subscriber, stirred: Callable[[], None]) -> None:
        self.name = name
        self._provider = provider
        self._subscriber = subscriber
        self._stirred = stirred
        self._held: dict[Priority, list[Held]] = {p: [] for p in Priority}
        self._subscriptions: list[Subscription] = []
        self._prefetch = 0
        self._reopening: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self.closed_for: str | None = None
        self.opens_at = 0.0
        self.resting = False
        self._holds_nothing = False

    @property
    def queues(self) -> list[str]:
        """Its queues, the most urgent first."""
        return [names.jobs_queue(self._provider, self.name, priority) for priority in Priority]

    async def consume(self, prefetch: int) -> None:
        """Consumes with this prefetch; with another one than before, anew. A closed lane: once it opens."""
        async with self._changing:
            self.resting = False
            if self.closed_for is None:
                self._holds_nothing = False
                await self._consume(prefetch)

    async def rest(self) -> None:
        """Consumes nothing and holds nothing until `consume`: what waits is in its queue, for all to see."""
        async with self._changing:
            if not self.resting:
                self.resting = True
                await self._hand_all_back()

    async def close(self) -> None:
        """Stops consuming for good and hands back whatever was not started."""
        if self._reopening is not None:
            self._reopening.cancel()
        async with self._changing:
            self.resting = True
            await self._hand_all_back()

    def forget(self) -> None:
        """The channel is gone: what was not started will be delivered again."""
        for held in self._held.values():
            held.clear()

    def ready(self) -> list[Priority]:
        """The priorities of which something can be started now."""
        if self.closed_for is not None or self.resting:
            return []
        return [priority for priority, held in self._held.items() if held]

    def waiting(self) -> int:
        """How many deliveries are in hand."""
        return sum(len(held) for held in self._held.values())

    def askers(self) -> list[tuple[Waiter, int]]:
        """Those in hand who want to know why they wait, each with how many of its priority are before it."""
        return [
            (one.asker, position)
            for held in self._held.values()
            for position, one in enumerate(held)
            if one.asker is not None
        ]

    def take(self, priority: Priority) -> Held:
        """The next delivery of this priority."""
        return self._held[priority].pop(0)

    def put_back(self, held: Held, priority: Priority) -> None:
        """A delivery that could not be started, to its old place in the order."""
        if self._holds_nothing:
            held.delivery.give_back()
        elif held.delivery.is_held:
            insort(self._held[priority], held)

    def pause(self, seconds: float, limit: str) -> None:
        """Starts nothing for a while: a short one with the deliveries in hand, a long one without."""
        if self.closed_for is None:
            self.closed_for, self.opens_at = limit, asyncio.get_running_loop().time() + seconds
            self._reopening = asyncio.create_task(
                self._reopen(seconds), name=f"reopen {self._provider}.{self.name}"
            )

    def look_again(self) -> None:
        """Asks again now, whenever it was told to: something has been opened."""
        if self.closed_for is not None and self._reopening is not None:
            self._reopening.cancel()
            self._reopening = asyncio.create_task(
                self._reopen(0.0), name=f"reopen {self._provider}.{self.name}"
            )

    async def _reopen(self, seconds: float) -> None:
        if seconds > LONG_WAIT_S:
            async with self._changing:
                await self._hand_all_back()
        await asyncio.sleep(seconds)
        async with self._changing:
            self.closed_for = None
            if not self._subscriptions and not self.resting:
                self._holds_nothing = False
                await self._consume(self._prefetch)
        self._stirred()

    def _take(self, held: list[Held], delivery: Delivery) -> None:
        if self._holds_nothing:  # it was on its way when we stopped
            delivery.give_back()
            return
        held.append(Held(next(_order), delivery, asker_of(delivery.body)))
        self._stirred()

    async def _consume(self, prefetch: int) -> None:
        if prefetch == self._prefetch and self._subscriptions:
            return
        self._prefetch = prefetch
        await self._stop_consuming()
        for queue, held in zip(self.queues, self._held.values(), strict=True):
            subscription = Subscription(queue, prefetch, partial(self._take, held))
            self._subscriptions.append(subscription)
            await self._subscriber.add(subscription)

    async def _stop_consuming(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await self._subscriber.drop(subscription)

    async def _hand_all_back(self) -> None:
        await self._stop_consuming()
        for held in self._held.values():
            while held:
                held.pop(0).delivery.give_back()
        self._holds_nothing = True
