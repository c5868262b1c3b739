"""A queue of one's own that the broker does not let stand under its name is declared under another one.

In a cluster that is a queue whose node is down. Here another connection has it for itself, which the
broker refuses in the same place.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import pytest

from console.event_monitor import EventTail
from producer_sdk import AsyncOptimizer, Optimizer, Overloaded
from producer_sdk.roster import Roster
from producer_sdk.transport import Outgoing, Published, Publisher, Subscriber
from tests.support.clients import Client, Driver, Threaded, desk, nothing, open_client, said
from tests.support.house import House
from tests.support.proxy import proxy_to
from tests.support.waiting import until
from topology import names
from topology.events import EventType
from topology.messages import Event, new_id


@asynccontextmanager
async def taken(house: House, queue: str) -> AsyncIterator[None]:
    """Somebody else has this queue for himself."""
    async with await aio_pika.connect(house.amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(queue, exclusive=True)
        yield


@asynccontextmanager
async def unopened(driver: Driver, house: House) -> AsyncIterator[tuple[str, Client]]:
    """A client whose callback queue has a name, and does not stand yet."""
    if driver == "asyncio":
        optimizer = AsyncOptimizer("tester", url=house.amqp_url)
        async with taken(house, optimizer.reply_to):
            name = optimizer.reply_to
            async with optimizer:
                yield name, optimizer
        return
    threaded = Threaded(Optimizer("tester", url=house.amqp_url))
    async with taken(house, threaded.reply_to):
        yield threaded.reply_to, threaded
        await threaded.close()


async def test_a_client_whose_callback_queue_is_refused_takes_another(
    driver: Driver, declared: House
) -> None:
    async with desk(declared.amqp_url) as front, unopened(driver, declared) as (name, client):
        assert (await client.chat("Hello", timeout=60)).text == "Hello"

        assert client.reply_to == f"{name}-1"
    assert front.asked[-1].reply_to == f"{name}-1"


async def test_what_waits_is_asked_for_again_under_the_new_queue(driver: Driver, declared: House) -> None:
    amqp = urlsplit(declared.amqp_url)
    async with (
        desk(declared.amqp_url, nothing) as front,
        proxy_to(amqp.hostname or "", amqp.port or 5672) as proxy,
    ):
        login = f"{amqp.username}:{amqp.password}@127.0.0.1:{proxy.port}"
        async with open_client(driver, urlunsplit(amqp._replace(netloc=login))) as client:
            name = client.reply_to
            call = asyncio.ensure_future(client.chat("Hello", timeout=90))
            await until(lambda: len(front.asked) == 1)
            proxy.cut()
            await gone(declared, name)
            async with taken(declared, name):
                proxy.restore()
                await until(lambda: len(front.asked) >= 2)
                again = front.asked[-1]
                assert (again.reply_to, again.request.id) == (f"{name}-1", front.asked[0].request.id)
                await front.reply(again, said(again, "found you"))
                assert (await call).text == "found you"


async def test_a_missing_exchange_renames_nothing(house: House) -> None:
    tail = EventTail(house.amqp_url)
    name = tail.queue
    async with tail:
        await until(lambda: "no exchange" in tail.why_down() or names.EVENTS in tail.why_down())
        assert tail.queue == name


async def test_workers_hear_of_each_other_by_another_queue(declared: House) -> None:
    roster = Roster("me")
    async with taken(declared, "watch.me"), Subscriber(declared.amqp_url, "me") as subscriber:
        await roster.listen(subscriber)
        await until(lambda: subscriber.is_up)
        await say(declared, EventType.WORKER_HEALTH, worker="you", roles=["front"])
        await until(lambda: [report["worker"] for report in roster.workers()] == ["you"])


async def test_the_monitor_shows_events_by_another_queue(declared: House) -> None:
    tail = EventTail(declared.amqp_url)
    async with taken(declared, tail.queue), tail:
        assert await tail.wait_until_up(30)
        await say(declared, EventType.CACHE_HIT, agent="quality")
        assert (await anext(tail)).type == EventType.CACHE_HIT


async def test_a_queue_that_is_not_ones_own_keeps_its_name(driver: Driver, declared: House) -> None:
    # An agent without the right to the queue is told so, whatever it would be called.
    async with open_client(driver, declared.amqp_url.replace("guest:guest", "guest:wrong")) as client:
        name = client.reply_to
        with pytest.raises(Overloaded):
            await client.chat("Hello", timeout=2)
        assert client.reply_to == name


async def gone(house: House, queue: str) -> None:
    """Deletes the queue."""
    async with await aio_pika.connect(house.amqp_url) as connection:
        await (await connection.channel()).queue_delete(queue)


async def say(house: House, kind: EventType, **facts: object) -> None:
    event = Event.model_validate({"id": new_id(), "type": kind.value, "at": 0.0, **facts})
    async with Publisher(house.amqp_url, "test") as publisher:
        message = Outgoing(names.EVENTS, kind.value, event.to_bytes())
        assert await publisher.publish(message) is Published.CONFIRMED
