"""When a newcomer would start in each line: what the front routes by."""

import asyncio
import logging
from collections import deque
from typing import Final

from broker.flights import StateAway
from workers.worker import Worker

log = logging.getLogger("optimizer.forecasts")

_EVERY_S: Final = 0.25
_REST: Final = 10
"""So many times as long as looking took, nothing is looked at: it is no more than an advice."""
_ASKED_FOR_S: Final = 10.0
_NEWCOMERS: Final = 200
"""More than a front sends to one line between two looks."""


class Forecasts:
    """Follows the lines that were asked for lately; owns its task. What is not known is no obstacle."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._asked_at: dict[str, float] = {}
        self._starts: dict[str, deque[float]] = {}
        self._takes_s: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Looks from now on."""
        self._task = asyncio.create_task(self._follow(), name="forecasts")

    def close(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()

    def wait_s(self, queue: str, now: float) -> float:
        """For how many seconds who came now would wait there; 0 where nobody knows."""
        self._asked_at[queue] = now
        starts = self._starts.get(queue)
        return max(0.0, starts[0] - now) if starts else 0.0

    def takes_s(self, queue: str) -> float:
        """How many seconds a call lasts there on average; 0 where nobody knows."""
        return self._takes_s.get(queue, 0.0)

    def take(self, queue: str) -> None:
        """One more has come there."""
        starts = self._starts.get(queue)
        if starts and len(starts) > 1:
            starts.popleft()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._look()
            except StateAway:
                self._starts.clear()
            except Exception:  # a fault of ours; requests go by the order of their routes
                log.exception("no forecast")
                self._starts.clear()
            await asyncio.sleep(max(_EVERY_S, _REST * (loop.time() - began)))

    async def _look(self) -> None:
        now = self._worker.clock.now()
        self._asked_at = {q: at for q, at in self._asked_at.items() if now - at < _ASKED_FOR_S}
        outlook = self._worker.outlook(self._worker.fleet)
        found = {queue: await outlook.newcomers(queue, _NEWCOMERS) for queue in list(self._asked_at)}
        self._starts = {queue: deque(one.starts) for queue, one in found.items()}
        self._takes_s = {queue: one.takes_s for queue, one in found.items() if one.takes_s is not None}
