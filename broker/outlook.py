"""Where waiting requests stand in their lines, and when each is expected to start.

The lines are in Redis (`lines.lua`), in the order of turns, and so is what every limit has granted
(`meters.lua`). Classes have shares. So it is known how many start before a request, if nobody else comes.
When these are granted follows from the limits (`topology.schedule`), from what calls cost and how long they
last: both are learned from the calls that ended.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from redis.asyncio import Redis

from broker.away import asking
from broker.flights import Flights
from broker.permits import Permits, order_key
from topology import names
from topology.fleet import Fleet, Provider
from topology.names import Priority
from topology.schedule import Bucket, Closed, Fixed, Lease, Meter, Sliding, grants

_SEEN_AFTER_S: Final = 0.5
"""What a call that has ended gives back is looked at each second."""


@dataclass(frozen=True)
class Place:
    """Where a flight's job waits.

    Attributes:
        queue: The common queue of its line.
        ahead: How many calls of its class start before it, as far as is known now.
        starts_at: When it is expected to start, epoch seconds; None: nobody knows.
    """

    queue: str
    ahead: int
    starts_at: float | None


@dataclass(frozen=True)
class Newcomers:
    """What awaits those who come to a line now.

    Attributes:
        starts: When the first of them would start, the second, ..., as far as is known.
        takes_s: How long a call lasts on average; None: none has ended lately.
    """

    starts: tuple[float, ...]
    takes_s: float | None


class Outlook:
    """Reads it for one fleet. Every method raises `StateAway`.

    Args:
        redis: Connected with `decode_responses=False`; not closed here.
        fleet: Whose limits hold.
        prefix: Put before every key of Redis, for fleets that share one.
    """

    def __init__(self, redis: Redis, fleet: Fleet, prefix: str = "") -> None:
        self._redis = redis
        self._fleet = fleet
        self._flights = Flights(redis, prefix)
        self._prefix = self._flights.prefix

    async def places(self, fingerprints: Sequence[str]) -> dict[str, Place]:
        """The places of those that wait in a line; who runs, or is parked, has none."""
        lines: dict[str, list[str]] = {}
        for fingerprint, queue in (await self._queues_of(fingerprints)).items():
            lines.setdefault(queue, []).append(fingerprint)
        found: dict[str, Place] = {}
        for queue, waiting in lines.items():
            ahead = await self._ranks(queue, waiting)
            instants, _ = await self._starts(queue, set(ahead.values()))
            found |= {f: Place(queue, before, instants.get(before)) for f, before in ahead.items()}
        return found

    async def _queues_of(self, fingerprints: Sequence[str]) -> dict[str, str]:
        """The common queue of each line."""
        with asking():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for fingerprint in fingerprints:
                    pipeline.hget(f"{self._prefix}flight:{fingerprint}", "line")
                answers = await pipeline.execute()
        return {
            fingerprint: line.decode().removeprefix(f"{self._prefix}line:").partition("|")[0]
            for fingerprint, line in zip(fingerprints, answers, strict=True)
            if line
        }

    async def _ranks(self, queue: str, fingerprints: Sequence[str]) -> dict[str, int]:
        with asking():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for fingerprint in fingerprints:
                    pipeline.zrank(order_key(self._prefix, queue), fingerprint)
                answers = await pipeline.execute()
        pairs = zip(fingerprints, answers, strict=True)
        return {fingerprint: int(rank) for fingerprint, rank in pairs if rank is not None}

    async def newcomers(self, queue: str, count: int) -> Newcomers:
        """What awaits so many that came now, behind all who wait there."""
        with asking():
            waiting = int(await self._redis.zcard(order_key(self._prefix, queue)))
        instants, takes_s = await self._starts(queue, range(waiting, waiting + count))
        starts = tuple(instants[n] for n in range(waiting, waiting + count) if n in instants)
        return Newcomers(starts, takes_s)

    async def _starts(self, queue: str, ahead: Collection[int]) -> tuple[dict[int, float], float | None]:
        """When a class's call with so many of its own before it starts, and how long calls last there."""
        _, name, lane, word = queue.split(".")
        provider, own = self._fleet.providers.get(name), Priority(word)
        if provider is None or not ahead:
            return {}, None
        with asking():
            others = {
                p: int(await self._redis.zcard(order_key(self._prefix, names.jobs_queue(name, lane, p))))
                for p in Priority
                if p is not own
            }
        shares = self._fleet.priorities.shares

        def before(own_ones: int) -> int:
            turns: float = (own_ones + 1) / shares[own]
            return own_ones + sum(min(n, math.floor(turns * shares[p])) for p, n in others.items())

        counts = {count: before(count) for count in ahead}
        instants, takes_s = await self._grants(provider, lane, own, max(counts.values()) + 1)
        return {count: instants[n] for count, n in counts.items() if n < len(instants)}, takes_s

    async def _grants(
        self, provider: Provider, lane: str, priority: Priority, count: int
    ) -> tuple[list[float], float | None]:
        """The instants of the next so many permits, as far as they are known; how long a call lasts."""
        permits = Permits(self._fleet, provider, self._prefix, "")
        now = await self._flights.now()
        shared, accounts = permits.limits_of_lane(lane, priority)
        opens_at = await self._opens_at(permits, accounts)
        standings, *of_accounts = await self._flights.meters(shared, *accounts.values())
        [takes_s] = [
            how.get("mean") for limit, how in zip(shared, standings, strict=True) if "adapts" in limit
        ]
        lasts_s = (takes_s or 0.0) + _SEEN_AFTER_S
        meters = [
            [Closed(opens_at[account]), *_meters(limits, how, now, lasts_s)]
            for (account, limits), how in zip(accounts.items(), of_accounts, strict=True)
        ]
        common = [Closed(opens_at[""]), *_meters(shared, standings, now, lasts_s)]
        return list(islice(grants(now, common, meters), count)), takes_s

    async def _opens_at(self, permits: Permits, accounts: Iterable[str]) -> Mapping[str, float]:
        """Until when the provider ('') and each account are closed."""
        owners = {"": permits.closed_key(), **{name: permits.closed_key(name) for name in accounts}}
        with asking():
            untils = await self._redis.mget(list(owners.values()))
        return {name: float(until or 0) for name, until in zip(owners, untils, strict=True)}


def _meters(
    limits: Sequence[Mapping[str, Any]], standings: Sequence[Mapping[str, Any]], now: float, lasts_s: float
) -> list[Meter]:
    meters = (_meter(limit, how, now, lasts_s) for limit, how in zip(limits, standings, strict=True))
    return [meter for meter in meters if meter is not None]


def _meter(limit: Mapping[str, Any], standing: Mapping[str, Any], now: float, lasts_s: float) -> Meter | None:
    """None: how much calls take of it is not known yet."""
    if limit["kind"] == "lease":
        return Lease(standing["allowed"], standing.get("mean"), standing["held"], now)
    cost = 1.0 if limit["unit"] == "requests" else standing.get("mean")
    if cost is None:
        return None
    amount, window_s, slack_s = limit["amount"], limit["window_s"], limit["slack_s"]
    match limit["kind"]:
        case "sliding":
            log = list(zip(standing["log"][::2], standing["log"][1::2], strict=True))
            reserves = standing.get("reserved")
            return Sliding(amount, window_s + slack_s, log, cost, reserves=reserves, lasts_s=lasts_s)
        case "bucket":
            return Bucket(amount, window_s, limit["burst"], standing["full_at"], cost, slack_s=slack_s)
        case _:
            at_once = limit.get("at_once", 1.0)
            if standing["kept"]:
                at_once = min(at_once, 1 - limit.get("kept", 0.0))
            return Fixed(
                amount, window_s, standing["starts"], standing["used"], cost, at_once=at_once, slack_s=slack_s
            )
