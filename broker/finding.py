"""Finding a request that waits by its id alone: for operators, since it looks through all keys."""

import re
from typing import Final

from redis.asyncio import Redis

from broker.away import asking
from topology.messages import Waiter

_AT_ONCE: Final = 1000


async def find_waiters(redis: Redis, prefix: str, request_id: str) -> dict[str, Waiter | None]:
    """Who waits under this id: at most one of each agent.

    Args:
        redis: Connected with `decode_responses=False`; not closed here.
        prefix: What all keys begin with, as `Flights.prefix`.
        request_id: The id; agents may have chosen the same.

    Returns:
        Each waiter by its key; None for one that a limit has parked, so that no flight knows it just now.

    Raises:
        StateAway: Redis cannot be asked.
    """
    requests = f"{prefix}request:"
    pattern = f"{_literal(requests)}*/{_literal(request_id)}"
    found: dict[str, Waiter | None] = {}
    with asking():
        async for name in redis.scan_iter(pattern, count=_AT_ONCE):
            key = name.decode().removeprefix(requests)
            fingerprint = await redis.get(name)
            if isinstance(fingerprint, bytes) and fingerprint and key.partition("/")[2] == request_id:
                packed = await redis.hget(f"{prefix}waiters:{fingerprint.decode()}", key)
                found[key] = Waiter.from_bytes(packed) if isinstance(packed, bytes) else None
    return found


def _literal(text: str) -> str:
    """As it stands, in a pattern of Redis."""
    return re.sub(r"([][*?^\\-])", r"\\\1", text)
