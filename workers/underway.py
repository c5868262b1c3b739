"""What one process is calling right now, whichever of its pools runs the call."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from producer_sdk.transport import Delivery


@dataclass
class Running:
    """A call in this process, with every delivery of its job: the broker may hand it out again meanwhile.

    `waiter` is the key of the job's own waiter, who is answered even if Redis forgets everybody else.
    `executed` is what it came to, for all of them: an `Executed` of `workers.moving`. `hurry` has its claim
    renewed at once: somebody knows that nobody wants it any more. `is_offered`: another provider may
    have been asked besides.
    """

    waiter: str = ""
    deliveries: list[Delivery] = field(default_factory=list)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    executed: Any = None
    is_offered: bool = False


@dataclass
class Underway:
    """The calls of a process, by flight.

    One for all its pools: Redis knows claims by the worker, so a pool that is told `own` must find the call
    also where another pool runs it, or the one that it has replaced.

    Attributes:
        running: Calls that were begun.
        hedges: Those that were begun beside another worker's claim, or another pool's.
        claiming: How many claims of a flight are on their way.
    """

    running: dict[str, Running] = field(default_factory=dict)
    hedges: dict[str, Running] = field(default_factory=dict)
    claiming: Counter[str] = field(default_factory=Counter)

    def renew_now(self, flight: str | None) -> None:
        """Has the claim of a flight renewed at once, if this process runs its call."""
        for calls in (self.running, self.hedges):
            if call := calls.get(flight or ""):
                call.hurry.set()
