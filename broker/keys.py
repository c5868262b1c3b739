"""Accounts and keys as all workers see them: which of them are closed, and what is left of their limits."""

from collections.abc import Iterator
from dataclasses import dataclass

from redis.asyncio import Redis

from broker.away import asking
from broker.controls import Controls
from broker.flights import Flights
from broker.permits import Permits
from broker.standings import FOR_GOOD, State, state_at
from topology.fleet import Account, Fleet, Provider


@dataclass(frozen=True)
class Left:
    """What is left of one limit, in its own unit; `name` says of whom and which."""

    name: str
    amount: float
    left: float


@dataclass(frozen=True)
class KeyStanding:
    """One key of an account.

    Attributes:
        account: Whose quota it spends.
        key: Where it is kept, such as `env:GROQ_API_KEY`.
        state: `half open`: its time is over, and one call may try it.
        until: The instant until which it is closed, epoch seconds; None unless `closed`.
        used_today: Calls of its account in this UTC day.
        left: The limits of its account, and what is left of them.
    """

    provider: str
    account: str
    key: str
    state: State
    until: float | None
    used_today: int
    left: tuple[Left, ...]


class Keys:
    """Reads and changes the state of a fleet's accounts and keys. Every method raises `StateAway`.

    Args:
        redis: Connected with `decode_responses=False`; not closed here.
        fleet: The configuration that names them.
        prefix: Put before every key of Redis, for fleets that share one.
    """

    def __init__(self, redis: Redis, fleet: Fleet, prefix: str = "") -> None:
        self._redis = redis
        self._fleet = fleet
        self._flights = Flights(redis, prefix)
        self._controls = Controls(redis, self._flights.prefix)

    async def standings(self, provider: Provider) -> list[KeyStanding]:
        """All keys of a provider, in the order of the configuration."""
        now = await self._flights.now()
        found = []
        for account in provider.quota_owners:
            used, left = await self._used(provider, account), await self._left(provider, account)
            for origin, places in self._places(provider, account):
                with asking():
                    instants = [float(v) for v in await self._redis.mget(places) if v is not None]
                state, until = state_at(max(instants, default=None), now)
                found.append(KeyStanding(provider.name, account.name, origin, state, until, used, left))
        return found

    async def disable(self, provider: Provider, name: str) -> list[str]:
        """Closes what `name` means until `enable`; returns the keys that this is about."""
        return await self._set(provider, name, FOR_GOOD)

    async def enable(self, provider: Provider, name: str) -> list[str]:
        """Opens what `name` means, whatever closed it."""
        return await self._set(provider, name, None)

    async def probe(self, provider: Provider, name: str) -> list[str]:
        """Has the next call try what `name` means, though its time is not over; that call's end decides."""
        return await self._set(provider, name, await self._flights.now())

    async def _set(self, provider: Provider, name: str, until: float | None) -> list[str]:
        """For an account, or for one key; to open an account opens its keys, too."""
        origins, places = [], set()
        for account in provider.quota_owners:
            for origin, (of_account, of_key) in self._places(provider, account):
                if name == account.name:
                    places |= {of_account, of_key} if until is None else {of_account}
                elif name == origin:
                    places.add(of_key)
                else:
                    continue
                origins.append(origin)
        with asking():
            for place in places:
                if until is None:
                    await self._redis.delete(place, f"{place}|probe", f"{place}|tries")
                else:
                    await self._redis.set(place, f"{until:.6f}")
        if origins:
            await self._controls.opened()
        return origins

    def _places(self, provider: Provider, account: Account) -> Iterator[tuple[str, tuple[str, str]]]:
        """Each key of an account, with what closes the account and what closes the key."""
        permits = self._permits(provider)
        for key in account.api_keys:
            yield key.origin, (permits.closed_key(account.name), permits.closed_key(account.name, key.origin))

    async def _used(self, provider: Provider, account: Account) -> int:
        with asking():
            score = await self._redis.zscore(self._permits(provider).used_key(), account.name)
        return int(score or 0)

    async def _left(self, provider: Provider, account: Account) -> tuple[Left, ...]:
        limits = self._permits(provider).limits_of_account(account)
        [uses] = await self._flights.uses(limits)
        return tuple(
            Left(limit["name"], limit["amount"], use.left) for limit, use in zip(limits, uses, strict=True)
        )

    def _permits(self, provider: Provider) -> Permits:
        return Permits(self._fleet, provider, self._flights.prefix, "")
