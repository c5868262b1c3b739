"""How a fleet stands, for people: what is used of each limit, what is closed, what agents have waiting."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from redis.asyncio import Redis

from broker.away import asking
from broker.flights import Flights
from broker.permits import KEYLESS, Permits
from topology.fleet import Fleet, Provider

State = Literal["open", "closed", "half open", "disabled"]

FOR_GOOD: Final = 32_503_680_000.0
"""The year 3000: what an operator has disabled is closed until then."""

_BREAKS_AT: Final = 5
"""So many failed calls in a row open a circuit; `closed.lua` knows it, too."""


@dataclass(frozen=True)
class LimitStanding:
    """A limit, and what is used of it.

    Attributes:
        provider: None: it is the whole fleet's.
        account: Whose it is; None: of all accounts together.
        model: Of which model of the account; None: of all.
        name: Such as `requests-60s` or `concurrency`.
        amount: As configured.
    """

    provider: str | None
    account: str | None
    model: str | None
    name: str
    amount: float
    used: float
    most: float
    back_at: float | None


@dataclass(frozen=True)
class ClosedPart:
    """A part of a provider that is not in use: all of it, an account, a model of that, or a key.

    Attributes:
        key: Where the key is kept, such as `env:GROQ_API_KEY`.
        circuit: Whether it is closed since calls failed there, five in a row.
        until: Epoch seconds; None unless `closed`.
    """

    provider: str
    account: str | None
    model: str | None
    key: str | None
    state: State
    circuit: bool
    until: float | None


_Whose = tuple[str | None, str | None, str | None]
"""A provider, an account, a model."""


class Standings:
    """Reads Redis and changes nothing. Every method raises `StateAway`.

    Args:
        redis: Connected with `decode_responses=False`; not closed here.
        prefix: Put before every key, for fleets that share a Redis.
    """

    def __init__(self, redis: Redis, prefix: str = "") -> None:
        self._redis = redis
        self._flights = Flights(redis, prefix)
        self._prefix = self._flights.prefix

    async def now(self) -> float:
        """Redis's clock, in epoch seconds."""
        return await self._flights.now()

    async def limits(self, fleet: Fleet) -> list[LimitStanding]:
        """All limits on calls, the fleet's first, then each provider's. The pace of requests is not here."""
        groups = list(self._groups(fleet))
        answers = await self._flights.uses(*([limit for _, limit in group] for group in groups))
        return [
            LimitStanding(*whose, _name(limit), limit["amount"], use.used, use.most, use.back_at)
            for group, uses in zip(groups, answers, strict=True)
            for (whose, limit), use in zip(group, uses, strict=True)
        ]

    async def closed(self, fleet: Fleet) -> list[ClosedPart]:
        """What is not in use."""
        parts = {
            key: part for provider in fleet.providers.values() for key, part in self._parts(fleet, provider)
        }
        if not parts:
            return []
        now = await self.now()
        with asking():
            found = await self._redis.mget([*parts, *(f"{key}|fails" for key in parts)])
        untils, fails = found[: len(parts)], found[len(parts) :]
        return [
            ClosedPart(
                *part, *_closed_state(float(until), now, circuit=int(float(failed or 0)) >= _BREAKS_AT)
            )
            for part, until, failed in zip(parts.values(), untils, fails, strict=True)
            if until is not None
        ]

    async def waiting(self, queues: Mapping[str, int]) -> dict[str, int]:
        """How many flights each agent has waiting for calls.

        Args:
            queues: Queues of jobs, each with how many stand beside it.
        """
        now = await self.now()
        places = [
            f"{self._prefix}line:{queue}|{side}"
            for queue, sides in queues.items()
            for side in range(sides + 1)
        ]
        with asking():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for place in places:
                    pipeline.zrangebyscore(place, now, "+inf")
                agents = await pipeline.execute()
                own = [
                    (agent.decode(), f"{place}|{agent.decode()}")
                    for place, found in zip(places, agents, strict=True)
                    for agent in found
                ]
                for _, key in own:
                    pipeline.zcount(key, now, "+inf")
                counts = await pipeline.execute()
        waiting: Counter[str] = Counter()
        for (agent, _), count in zip(own, counts, strict=True):
            waiting[agent] += count
        return dict(waiting)

    def _groups(self, fleet: Fleet) -> Iterator[list[tuple[_Whose, Mapping[str, Any]]]]:
        """Limits with whose they are: what accounts share, then each account's with those of its models."""
        for provider in fleet.providers.values():
            permits = Permits(fleet, provider, self._prefix, "")
            yield [((None, None, None), limit) for limit in permits.limits_of_fleet()]
            break
        for provider in fleet.providers.values():
            name, permits = provider.name, Permits(fleet, provider, self._prefix, "")
            yield [((name, None, None), limit) for limit in permits.limits_of_provider()]
            own = {account.name: permits.limits_of_account(account) for account in provider.quota_owners}
            for account, limits in (own or {KEYLESS: []}).items():
                yield [
                    *(((name, account, None), limit) for limit in limits),
                    *(
                        ((name, account, model.id), limit)
                        for model in provider.models
                        for limit in permits.limits_of_model(account, model)
                    ),
                ]

    def _parts(
        self, fleet: Fleet, provider: Provider
    ) -> Iterator[tuple[str, tuple[str, str | None, str | None, str | None]]]:
        """What can be closed, by the key that closes it."""
        name, key_of = provider.name, Permits(fleet, provider, self._prefix, "").closed_key
        yield key_of(), (name, None, None, None)
        keys = {account.name: account.api_keys for account in provider.quota_owners}
        for account, api_keys in (keys or {KEYLESS: ()}).items():
            yield key_of(account), (name, account, None, None)
            for model in provider.models:
                yield key_of(account, model.id), (name, account, model.id, None)
            for key in api_keys:
                yield key_of(account, key.origin), (name, account, None, key.origin)


def state_at(instant: float | None, now: float) -> tuple[State, float | None]:
    """What an instant until which something is closed comes to, and that instant where it still matters."""
    if instant is None:
        return "open", None
    if instant >= FOR_GOOD:
        return "disabled", None
    return ("closed", instant) if instant > now else ("half open", None)


def _closed_state(instant: float, now: float, *, circuit: bool) -> tuple[State, bool, float | None]:
    state, until = state_at(instant, now)
    return state, circuit, until


def _name(limit: Mapping[str, Any]) -> str:
    return str(limit["name"]).rpartition(" ")[2]
