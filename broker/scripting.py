"""Running the Lua scripts: by their hashes, loaded again into a Redis that has forgotten them."""

import asyncio
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

import msgpack
from redis.asyncio import Redis
from redis.exceptions import (
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

_SCRIPTS: Final = ("admit", "claim", "renew", "commit", "release", "settle", "cancel")
_REFUSALS: Final = (OutOfMemoryError, ReadOnlyError)
"""Redis answers, and does not take writes: full, or a replica after a fail-over."""


class StateAway(Exception):
    """Redis cannot be reached, or refuses to write; nothing was decided."""


class Scripts:
    """The scripts on one Redis, each with the three keys of a flight.

    Args:
        redis: Connected with `decode_responses=False`.
        prefix: Put before every key.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._hashes: dict[str, str] = {}
        self._loading = asyncio.Lock()

    async def run(self, script: str, fingerprint: str, **arguments: Any) -> list[bytes]:
        """Runs one script for one flight; errors as for `run_all`."""
        return (await self.run_all(script, [(fingerprint, arguments)]))[0]

    async def run_all(self, script: str, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[bytes]]:
        """Runs a script once for each flight, all in one round trip.

        Raises:
            StateAway: Redis cannot be reached, or refuses to write.
        """
        if not calls:
            return []
        try:
            for _ in range(2):
                if script not in self._hashes:
                    await self._load()
                try:
                    return await self._evaluate(self._hashes[script], calls)
                except NoScriptError:  # a new or flushed Redis: nothing was run, so all can run again
                    self._hashes.clear()
            raise StateAway("Redis forgets its scripts as soon as they are loaded")
        except _REFUSALS as error:
            raise StateAway(f"{type(error).__name__}: {error}") from error
        except ResponseError:
            raise  # a fault in a script, which waiting does not mend
        except (RedisError, OSError) as error:
            raise StateAway(f"{type(error).__name__}: {error}") from error

    async def _evaluate(self, sha: str, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[bytes]]:
        if len(calls) == 1:
            fingerprint, arguments = calls[0]
            single: list[bytes] = await self._redis.evalsha(sha, 3, *self.keys(fingerprint), pack(arguments))
            return [single]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for fingerprint, arguments in calls:
                pipeline.evalsha(sha, 3, *self.keys(fingerprint), pack(arguments))
            answers: list[list[bytes]] = await pipeline.execute()
        return answers

    async def _load(self) -> None:
        async with self._loading:
            for name in _SCRIPTS:
                self._hashes[name] = await self._redis.script_load(_source(name))

    def keys(self, fingerprint: str) -> tuple[str, str, str]:
        """The flight, its waiters, and those who were served."""
        return (
            f"{self._prefix}flight:{fingerprint}",
            f"{self._prefix}waiters:{fingerprint}",
            f"{self._prefix}served:{fingerprint}",
        )


def _source(name: str) -> str:
    folder = resources.files("broker").joinpath("scripts")
    parts = [folder.joinpath(f"{part}.lua").read_text("utf-8") for part in ("prelude", name)]
    return "\n".join(parts)


def pack(value: Any) -> bytes:
    """As the scripts unpack it: Redis's msgpack knows no type for bytes."""
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed
