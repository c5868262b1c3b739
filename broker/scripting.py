"""Running the Lua scripts: by their hashes, loaded again into a Redis that has forgotten them."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

import msgpack
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisSilent

from broker.away import StateAway, asking

_SCRIPTS: Final = (
    "admit",
    "claim",
    "hedge",
    "restamp",
    "renew",
    "commit",
    "release",
    "settle",
    "cancel",
    "left",
    "meters",
    "enter",
)
_PERMITS: Final = ("limits", "closed", "retries", "permits")
_OF_CLAIM: Final = ("lines", "turns", "rounds", "accounts")
_OF_PERMITS: Final = frozenset({"claim", "hedge", "restamp", "commit", "release", "left", "meters"})
_LOADS: Final = 3
"""How often they are loaded for one round trip in a Redis that forgets them again."""
_WHEN_FULL: Final = frozenset({"restamp", "renew", "commit", "release", "settle", "cancel"})
"""A full Redis takes nothing new. What has begun comes to its end even so: a call that is paid for is stored
and told. What that takes is bounded by the calls under way."""
_OUR_FAULT: Final = frozenset({"ERR", "WRONGTYPE"})
"""The codes of errors that a script makes itself. With all others Redis says that it takes no writes for now:
it is full or loading, its disk is, it is a replica, lacks its replicas, is busy, has changed its password."""


class Scripts:
    """The scripts on one Redis, each with the three keys of a flight.

    Args:
        redis: Connected with `decode_responses=False`.
        prefix: Put before every key.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    async def run(self, script: str, fingerprint: str, **arguments: Any) -> list[bytes]:
        """Runs one script for one flight; errors as for `run_all`."""
        return (await self.run_all(script, [(fingerprint, arguments)]))[0]

    async def run_all(self, script: str, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[bytes]]:
        """Runs a script once for each flight, all in one round trip.

        Raises:
            StateAway: Redis cannot be reached, or refuses for now. Some of it may have been run.
        """
        if not calls:
            return []
        with asking():
            try:
                return await self._run_loaded(script, calls)
            except RedisSilent:  # a line that fell silent; those that rest may have, too
                await self._redis.connection_pool.disconnect(inuse_connections=False)
                raise
            except ResponseError as error:
                if _code(error) not in _OUR_FAULT:
                    raise
                fault = error
        raise fault  # waiting does not mend it

    async def _run_loaded(
        self, script: str, calls: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> list[list[bytes]]:
        """Runs it, and where Redis does not know it loads it first."""
        answers: dict[int, list[bytes]] = {}
        for _ in range(_LOADS + 1):
            left = [n for n in range(len(calls)) if n not in answers]
            ended = await self._evaluate(script, [calls[n] for n in left])
            answers |= {n: a for n, a in zip(left, ended, strict=True) if not isinstance(a, Exception)}
            errors = [error for error in ended if isinstance(error, Exception)]
            if not errors:
                return [answers[n] for n in range(len(calls))]
            if others := [error for error in errors if not isinstance(error, NoScriptError)]:
                raise others[0]
            await self._load()  # a new or flushed Redis: those were not run
        raise StateAway("Redis forgets its scripts as soon as they are loaded")

    async def _evaluate(
        self, script: str, calls: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> "list[list[bytes] | Exception]":
        """Answers and errors, in the calls' order."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for fingerprint, arguments in calls:
                pipeline.evalsha(_hash(script), 3, *self.keys(fingerprint), pack(arguments))
            answers: list[list[bytes] | Exception] = await pipeline.execute(raise_on_error=False)
        return answers

    async def _load(self) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in _SCRIPTS:
                pipeline.script_load(_loaded_as(name))
            await pipeline.execute()

    def keys(self, fingerprint: str) -> tuple[str, str, str]:
        """The flight, its waiters, and those who were served."""
        return (
            f"{self._prefix}flight:{fingerprint}",
            f"{self._prefix}waiters:{fingerprint}",
            f"{self._prefix}served:{fingerprint}",
        )


@cache
def _hash(name: str) -> str:
    """By which Redis knows the script."""
    return hashlib.sha1(_loaded_as(name).encode(), usedforsecurity=False).hexdigest()


@cache
def _loaded_as(name: str) -> str:
    return f"#!lua flags=allow-oom\n{_source(name)}" if name in _WHEN_FULL else _source(name)


def _source(name: str) -> str:
    folder = resources.files("broker").joinpath("scripts")
    parts = ["prelude", name]
    if name in _OF_PERMITS:
        parts[1:1] = _PERMITS
    if name == "admit":
        parts[-1:-1] = ["limits", "lines"]
    if name == "enter":
        parts[-1:-1] = ["lines"]
    if name in {"claim", "hedge"}:
        parts[-1:-1] = _OF_CLAIM
    return "\n".join(folder.joinpath(f"{part}.lua").read_text("utf-8") for part in parts)


def _code(error: ResponseError) -> str:
    """The error's first word, by which Redis tells what kind it is; redis-py cuts off those that it knows."""
    return error.status_code or str(error).partition(" ")[0]


def pack(value: Any) -> bytes:
    """As the scripts unpack it: Redis's msgpack knows no type for bytes."""
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed
