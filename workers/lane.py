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
from topology.names import Priority

LONG_WAIT_S: Final = 60.0
"""A lane that is closed for longer hands its deliveries back: a message held too long is taken away."""

_order = count()


@dataclass(frozen=True, order=True)
class Held:
    """A delivery in hand, in the order in which it came."""

    order: int
    delivery: Delivery = field(compare=False)


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
        self.closed_for: str | None = None

    async def consume(self, prefetch: int) -> None:
        """Consumes with this prefetch; with another one than before, anew."""
        if prefetch == self._prefetch and self._subscriptions:
            return
        self._prefetch = prefetch
        await self._stop_consuming()
        for priority in Priority:
            queue = names.jobs_queue(self._provider, self.name, priority)
            held = self._held[priority]
            subscription = Subscription(queue, prefetch, partial(self._take, held))
            self._subscriptions.append(subscription)
            await self._subscriber.add(subscription)

    async def close(self) -> None:
        """Stops consuming and hands back whatever was not started."""
        if self._reopening is not None:
            self._reopening.cancel()
        await self._stop_consuming()
        await self._hand_back()

    def forget(self) -> None:
        """The channel is gone: what was not started will be delivered again."""
        for held in self._held.values():
            held.clear()

    def ready(self) -> list[Priority]:
        """The priorities of which something can be started now."""
        if self.closed_for is not None:
            return []
        return [priority for priority, held in self._held.items() if held]

    def waiting(self) -> int:
        """How many deliveries are in hand."""
        return sum(len(held) for held in self._held.values())

    def take(self, priority: Priority) -> Held:
        """The next delivery of this priority."""
        return self._held[priority].pop(0)

    def put_back(self, held: Held, priority: Priority) -> None:
        """A delivery that could not be started, to its old place in the order."""
        if held.delivery.is_held:
            insort(self._held[priority], held)

    def pause(self, seconds: float, limit: str) -> None:
        """Starts nothing for a while: a short one with the deliveries in hand, a long one without."""
        if self.closed_for is None:
            self.closed_for = limit
            self._reopening = asyncio.create_task(
                self._reopen(seconds), name=f"reopen {self._provider}.{self.name}"
            )

    async def _reopen(self, seconds: float) -> None:
        if seconds > LONG_WAIT_S:
            await self._stop_consuming()
            await self._hand_back()
        await asyncio.sleep(seconds)
        self.closed_for = None
        if not self._subscriptions:
            await self.consume(self._prefetch)
        self._stirred()

    def _take(self, held: list[Held], delivery: Delivery) -> None:
        held.append(Held(next(_order), delivery))
        self._stirred()

    async def _stop_consuming(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await self._subscriber.drop(subscription)

    async def _hand_back(self) -> None:
        for held in self._held.values():
            while held:
                await held.pop(0).delivery.give_back()
