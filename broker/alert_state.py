"""What is remembered of alerts, for all replicas and over restarts; and which of them judges and tells."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from redis.asyncio import Redis
from redis.exceptions import WatchError

from broker.away import asking
from broker.permits import closed_key

LEASE_S: Final = 15.0
_KEPT_S: Final = 30 * 86400
_COUNTS_KEPT_S: Final = 3 * 3600

Lead = Literal["gained", "kept", "lost"]
Rows = Mapping[str, bytes | None]
"""Rows by name; None: away with it."""
Counts = Mapping[int, Mapping[str, int]]
"""By minute, then by what is counted."""


@dataclass(frozen=True)
class Stored:
    """What the last one who led has written."""

    tables: Mapping[str, Mapping[str, bytes]]
    counts: Counts


class AlertState:
    """Tables and counts in Redis that one worker at a time may write. Every method raises `StateAway`.

    Args:
        redis: Connected with `decode_responses=False`; not closed here.
        prefix: What all keys begin with, as `Flights.prefix`.
        worker: Who asks.
    """

    def __init__(self, redis: Redis, prefix: str, worker: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._lease = f"{prefix}alerts:lease"
        self._worker = worker.encode()

    async def lead(self) -> Lead:
        """Takes or renews the lease, for 15 s. `gained`: somebody else may have written meanwhile."""
        with asking():
            if await self._redis.set(self._lease, self._worker, nx=True, px=round(LEASE_S * 1000)):
                return "gained"
            mine = await self._redis.get(self._lease) == self._worker
            if mine and await self._redis.pexpire(self._lease, round(LEASE_S * 1000)):
                return "kept"
            return "lost"

    async def resign(self) -> None:
        """Another may lead at once."""
        with asking():
            if await self._redis.get(self._lease) == self._worker:
                await self._redis.delete(self._lease)

    async def load(self, tables: Iterable[str], minutes: Iterable[int]) -> Stored:
        """All rows of these tables, and the counts of these minutes."""
        tables, minutes = list(tables), list(minutes)
        with asking():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for table in tables:
                    pipeline.hgetall(self._table(table))
                for minute in minutes:
                    pipeline.hgetall(self._minute(minute))
                answers = await pipeline.execute()
        rows = [{name.decode(): row for name, row in found.items()} for found in answers[: len(tables)]]
        counts = [{what.decode(): int(n) for what, n in found.items()} for found in answers[len(tables) :]]
        return Stored(dict(zip(tables, rows, strict=True)), dict(zip(minutes, counts, strict=True)))

    async def write(self, tables: Mapping[str, Rows], counts: Counts) -> bool:
        """Writes all of it or nothing; False: nothing, as this worker leads no more."""
        with asking():
            async with self._redis.pipeline(transaction=True) as pipeline:
                await pipeline.watch(self._lease)
                if await pipeline.get(self._lease) != self._worker:  # it answers at once until `multi`
                    return False
                pipeline.multi()  # type: ignore[no-untyped-call]  # redis-py's
                for table, rows in tables.items():
                    for name, row in rows.items():
                        if row is None:
                            pipeline.hdel(self._table(table), name)
                        else:
                            pipeline.hset(self._table(table), name, row)
                    pipeline.expire(self._table(table), _KEPT_S)
                for minute, cells in counts.items():
                    for what, count in cells.items():
                        pipeline.hincrby(self._minute(minute), what, count)
                    pipeline.expire(self._minute(minute), _COUNTS_KEPT_S)
                try:
                    await pipeline.execute()
                except WatchError:
                    return False
        return True

    async def closed(self, places: Iterable[tuple[str, ...]]) -> Mapping[tuple[str, ...], float]:
        """Those of these places that are closed or half open, with the instant until which they are closed.

        A place is a provider, or an account of it, or a key or a model of that.
        """
        places = list(places)
        if not places:
            return {}
        with asking():
            found = await self._redis.mget([closed_key(self._prefix, *place) for place in places])
        return {place: float(until) for place, until in zip(places, found, strict=True) if until is not None}

    def _table(self, name: str) -> str:
        return f"{self._prefix}alerts:{name}"

    def _minute(self, minute: int) -> str:
        return f"{self._prefix}alerts:calls:{minute}"
