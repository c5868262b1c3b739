"""What operators have said that outlives every worker: which providers are paused, and the last reload."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from redis.asyncio import Redis

from broker.away import asking

PauseMode = Literal["pause", "drain"]
"""`pause`: what waits stays where it is. `drain`: it moves to another candidate of its route, where there is
one."""


_WRITTEN: Final = "*"
"""A field that no provider can have for a name: where it is missing, Redis may have been emptied."""


@dataclass(frozen=True)
class Said:
    """What stands in Redis.

    Attributes:
        paused: Provider to how it is paused; those that are not named run.
        forgotten: Whether Redis may have lost it: nothing was paused or resumed since it was empty.
        reload: The id of the last reload; None: there was none, or Redis was emptied since.
        opened: Changes whenever an operator opens what was closed: whoever waits for that asks again.
    """

    paused: Mapping[str, PauseMode]
    forgotten: bool
    reload: str | None
    opened: str | None = None


class Controls:
    """Reads and writes it. Every method raises `StateAway` where Redis cannot be asked.

    Args:
        redis: Connected with `decode_responses=False`; not closed here.
        prefix: What all keys begin with, as `Flights.prefix`.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._paused = paused_key(prefix)
        self._reload = f"{prefix}reload"
        self._opened = f"{prefix}opened"

    async def read(self) -> Said:
        """What stands there now."""
        with asking():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hgetall(self._paused)
                pipeline.mget(self._reload, self._opened)
                paused, (reload, opened) = await pipeline.execute()
        modes = {provider.decode(): _mode(mode) for provider, mode in paused.items()}
        forgotten = modes.pop(_WRITTEN, None) is None
        return Said(
            modes, forgotten, reload.decode() if reload else None, opened.decode() if opened else None
        )

    async def pause(self, provider: str, mode: PauseMode) -> None:
        """Nothing starts at this provider from now on, on any worker, until `resume`."""
        await self._write(self._redis.hset(self._paused, mapping={_WRITTEN: "1", provider: mode}))

    async def resume(self, provider: str) -> None:
        """Undoes `pause`, in both its modes."""
        await self._write(self._redis.hset(self._paused, _WRITTEN, "1"))
        await self._write(self._redis.hdel(self._paused, provider))

    async def write_back(self, paused: Mapping[str, PauseMode]) -> None:
        """What a worker remembers, into a Redis that has forgotten it, unless anybody has spoken since."""
        if await self._write(self._redis.hsetnx(self._paused, _WRITTEN, "1")):
            await self._write(
                self._redis.hset(self._paused, mapping={name: str(mode) for name, mode in paused.items()})
            )

    async def reload(self, id_: str) -> None:
        """Each worker is to read its configuration again, once for this id, however late it hears of it."""
        await self._write(self._redis.set(self._reload, id_))

    async def opened(self) -> None:
        """An operator has opened what was closed."""
        await self._write(self._redis.incr(self._opened))

    async def _write(self, writing: Awaitable[Any]) -> Any:
        with asking():
            return await writing


def paused_key(prefix: str) -> str:
    """The hash of what is paused: provider to mode. `claim.lua` looks into it, and is the hard bound."""
    return f"{prefix}paused"


def _mode(written: bytes) -> PauseMode:
    return "drain" if written == b"drain" else "pause"
