"""Telling callers why they wait: those who asked for it, at most once a second, and lost without harm."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgpack

from broker.flights import Flights, StateAway
from broker.outlook import Place
from producer_sdk.transport import Outgoing, Publisher
from topology.errors import Refused
from topology.messages import Job, Waiter, Waiting
from workers.events import Clock

TELL_EVERY_S: Final = 1.0
_POLL_S: Final = 0.6
"""What is looked at again as soon as this is polled: nobody knows until when it waits."""
_START_MOVES_S: Final = 5.0
_MOST_REMEMBERED: Final = 10_000
_ASKED: Final = msgpack.packb("tell_waits") + msgpack.packb(True)

_IN_WORDS: Final = {
    "closed": "{}, which refuses calls for now",
    "circuit": "{}, whose calls fail for now",
    "key": "a key of {} that is not refused",
    "turn": "its turn at {}",
    "round": "its turn at {}",
    "paused": "{}, which is paused",
}


@dataclass(frozen=True)
class _Told:
    at: float
    waits_for: str
    until: float | None
    position: int | None
    starts_at: float | None


class Notices:
    """What this worker has told callers of their waiting, and what is new to them."""

    def __init__(self, publisher: Publisher, clock: Clock) -> None:
        self._publisher = publisher
        self._clock = clock
        self._told: dict[str, _Told] = {}

    def tell(
        self, waiter: Waiter, waits_for: str, until: float | None = None, place: Place | None = None
    ) -> None:
        """Publishes a `Waiting`, if the waiter wants it and was not told the same, or anything just now."""
        if not waiter.tell_waits or waiter.reply_to is None:
            return
        if until is not None and until - self._clock.now() < _POLL_S:
            until = None
        position, starts_at = (place.ahead, place.starts_at) if place else (None, None)
        now = _Told(asyncio.get_running_loop().time(), waits_for, until, position, starts_at)
        before = self._told.get(waiter.key)
        if before is not None and (now.at - before.at < TELL_EVERY_S or _is_known(before, now)):
            return
        self._remember(waiter.key, now)
        waiting = Waiting(
            id=waiter.id, waits_for=waits_for, until=until, position=position, starts_at=starts_at
        )
        message = Outgoing(
            "",
            waiter.reply_to,
            waiting.to_bytes(),
            correlation_id=waiter.id,
            persistent=False,
            mandatory=False,
        )
        self._publisher.send(message, lambda _: None)

    async def tell_flight(
        self, flights: Flights, fingerprint: str, waits_for: str, until: float | None = None
    ) -> None:
        """Tells all who wait for a flight; nobody while Redis is away."""
        with suppress(StateAway):
            for waiter in await flights.waiters(fingerprint):
                self.tell(waiter, waits_for, until)

    def _remember(self, key: str, told: _Told) -> None:
        self._told.pop(key, None)
        self._told[key] = told
        if len(self._told) > _MOST_REMEMBERED:
            del self._told[next(iter(self._told))]  # who was told the longest ago


def in_words(limit: str, provider: str) -> str:
    """What a claim was refused for, as a caller is told it: a limit's name, or what stands in for one."""
    words = _IN_WORDS.get(limit)
    return limit if words is None else words.format(provider)


def asker_of(body: bytes) -> Waiter | None:
    """The waiter of a packed job, if it wants to know why it waits."""
    if _ASKED not in body:  # most never ask: nothing is unpacked for them
        return None
    try:
        waiter = Job.from_bytes(body).waiter
    except Refused:
        return None
    return waiter if waiter.tell_waits else None


def _is_known(before: _Told, now: _Told) -> bool:
    """Whether this is no news: not to know an instant or a place is none."""
    same_instant = now.until is None or abs(now.until - (before.until or 0.0)) < TELL_EVERY_S
    same_place = now.position is None or now.position == before.position
    same_start = now.starts_at is None or abs(now.starts_at - (before.starts_at or 0.0)) < _START_MOVES_S
    return before.waits_for == now.waits_for and same_instant and same_place and same_start
