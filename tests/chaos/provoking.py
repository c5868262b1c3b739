"""Some points are passed only by traffic of a kind: it is sent when a kill waits there."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from itertools import count
from typing import Any, Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.chaos.fleet import Fleet
from tests.chaos.load import CUTTING, MORTAL, burst, single
from tests.faults.nursery import Nursery
from tests.support.house import House
from tests.support.waiting import until
from topology import names
from topology.messages import Job
from topology.names import Priority

_SHORT_S: Final = 28.0
"""With less time than the tier of 30 s takes, a job that nobody ran is parked for 5 s."""
_COME_SO_FAR_S: Final = 15.0
_ROUNDS: Final = 3
_TRUSTED_S: Final = 15
_ASKED_AGAIN_S: Final = 1.0


class Provoking:
    """Sends requests of a kind, has jobs die as the delivery limit would have it, keeps a reply back.

    Args:
        house: Where the jobs are.
        fleet: Asks.
        nursery: Where a worker to be frozen comes from.
        timeout_s: Of the requests sent from here.
    """

    def __init__(self, house: House, fleet: Fleet, nursery: Nursery, timeout_s: float) -> None:
        self._house = house
        self._fleet = fleet
        self._nursery = nursery
        self._timeout_s = timeout_s
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()

    def provoke(self, point: str) -> None:
        """Has somebody pass this point soon, where the ordinary load may not."""
        match point:
            case "front.parked":
                self._own(self._hurry())
            case "front.after_settle":
                self._own(self._keep_a_reply_back())
            case "backend.after_release":
                self._own(self._close_circuits())
            case "backend.parked":
                self._own(self._fleet.ask(single(next(self._numbers), CUTTING, self._timeout_s)))
            case "undertaker.after_commit":
                self._own(self._let_die(CUTTING, self._timeout_s, come_to=_has_two_spends))
            case "undertaker.after_replies" | "undertaker.after_settle":
                self._own(self._let_die(MORTAL, self._timeout_s, come_to=_is_over))
            case _ if point.startswith("undertaker."):
                self._own(self._let_die(MORTAL, _SHORT_S))

    async def close(self) -> None:
        """Waits until what was sent here has come to its end."""
        await asyncio.gather(*self._tasks)

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="provoking")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hurry(self) -> None:
        for ask in burst(next(self._numbers), self._timeout_s):
            await self._fleet.ask(ask)

    async def _close_circuits(self) -> None:
        """Else all go around what fails, and no call of the ordinary load does."""
        async with Redis.from_url(self._house.redis_url) as redis:
            for _ in range(_TRUSTED_S):
                with suppress(RedisError):
                    async for key in redis.scan_iter(f"{self._house.prefix}o1:closed:gone*"):
                        await redis.delete(key)
                await asyncio.sleep(1)

    async def _keep_a_reply_back(self) -> None:
        """A backend freezes with a result stored and nobody told; the callers ask again meanwhile."""
        backend = await self._nursery.start("backend:simulated")
        with suppress(TimeoutError):
            for _ in range(
                _ROUNDS
            ):  # another front may take it, or a client that cannot be told to ask again
                await backend.arm("backend.after_commit", do="stop")
                await backend.fired(_COME_SO_FAR_S)
                await self._fleet.retransmit()
                await asyncio.sleep(_ASKED_AGAIN_S)
                backend.cont()
        backend.drain()
        await backend.ended()

    async def _let_die(self, model: str, timeout_s: float, come_to: Any = None) -> None:
        """Asks, takes the job from its queue and rejects it: at once, or once its flight has come so far.

        Until then a copy of the job stands in for it.
        """
        queue = names.jobs_queue(model.partition("/")[0], names.ANY_LANE, Priority.NORMAL)
        with suppress(AMQPError, RedisError, OSError):  # a broker is away: the job is handed out again
            async with await aio_pika.connect(self._house.amqp_url) as connection:
                channel = await connection.channel()
                await channel.set_qos(1)
                taking = await _take_one(channel, queue)
                await self._fleet.ask(single(next(self._numbers), model, timeout_s))
                job = await taking
                if come_to is not None:
                    exchange = await channel.get_exchange(names.JOBS)
                    await exchange.publish(_copy(job), queue)
                    await self._until(job, come_to)
                await job.reject(requeue=False)

    async def _until(self, job: AbstractIncomingMessage, come_to: Any) -> None:
        flight = f"{self._house.prefix}o1:flight:{Job.from_bytes(job.body).fingerprint}"
        async with Redis.from_url(self._house.redis_url) as redis:

            async def has_come() -> bool:
                return bool(come_to(*await redis.hmget(flight, "state", "spends")))

            with suppress(TimeoutError):
                await until(has_come, _COME_SO_FAR_S)


def _is_over(state: bytes | None, _: bytes | None) -> bool:
    return state in {b"done", b"ended"}


def _has_two_spends(state: bytes | None, spends: bytes | None) -> bool:
    return _is_over(state, spends) or (state == b"queued" and int(spends or 0) >= 2)


async def _take_one(channel: AbstractChannel, name: str) -> "asyncio.Future[AbstractIncomingMessage]":
    """The next message of a queue, before any worker."""
    taken: asyncio.Future[AbstractIncomingMessage] = asyncio.get_running_loop().create_future()

    async def take(message: AbstractIncomingMessage) -> None:
        if not taken.done():  # a second may come before the consumer is gone; it is handed out again
            taken.set_result(message)

    queue = await channel.get_queue(name, ensure=False)
    await queue.consume(take, arguments={"x-priority": 10})  # before the workers
    return taken


def _copy(message: AbstractIncomingMessage) -> aio_pika.Message:
    return aio_pika.Message(
        message.body,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        correlation_id=message.correlation_id,
        message_id=message.message_id,
    )
