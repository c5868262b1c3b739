"""The strikes: each seat holds one worker, has it die where the schedule says, and is filled at once."""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from tests.chaos.books import Books, Kill
from tests.chaos.schedule import Schedule, Strike
from tests.faults.nursery import FaultyWorker, Nursery
from tests.support.waiting import until

SEATS = {"front": 2, "backend": 6, "undertaker": 1, "recorder": 1}
"""How many workers of each role live, but for the moments between a kill and its successor."""

_ROLES = {"backend": "backend:all"}
_REACHED_S = 20.0
_FOR_EVER_S = 86_400.0
_BEHIND = 60
"""Requests that may still be on their way when their kills are over."""
_TRIES = 6
"""Of each strike: the moment that it waits for may not come while the machine is busy."""
_IN_CALL_S = 0.02
"""Less than the fastest answer takes: at `backend.in_call` the call is in flight for certain."""


class Striking:
    """Carries a schedule's strikes out.

    Attributes:
        open: Cleared while nothing is to be killed.
        done: How many strikes are over.
        alive: The workers that hold the seats now.
    """

    def __init__(
        self,
        nursery: Nursery,
        schedule: Schedule,
        books: Books,
        lease_s: float | None,
        requests: int,
        provoke: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self._nursery = nursery
        self._books = books
        self._lease_s = lease_s
        self._requests = requests
        self._kills = schedule.kills
        self._provoke = provoke
        self._note = note
        self._left = {
            role: deque((strike, 1) for strike in strikes) for role, strikes in schedule.strikes.items()
        }
        self.open = asyncio.Event()
        self.open.set()
        self.done = 0
        self.alive: dict[str, FaultyWorker] = {}

    async def fill(self) -> None:
        """Starts a worker on each seat."""
        for role, seats in SEATS.items():
            for seat in range(seats):
                await self._start(role, f"{role}-{seat}")

    async def hold(self, role: str, seat: str) -> None:
        """Strikes at one seat until none of the role's strikes is left; a living worker stays."""
        strikes = self._left.get(role, deque())
        while strikes:
            await until(self._load_keeps_up, _FOR_EVER_S)
            if not strikes:  # another seat took the last one meanwhile
                return
            strike, tried = strikes.popleft()
            if not await self._strike(self.alive[seat], strike) and tried < _TRIES:
                strikes.append((strike, tried + 1))
                self.done -= 1
            self.done += 1
            await self._start(role, seat)

    def _load_keeps_up(self) -> bool:
        """Kills are spread over the requests: where the machine is slow with those, kills wait for them."""
        due = self._requests * self.done / self._kills
        return self.open.is_set() and self._books.ended >= due - _BEHIND

    async def _start(self, role: str, seat: str) -> None:
        await self.open.wait()
        self.alive[seat] = await self._nursery.start(
            _ROLES.get(role, role), lease_s=self._lease_s, in_call_s=_IN_CALL_S
        )

    async def _strike(self, worker: FaultyWorker, strike: Strike) -> bool:
        """Kills the worker; False: it did not come to the point, and was killed where it was."""
        reached = await self._reach(worker, strike)
        if not reached or strike.point is None:
            with suppress(ProcessLookupError):  # it ended by itself: see its status
                worker.kill()
        status = await worker.ended()
        if status != -signal.SIGKILL:
            self._books.wrongs.append(
                f"{strike.role} {worker.pid} ended by itself with {status}: {worker.log}"
            )
        else:
            point = strike.point if reached else None
            self._books.kills.append(Kill(strike.role, point, time.time()))
        return reached

    async def _reach(self, worker: FaultyWorker, strike: Strike) -> bool:
        """Waits for the moment; at a point, the worker kills itself then."""
        if strike.point is None:
            await asyncio.sleep(strike.after_s)
            return True
        try:
            await worker.arm(strike.point, nth=strike.nth)
            self._provoke(strike.point)
            await worker.fired(_REACHED_S)
        except TimeoutError:
            self._note(f"nobody passed {strike.point} within {_REACHED_S:.0f} s")
            return False
        except AssertionError:  # it ended before
            return False
        return True
