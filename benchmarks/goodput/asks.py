"""What is asked, and asking it at its instants. Plain Python: it runs in LiteLLM's environment too."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Priority = Literal["high", "normal", "batch"]


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        name: Of this request alone.
        at_s: When it is asked, in seconds from the beginning.
        within_s: Seconds from then, in which it must be answered.
        agent: Who asks.
        priority: How urgent it is.
        prompt: What is asked.
        max_tokens: The bound on the answer.
    """

    name: str
    at_s: float
    within_s: float
    agent: str
    priority: Priority
    prompt: str
    max_tokens: int

    @property
    def deadline_s(self) -> float:
        """When it must be answered, in seconds from the beginning."""
        return self.at_s + self.within_s


@dataclass(frozen=True)
class Answered:
    """What became of one request.

    Attributes:
        at_s: When it had its end, in seconds from the beginning.
        error: The name of the error that it ended in; None: it has its answer.
    """

    name: str
    at_s: float
    error: str | None


Asking = Callable[[Ask, float], Awaitable[None]]
"""Asks, with so many seconds left until the deadline; returns with the answer, raises without one."""


async def ask_all(asks: Sequence[Ask], ask: Asking) -> list[Answered]:
    """Asks each at its instant, and waits until each has its end."""
    began = time.monotonic()

    async def one(asked: Ask) -> Answered:
        await asyncio.sleep(asked.at_s - (time.monotonic() - began))
        error = None
        try:
            await ask(asked, asked.deadline_s - (time.monotonic() - began))
        except Exception as caught:  # noqa: BLE001 - a figure
            error = type(caught).__name__
        return Answered(asked.name, time.monotonic() - began, error)

    return list(await asyncio.gather(*(one(asked) for asked in asks)))
