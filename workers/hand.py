"""What a line has in hand: deliveries that were not started yet, and which of them goes next."""

import math
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final, NamedTuple

from broker.terms import Place
from producer_sdk.transport import Delivery
from topology.messages import Waiter
from topology.turns import ROUNDS_AHEAD, FairTurns
from workers.notices import asker_of
from workers.replies import PRESSES
from workers.sides import TURN

_ROUNDS_APART: Final = 2
"""By so many rounds may a job be ahead of another agent's that another worker holds."""

_order = count()


@dataclass(frozen=True, order=True)
class Held:
    """A delivery in hand, in the order of turns.

    Attributes:
        asker: Who wants to know why it waits.
        presses_at: When its deadline begins to press, epoch seconds.
    """

    turn: float
    order: int
    delivery: Delivery = field(compare=False)
    asker: Waiter | None = field(default=None, compare=False)
    presses_at: float = field(default=math.inf, compare=False)

    @property
    def queue(self) -> str:
        """Which it came from."""
        return self.delivery.queue

    @property
    def agent(self) -> str:
        """Whose job it is."""
        return self.delivery.properties.app_id or ""


class Turn(NamedTuple):
    """A queue's turn, by its `tag`; its `share` as it was then."""

    queue: str
    share: int
    tag: float


class Hand:
    """Goes in the order of turns that Redis gave out (`lines.lua`), so that agents go round.

    Whose deadline presses goes first, as long as it is not too many rounds ahead of the others.

    Args:
        queue: The common queue of the line.

    Attributes:
        agents: How many wait for each of the line's queues, where there are several; beside the common one,
            those that wait there alone.
        workers: Among how many these queues are dealt out.
        prefetch: How many of each queue one of them holds at most.
    """

    def __init__(self, queue: str) -> None:
        self.agents: dict[str, int] = {}
        self.workers = 1
        self.prefetch = 0
        self._queue = queue
        self._queues = FairTurns[str]()
        self._held: list[Held] = []

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held)

    def add(self, delivery: Delivery) -> None:
        """It was delivered. What bears no turn, such as a job that is tried again, goes first."""
        turn, presses_at = _number_in(delivery, TURN, 0.0), _number_in(delivery, PRESSES, math.inf)
        insort(self._held, Held(turn, next(_order), delivery, asker_of(delivery.body), presses_at))

    def last(self, count: int) -> list[Held]:
        """Those whose turn is the furthest off, the last first."""
        return self._held[: -count - 1 : -1]

    def let_go(self, held: Held) -> bool:
        """Whether it was in hand until now; who asks has it from now on."""
        if held not in self._held:
            return False
        self._held.remove(held)
        return True

    def drop_all(self) -> list[Held]:
        """Holds nothing from now on; returns what it held."""
        held, self._held = self._held, []
        return held

    def take(self, now: float) -> tuple[Held, Turn]:
        """The one that goes next. `use` follows, or `put_back`; `give_back` where it is still its turn."""
        held = self._pressing(now)
        if held is None:
            queues = self._queues_in_turn()
            held = self._first_of(queues[self._queues.first(queues) or 0])
        self._held.remove(held)
        share = max(1, self.agents.get(held.queue, 1))
        return held, Turn(held.queue, share, self._queues.take(held.queue, share))

    def use(self, turn: Turn) -> None:
        """What was taken by this turn has started."""
        self._queues.use(turn.tag)

    def put_back(self, held: Held, *, waits_its_turn: bool = False) -> None:
        """What was taken could not start: it has its place again, and `waits_its_turn` from now on."""
        insort(self._held, replace(held, presses_at=math.inf) if waits_its_turn else held)

    def give_back(self, turn: Turn) -> None:
        """It is that queue's turn again."""
        self._queues.give_back(turn.queue, turn.share)

    def has_before(self, held: Held) -> bool:
        """Whether one that is earlier than this may go next."""
        return any(self._first_of(queue) < held for queue in self._queues_in_turn())

    def place_of(self, held: Held, now: float, *, leaves_a_slot: bool) -> Place | None:
        """Where one that was taken stands in line; None where agents need not go round across workers.

        That is where nobody else holds anything, or no agent has much waiting.
        """
        if self.workers == 1 or not any(self.agents.values()):
            return None
        first = self._held[0] if self._held and leaves_a_slot else None
        next_ = (first.turn, first.agent) if first else None
        ahead = ROUNDS_AHEAD if held.presses_at <= now else _ROUNDS_APART
        return Place(self._queue, held.turn, held.agent, ahead, next_)

    def _queues_in_turn(self) -> list[str]:
        """That of the earliest in hand; where too few agents are in hand for that, those that go by shares.

        Each of those gets one for every agent that waits there; beside the common one, that waits there
        alone.
        """
        queues = list(dict.fromkeys(one.queue for one in self._held))
        agents = {one.agent for one in self._held if one.queue == self._queue}
        if len(queues) == 1 or (agents and len(agents) >= self.agents.get(self._queue, len(agents) + 1)):
            return queues[:1]
        if agents:
            return [queue for queue in queues if queue == self._queue or self.agents.get(queue, 1) > 0]
        return queues

    def _pressing(self, now: float) -> Held | None:
        """Of those whose deadline presses the most urgent, unless that would be too far ahead."""
        furthest = self._held[0].turn + ROUNDS_AHEAD
        pressing = [one for one in self._held if one.presses_at <= now and one.turn <= furthest]
        return min(pressing, key=lambda one: one.presses_at, default=None)

    def _first_of(self, queue: str) -> Held:
        return next(one for one in self._held if one.queue == queue)


def _number_in(delivery: Delivery, header: str, default: float) -> float:
    """The number in a header of the message; `default` where it bears none."""
    try:
        return float(str((delivery.properties.headers or {}).get(header, default)))
    except ValueError:
        return default
