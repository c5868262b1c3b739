"""Whoever asks Redis can be called off, at whatever moment the word comes."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.controls import Controls
from broker.flights import Flights
from sandbox.nodes import Brokers

_TURNS = 40
"""Of the event loop; the answer is there after fewer, on a machine that does nothing else."""

ASKING: dict[str, Callable[[Redis, str], Awaitable[Any]]] = {
    "a script": lambda redis, prefix: Flights(redis, prefix).cancel(["agent/request"]),
    "the clock": lambda redis, prefix: Flights(redis, prefix).now(),
    "who waits": lambda redis, prefix: Flights(redis, prefix).waiters("f1"),
    "who is paused": lambda redis, prefix: Controls(redis, prefix).read(),
}


@pytest.mark.parametrize("what", ASKING)
async def test_a_cancellation_is_never_lost(brokers: Brokers, what: str) -> None:
    # The client has a time-out, as each worker's has: what it waits with is what used to lose them.
    async with Redis.from_url(brokers.redis_url, socket_timeout=4.0) as redis:
        prefix = secrets.token_hex(4)
        await ASKING[what](redis, prefix)  # connected, and the scripts are known
        for turns in range(_TURNS):
            asked = asyncio.ensure_future(ASKING[what](redis, prefix))
            for _ in range(turns):
                await asyncio.sleep(0)
            called_off = asked.cancel()
            await asyncio.wait({asked})
            assert asked.cancelled() == called_off, f"called off after {turns} turns, it went on"
