"""What providers' final errors have taught: which models lack which features, known to the whole fleet.

One hash in Redis. Losing it costs one failed call for each lesson: they are learned again.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from redis.asyncio import Redis

from broker.away import asking
from topology.errors import ErrorType

STALE_S: Final = 7 * 86400.0
"""A lesson that nobody has tried again for so long after its time is forgotten."""
_MOST: Final = 500


@dataclass(frozen=True)
class Lesson:
    """A final error of a model that was about a feature. Instants are epoch seconds on Redis's clock.

    Attributes:
        feature: As `topology.features` names it.
        error: The error's type.
        status: The provider's HTTP status.
        said: The provider's words: their first line, at most 500 characters.
        times: How often it was met.
        first_at: Since when it is known.
        last_at: When it was met last.
        until: For how long nobody tries it.
    """

    provider: str
    model: str
    feature: str
    error: ErrorType
    status: int | None
    said: str
    times: int
    first_at: float
    last_at: float
    until: float

    @property
    def name(self) -> str:
        """The pair it is about, as `<provider>/<model> <feature>`; a feature has no blanks."""
        return f"{self.provider}/{self.model} {self.feature}"

    def after(self, known: "Lesson | None") -> "Lesson":
        """This one, met anew, with what was known of the pair."""
        if known is None:
            return self
        return replace(self, times=known.times + self.times, first_at=known.first_at)


class Lessons:
    """Reads and changes what is remembered. Every method raises `StateAway` where Redis cannot be asked.

    Args:
        redis: Connected with `decode_responses=False`; not closed here.
        prefix: What all keys begin with, as `Flights.prefix`.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._key = f"{prefix}lessons"

    async def read(self) -> tuple[Lesson, ...]:
        """All that is remembered."""
        with asking():
            return _lessons(await self._redis.hgetall(self._key))

    async def learn(self, lesson: Lesson) -> Lesson:
        """Remembers it, together with what was known of its pair; returns what stands there now."""
        learned = lesson

        async def write(pipeline: Any) -> None:
            nonlocal learned
            known = {one.name: one for one in _lessons(await pipeline.hgetall(self._key))}
            learned = lesson.after(known.pop(lesson.name, None))
            pipeline.multi()
            pipeline.hset(self._key, learned.name, json.dumps(asdict(learned)))
            if outdated := _outdated(known.values(), lesson.last_at):
                pipeline.hdel(self._key, *outdated)
            pipeline.expireat(self._key, int(learned.until + STALE_S) + 1)

        with asking():
            await self._redis.transaction(write, self._key)
        return learned

    async def forget(self, names: Iterable[str]) -> int:
        """Forgets these, by their names; how many there were."""
        with asking():
            return await self._redis.hdel(self._key, *names)


def _lessons(found: Mapping[Any, Any]) -> tuple[Lesson, ...]:
    return tuple(lesson for packed in found.values() if (lesson := _lesson(packed)) is not None)


def _lesson(packed: bytes | str) -> Lesson | None:
    """One as it was written; None: another release wrote it."""
    try:
        facts = json.loads(packed)
        return Lesson(**{**facts, "error": ErrorType(facts["error"])})
    except (ValueError, TypeError, KeyError):
        return None


def _outdated(lessons: Iterable[Lesson], now: float) -> list[str]:
    """What makes room: the stale ones, and of too many those that were met the longest ago."""
    latest = sorted(lessons, key=lambda lesson: lesson.last_at, reverse=True)
    return [
        lesson.name
        for at, lesson in enumerate(latest, start=1)
        if at >= _MOST or lesson.until + STALE_S <= now
    ]
