"""One line of jobs at a provider's pool: what was delivered from a queue, and when it may go on."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from broker.flights import Flights
from broker.permits import CONCURRENCY
from broker.terms import Place
from producer_sdk.transport import Delivery, Subscriber, Subscription
from topology import names
from topology.messages import Waiter
from topology.names import Priority
from workers.hand import Hand, Held, Turn
from workers.sides import Sides

LONG_WAIT_S: Final = 60.0
"""A line that is closed for longer hands its deliveries back: a message held too long is taken away."""

_SIZED_EVERY: Final = 10
_FADES: Final = 0.99
"""In a second; so what was in flight a minute ago, when the last window opened, counts for half and more."""
_WORTH_IT: Final = 0.25
"""A change of the prefetch is a new consumer: only for that much more or less."""
_AT_LEAST: Final = 2
_ASKING_AT_ONCE: Final = 4
"""Where one is refused, so are those behind it: not all that is in hand asks for each permit."""


class Line:
    """Consumes a queue of a lane, with those beside it, and closes while a claim of it is refused.

    Each priority has a line of its own, so that what waits for the pace of a day or for a large permit holds
    up nobody else.

    Args:
        provider: Whose line it is.
        lane: `any`, or a model's slug.
        priority: Of all that is in it.
        subscriber: The connection to consume on.
        stirred: Called when a delivery has come or the line is open again.
        sides: The queues beside.

    Attributes:
        hand: What was delivered and not started.
    """

    def __init__(
        self,
        provider: str,
        lane: str,
        priority: Priority,
        subscriber: Subscriber,
        stirred: Callable[[], None],
        sides: Sides,
    ) -> None:
        self.lane = lane
        self.priority = priority
        self.name = f"{lane}.{priority.value}"
        self.queue = names.jobs_queue(provider, lane, priority)
        self.closed_for: str | None = None
        self.opens_at = 0.0
        self.hand = Hand(self.queue)
        self._subscriber = subscriber
        self._stirred = stirred
        self._sides = sides
        self._subscriptions: dict[str, Subscription] = {}
        self._reopening: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._resting = False
        self._holds_nothing = False
        self._asking = 0
        self._calls = 0
        self._most_calls = 0.0
        self._seconds = 0
        self._closed_at = -math.inf
        self._needs: int | None = None

    async def consume(self, share: int, workers: int) -> None:
        """Consumes with a prefetch of this share at most, as so many workers do; with another one, anew.

        A closed line: once it opens. Where there are several queues, each has something ready while as much
        of it is in flight as may be: whose turn it is may be in any of them.
        """
        if self._sides.are_beside(self.queue):
            share = 2 * share + _AT_LEAST
        self.hand.workers = workers
        async with self._changing:
            self._resting = False
            if self.closed_for is None:
                self._holds_nothing = False
                await self._consume(share if self._needs is None else min(share, self._needs))

    async def count(self, flights: Flights) -> None:
        """Counts the agents that wait for each queue, where there are several."""
        queues = [self.queue, *self._sides.beside(self.queue)]
        if len(queues) > 1:
            counts = await flights.in_line(self.queue, len(queues) - 1)
            self.hand.agents = dict(zip(queues, counts, strict=True))

    def measure(self) -> None:
        """To be called each second: sizes the prefetch.

        As long as limits keep it waiting it needs little more than the most that it had in flight of late,
        its rate times the calls' latency (Little's law), where that rate is not the same all the time: what
        a window lets start when it opens has to be in hand. What a line holds beyond that nobody else can
        start, nor see in its place in the queue.
        """
        self._seconds += 1
        self._most_calls = max(self._calls, self._most_calls * _FADES)
        if self._seconds % _SIZED_EVERY:
            return
        if asyncio.get_running_loop().time() - self._closed_at > LONG_WAIT_S:
            self._needs = None
            return
        needs = math.ceil(2 * self._most_calls) + _AT_LEAST
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
        self.hand.drop_all()

    @property
    def is_ready(self) -> bool:
        """Whether something can be started now."""
        return (
            len(self.hand) > 0
            and self.closed_for is None
            and not self._resting
            and self._asking < _ASKING_AT_ONCE
        )

    @property
    def waits_for_a_call(self) -> bool:
        """Whether it is closed until a call ends, which may be at any time."""
        return self.closed_for is not None and self.closed_for.endswith(CONCURRENCY)

    @property
    def waiting(self) -> int:
        """How many deliveries are in hand."""
        return len(self.hand)

    def askers(self) -> list[Waiter]:
        """Those in hand who want to know why they wait."""
        return [one.asker for one in self.hand if one.asker is not None]

    def take(self, now: float, *, leaves_a_slot: bool) -> "Attempt":
        """The delivery that goes next at this instant; `put_back` follows where it cannot be started."""
        self._asking += 1
        return Attempt(self, *self.hand.take(now), leaves_a_slot)

    def has_asked(self) -> None:
        """Whether one of what was taken may start is decided."""
        self._asking -= 1
        if len(self.hand):
            self._stirred()

    @contextmanager
    def calling(self, attempt: "Attempt") -> Iterator[None]:
        """One of what was taken is in flight."""
        self._calls += 1
        self._most_calls = max(self._calls, self._most_calls)
        self.hand.use(attempt.turn)
        try:
            yield
        finally:
            self._calls -= 1

    def put_back(self, attempt: "Attempt") -> None:
        """A delivery that could not be started, to its place in the order; its queue has its turn again."""
        self.hand.give_back(attempt.turn)
        self._put_back(attempt.held)

    def gives_way(self, attempt: "Attempt") -> bool:
        """Whether there is an earlier one to go in place of one that is rounds ahead; that is put back."""
        if not self.hand.has_before(attempt.held):
            return False
        self._put_back(attempt.held, waits_its_turn=True)
        return True

    def _put_back(self, held: Held, *, waits_its_turn: bool = False) -> None:
        if self._holds_nothing:
            held.delivery.give_back()
        elif held.delivery.is_held:
            self.hand.put_back(held, waits_its_turn=waits_its_turn)

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
            if not self._subscriptions and not self._resting:
                self._holds_nothing = False
                await self._consume(self.hand.prefetch)
        self._stirred()

    def _take(self, delivery: Delivery) -> None:
        if self._holds_nothing:  # it was on its way when we stopped
            delivery.give_back()
            return
        self.hand.add(delivery)
        self._stirred()

    async def _consume(self, prefetch: int) -> None:
        if prefetch != self.hand.prefetch:
            if prefetch < self.hand.prefetch:
                await self._hand_all_back()  # somebody else may have more use for it
            else:
                await self._stop_consuming()
            self.hand.prefetch = prefetch
        self._holds_nothing = False
        for queue in (self.queue, *self._sides.beside(self.queue)):
            if queue not in self._subscriptions:
                self._subscriptions[queue] = Subscription(queue, prefetch, self._take)
                await self._subscriber.add(self._subscriptions[queue])

    async def _stop_consuming(self) -> None:
        while self._subscriptions:
            _, subscription = self._subscriptions.popitem()
            await self._subscriber.drop(subscription)

    async def _hand_all_back(self) -> None:
        await self._stop_consuming()
        for held in self.hand.drop_all():
            held.delivery.give_back()
        self._holds_nothing = True


@dataclass
class Attempt:
    """A delivery on its way from a line to a call.

    Attributes:
        turn: Of its queue.
        leaves_a_slot: Another one may start beside it.
    """

    line: Line
    held: Held
    turn: Turn
    leaves_a_slot: bool
    _is_decided: bool = False

    def calling(self) -> AbstractContextManager[None]:
        """It is in flight."""
        return self.line.calling(self)

    def place(self, now: float) -> Place | None:
        """Where it stands in line at this instant, for its claim."""
        return self.line.hand.place_of(self.held, now, leaves_a_slot=self.leaves_a_slot)

    def decided(self) -> None:
        """Whether it may start is known: the next one may ask. Said again, it changes nothing."""
        if not self._is_decided:
            self._is_decided = True
            self.line.has_asked()
