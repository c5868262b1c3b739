"""Messages on their way to `dead`, and what became of them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aio_pika
import httpx
from redis.asyncio import Redis

from broker.flights import Admission, ClaimTerms, Flights
from tests.support.house import House
from tests.support.waiting import until
from topology import names
from topology.messages import Candidate, Envelope, Job, Reply, Request, Waiter
from topology.names import Priority

REPLY_TO = "reply.tester.morgue.1"
QUEUE = "jobs.simulated.any.normal"
REQUESTS = "requests.normal"
SIMULATED = Candidate(provider="simulated", model="sim-small")


@dataclass(frozen=True)
class Kept:
    """A copy in `dead.kept`."""

    headers: Mapping[str, Any]
    body: bytes

    @property
    def reason(self) -> str:
        return str(self.headers["x-reason"])


@dataclass
class Morgue:
    """A client that makes messages die, with a line to Redis for the flights that they belong to.

    Leaving fails where a request was answered twice, unless the test says that this one may be.
    """

    house: House
    redis: Redis
    flights: Flights
    channel: aio_pika.abc.AbstractChannel
    now: float
    replies: dict[str, Reply] = field(default_factory=dict)
    may_be_answered_again: bool = False

    def request(self, id_: str = "r1", **changes: Any) -> Request:
        params = {"messages": [{"role": "user", "content": f"hello {id_}"}]}
        values = {"id": id_, "agent": "tester", "params": params, "deadline": self.now + 60.0, **changes}
        return Request(**values)

    def waiter(self, id_: str = "r1", *, left_s: float = 60.0, **changes: Any) -> Waiter:
        values: dict[str, Any] = {"agent": "tester", "reply_to": REPLY_TO, "priority": Priority.NORMAL}
        values |= {"deadline": self.now + left_s, "queued_at": self.now, **changes}
        return Waiter(id=id_, **values)

    def job(self, waiter: Waiter, *route: Candidate, fingerprint: str = "f1") -> Job:
        request = self.request(waiter.id)
        return Job(fingerprint=fingerprint, request=request, waiter=waiter, route=route or (SIMULATED,))

    async def admit(self, *waiters: Waiter, fingerprint: str = "f1") -> None:
        await self.flights.admit([Admission(fingerprint, waiter, 0.0, 600.0) for waiter in waiters])

    async def claim(self, job: Job, worker: str = "elsewhere") -> ClaimTerms:
        """The claim of a worker that is not there, which goes on for a lease."""
        terms = ClaimTerms(
            worker=worker,
            token=f"token-of-{worker}",
            max_spends=2,
            call={
                "call": f"{job.fingerprint}-token-of-{worker}", "provider": "simulated",
                "model": "sim-small", "request_id": job.waiter.id,
            },
            limits=(), closed=(), used_key=f"{self.flights.prefix}used",
            accounts=({"name": "main", "closed": [], "keys": [{"closed": []}], "limits": []},),
        )  # fmt: skip
        await self.flights.claim(job.fingerprint, job.waiter, terms)
        return terms

    async def lapse(self, fingerprint: str = "f1") -> None:
        """Nobody believes the claim any more."""
        await self.redis.hset(f"{self.flights.prefix}flight:{fingerprint}", "lease_until", "0")

    async def publish(
        self, body: bytes, key: str = QUEUE, exchange: str = names.JOBS, **properties: Any
    ) -> None:
        told = {"delivery_mode": 2, **properties}
        into = await self.channel.get_exchange(exchange) if exchange else self.channel.default_exchange
        await into.publish(aio_pika.Message(body, **told), key)

    async def ask(self, request: Request, **properties: Any) -> None:
        """As an agent does."""
        told = {"correlation_id": request.id, "reply_to": REPLY_TO, **properties}
        await self.publish(request.to_bytes(), "normal.tester", names.REQUESTS, **told)

    async def next_of(self, queue: str) -> aio_pika.abc.AbstractIncomingMessage:
        """The next message of a queue, once there is one."""
        found: list[aio_pika.abc.AbstractIncomingMessage] = []
        taken = await self.channel.get_queue(queue, ensure=False)

        async def is_there() -> bool:
            if message := await taken.get(fail=False):
                found.append(message)
            return bool(found)

        await until(is_there)
        return found[0]

    async def reject(self, queue: str) -> bytes:
        """Has the next message of a queue die there; returns its body."""
        message = await self.next_of(queue)
        await message.reject(requeue=False)
        return message.body

    async def limit_hand_outs(self, pattern: str, limit: int) -> None:
        """Lowers the delivery limit of some queues."""
        url = f"{self.house.management_url}/api/policies/{self.house.vhost}/test-limit"
        definition = {
            "dead-letter-exchange": names.DEAD, "dead-letter-strategy": "at-least-once",
            "overflow": "reject-publish", "delivery-limit": limit,
        }  # fmt: skip
        policy = {"pattern": pattern, "apply-to": "queues", "priority": 99, "definition": definition}
        async with httpx.AsyncClient(timeout=30) as http:
            (await http.put(url, json=policy)).raise_for_status()

            async def is_in_force() -> bool:
                found = await http.get(f"{self.house.management_url}/api/queues/{self.house.vhost}/{QUEUE}")
                return bool(found.json().get("policy") == "test-limit")

            await until(is_in_force)

    async def holds(self, queue: str) -> bool:
        """Whether anything waits there."""
        return await self.house.depth(queue) > 0

    async def kept(self) -> Kept:
        """The next copy for people, taken away."""
        message = await self.next_of(names.DEAD_KEPT_QUEUE)
        await message.ack()
        return Kept(dict(message.headers), message.body)

    async def is_answered(self, id_: str = "r1") -> Reply:
        await until(lambda: id_ in self.replies)
        return self.replies[id_]


def envelope(request: Request, waiter: Waiter) -> bytes:
    return Envelope(request=request, waiter=waiter).to_bytes()


@asynccontextmanager
async def morgue(house: House) -> AsyncIterator[Morgue]:
    """Stands where the topology stands already."""
    async with Redis.from_url(house.redis_url) as redis, await aio_pika.connect(house.amqp_url) as connection:
        flights = Flights(redis, house.prefix)
        channel = await connection.channel()
        opened = Morgue(house, redis, flights, channel, await flights.now())
        queue = await channel.declare_queue(REPLY_TO, exclusive=True)

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            reply = Reply.from_bytes(message.body)
            if reply.id in opened.replies:
                again.append(reply.id)
            opened.replies[reply.id] = reply

        again: list[str] = []
        await queue.consume(take, no_ack=True)
        yield opened
        assert opened.may_be_answered_again or again == []
