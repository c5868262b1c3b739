"""Whether everything is over: no message on its way, nobody waiting, nothing held."""

from typing import Final
from urllib.parse import quote

import aio_pika
import httpx
import msgpack
from redis.asyncio import Redis

from tests.support.house import House
from tests.support.waiting import until
from topology import names

_INSIDE: Final = ("requests.", "jobs.", "retry.", "reply.", names.DEAD_QUEUE)
"""Where requests and their answers are on their way; `dead.kept` holds copies for people."""


async def at_rest(house: House, timeout_s: float = 60.0) -> None:
    """Waits until the house is at rest; an assertion names what is not after `timeout_s` seconds.

    At rest, no queue holds a message, no waiter's deadline is ahead, no flight runs or is queued for
    somebody, and no unit of concurrency is leased. Living workers may hold deliveries that the broker
    does not count as waiting: after they are stopped, those show.
    """
    found: list[str] = []

    async def nothing() -> bool:
        found[:] = await unrest(house)
        return not found

    try:
        await until(nothing, timeout_s)
    except TimeoutError:
        raise AssertionError("not at rest: " + "; ".join(found)) from None


async def unrest(house: House) -> list[str]:
    """What is not at rest, each as a clause; RabbitMQ is looked at once Redis is at rest."""
    return await _in_redis(house) or await _messages(house)


async def _messages(house: House) -> list[str]:
    async with httpx.AsyncClient(base_url=house.management_url, timeout=30) as client:
        answer = await client.get(f"/api/queues/{quote(house.vhost, safe='')}?disable_stats=true")
    queues = [row["name"] for row in answer.raise_for_status().json()]
    found: list[str] = []
    connection = await aio_pika.connect(house.amqp_url)
    async with connection:
        for queue in queues:
            if queue.startswith(_INSIDE) and queue != names.DEAD_KEPT_QUEUE:
                messages = await _ready(connection, queue)
                found += [f"{messages} in {queue}"] if messages else []
    return found


async def _ready(connection: aio_pika.abc.AbstractConnection, queue: str) -> int:
    """The broker's own count at this moment; the management API's is seconds old.

    A reply that nobody reads has arrived: its agent is gone, or comes back for it.
    """
    try:
        async with connection.channel() as channel:
            declared = (await channel.declare_queue(queue, passive=True)).declaration_result
    except aio_pika.exceptions.ChannelNotFoundEntity:
        return 0  # its agent has left since it was listed
    if queue.startswith("reply.") and not declared.consumer_count:
        return 0
    return declared.message_count or 0


async def _in_redis(house: House) -> list[str]:
    async with Redis.from_url(house.redis_url) as redis:
        seconds, microseconds = await redis.time()
        now = seconds + microseconds / 1e6
        prefix = f"{house.prefix}o1:"
        found: list[str] = []
        async for raw in redis.scan_iter(f"{prefix}*", count=1000):
            key = raw.decode()
            match key.removeprefix(prefix).partition(":")[0]:
                case "waiters":
                    packed = await redis.hvals(key)
                    waiting = sum(msgpack.unpackb(one)["deadline"] > now for one in packed)
                    found += [f"{waiting} in {key}"] if waiting else []
                case "flight":
                    state = await redis.hget(key, "state")
                    found += [f"{key} is running"] if state == b"running" else []
                case "lease" if "|" not in key:
                    leased = await redis.zcount(key, now, "+inf")
                    found += [f"{leased} in {key}"] if leased else []
                case _:
                    pass
    return found
