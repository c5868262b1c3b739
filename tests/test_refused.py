"""RabbitMQ refuses a publish for a queue behind it: version 4 does so where that queue's node is down.

Here the queue is full and takes nothing more, which the broker says in the same way.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from aiormq.abc import FieldTable

from producer_sdk.asking import Asked, ask_chat, request_message
from producer_sdk.transport import Published, Publisher
from sandbox.simulator import SimulatorProcess
from tests.support.house import House, echo_of
from tests.support.waiting import until
from topology import names
from topology.events import EventType
from topology.messages import Event, Reply

FULL: FieldTable = {"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "reject-publish"}


@asynccontextmanager
async def channel_in(house: House) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(house.amqp_url) as connection:
        yield await connection.channel()


async def declare_full(channel: aio_pika.abc.AbstractChannel, name: str) -> aio_pika.abc.AbstractQueue:
    queue = await channel.declare_queue(name, durable=True, arguments={**FULL})
    await channel.default_exchange.publish(aio_pika.Message(b"there is no room for two"), name)
    return queue


async def test_a_watcher_that_takes_no_events_stops_no_call_and_the_books_are_kept(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    async with house.workers(fleet), channel_in(house) as channel:
        watcher = await declare_full(channel, "watcher.of-somebody")
        await watcher.bind(names.EVENTS, "optimizer.#")
        quorum: FieldTable = {"x-queue-type": "quorum"}
        books = await channel.declare_queue(names.RECORDER_QUEUE, durable=True, arguments=quorum)

        async with house.agent() as optimizer:
            reply = await optimizer.chat("Who keeps the books?", timeout=60)
        kept: set[str] = set()

        async def read() -> bool:
            while (message := await books.get(fail=False)) is not None:
                kept.add(Event.from_bytes(message.body).type)
                await message.ack()
            return {EventType.CALL_STARTED.value, EventType.CALL_COMPLETED.value} <= kept

        assert reply.text.startswith(echo_of("Who keeps the books?"))
        await until(read)
    assert len(simulator.ledger()) == 1


async def test_a_caller_whose_queue_takes_nothing_is_answered_under_its_next_one(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    asked = ask_chat("tester", None, "Where are you?", timeout=120)
    async with house.workers(fleet), channel_in(house) as channel, house.events() as seen:
        await declare_full(channel, "reply.tester.me.old")
        await send(house, asked, "reply.tester.me.old")
        await until(lambda: EventType.CALL_COMPLETED in {event.type for event in seen})
        await until(lambda: settled(house))

        queue = await channel.declare_queue("reply.tester.me.new", exclusive=True)
        await send(house, asked, "reply.tester.me.new")
        found: list[Reply] = []

        async def answered() -> bool:
            message = await queue.get(fail=False, no_ack=True)
            found.extend([] if message is None else [Reply.from_bytes(message.body)])
            return bool(found)

        await until(answered)
    assert (found[0].id, found[0].status) == (asked.request.id, "ok")
    assert len(simulator.ledger()) == 1


async def settled(house: House) -> bool:
    """Whether no job is left anywhere: its waiter counts as served."""
    queues = [
        "jobs.simulated.any.normal",
        "retry.1s",
        "retry.5s",
        names.requests_queue(names.Priority.NORMAL),
    ]
    return [await house.depth(queue) for queue in queues] == [0] * len(queues)


async def send(house: House, asked: Asked, reply_to: str) -> None:
    message = request_message(asked.request, asked.priority, reply_to)
    async with Publisher(house.amqp_url, "test") as publisher:
        assert await publisher.publish(message) is Published.CONFIRMED
