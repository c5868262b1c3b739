"""A broker that owes an answer for ever, on a line that is well."""

import asyncio
import secrets

import aio_pika
import aiormq
import pytest
from pika.channel import Channel

from producer_sdk import Optimizer, consuming, opening, pika_connection, supervision
from producer_sdk.channel import LeanChannel
from producer_sdk.connecting import AWAY, connected
from producer_sdk.consuming import Delivery, Subscriber, Subscription
from producer_sdk.supervision import open_channel
from tests.support.clients import desk
from tests.support.house import House
from tests.support.proxy import Proxy, proxy_before
from tests.support.waiting import until


@pytest.mark.parametrize("question", ["basic_consume", "basic_qos", "confirm_delivery"])
async def test_a_blocking_client_that_is_owed_an_answer_takes_another_connection(
    declared: House, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.setattr(pika_connection, "READY_S", 0.5)
    original, asked = getattr(Channel, question), list[str]()

    def ask(channel: Channel, *rest: object, **named: object) -> object:
        asked.append(question)
        return original(channel, *rest, **named) if len(asked) > 1 else None

    monkeypatch.setattr(Channel, question, ask)

    async with desk(declared.amqp_url):
        with Optimizer("tester", url=declared.amqp_url) as optimizer:
            reply = await asyncio.to_thread(optimizer.chat, "Hello", timeout=60)

    assert reply.text == "Hello"
    assert len(asked) > 1


async def test_what_is_asked_of_a_channel_that_ends_fails_as_a_broker_that_is_away(house: House) -> None:
    connection = await aiormq.connect(house.amqp_url)
    channel = await open_channel(connection, confirms=False)
    asked = channel.create_task(asyncio.Event().wait())

    await channel._cancel_tasks()  # as aiormq does where it has no reason to give

    with pytest.raises(AWAY):
        await asked
    await connection.close()


class Silence:
    """One question of each channel's is never answered, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, question: str) -> None:
        original = getattr(LeanChannel, question)
        self.kept = asyncio.Event()
        self.armed = False

        async def asked(channel: LeanChannel, *rest: object, **named: object) -> object:
            if self.armed:
                self.armed = False
                self.kept.set()
                await asyncio.Event().wait()
            return await original(channel, *rest, **named)

        monkeypatch.setattr(LeanChannel, question, asked)


@pytest.mark.parametrize("question", ["basic_cancel", "basic_qos"])
async def test_an_answer_that_does_not_come_costs_the_connection_and_nothing_else(
    house: House, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    for module in (consuming, supervision):
        monkeypatch.setattr(module, "ANSWER_S", 0.5)
    silence, taken, opened = Silence(monkeypatch, question), list[bytes](), asyncio.Semaphore(0)

    def take(delivery: Delivery) -> None:
        taken.append(delivery.body)
        delivery.ack()

    connection = await aio_pika.connect(house.amqp_url)
    async with connection, Subscriber(house.amqp_url, "test", on_reconnect=opened.release) as subscriber:
        channel = await connection.channel()
        queues = [await channel.declare_queue(secrets.token_hex(8), auto_delete=False) for _ in range(2)]
        first, second = (Subscription(queue.name, 10, take) for queue in queues)
        await opened.acquire()
        await subscriber.add(first)

        silence.armed = True
        await subscriber.add(second)
        await subscriber.drop(first)
        assert silence.kept.is_set()
        await opened.acquire()

        await channel.default_exchange.publish(aio_pika.Message(b"later"), second.queue)
        await until(lambda: taken == [b"later"])


@pytest.mark.parametrize("pending", ["who adds a queue", "the connection itself"])
async def test_a_line_that_falls_silent_ends_nobody_who_waits_for_an_answer(
    house: House, monkeypatch: pytest.MonkeyPatch, pending: str
) -> None:
    """aiormq notices by the heartbeats, cancels its reader, and hands that cancellation to all who wait."""
    monkeypatch.setattr(opening, "HEARTBEAT_S", 1)
    monkeypatch.setattr(consuming, "DECLARE_TIMEOUT_S", 60.0)
    taken, opened, silenced = list[bytes](), asyncio.Semaphore(0), list[bool]()

    async with (
        await aio_pika.connect(house.amqp_url) as connection,
        proxy_before(house.amqp_url) as (proxy, url),
        Subscriber(url, "test", on_reconnect=opened.release) as subscriber,
    ):
        channel = await connection.channel()
        queue = await channel.declare_queue(secrets.token_hex(8))

        async def ask(channel: aiormq.Channel) -> None:
            if not silenced:
                silenced.append(True)
                proxy.half_open()
            await channel.queue_declare(queue.name, passive=True)

        def take(delivery: Delivery) -> None:
            taken.append(delivery.body)
            delivery.ack()

        if pending == "who adds a queue":
            await opened.acquire()
        await subscriber.add(Subscription(queue.name, 10, take, declare=ask))
        await opened.acquire()

        await channel.default_exchange.publish(aio_pika.Message(b"later"), queue.name)
        await until(lambda: taken == [b"later"])
    assert silenced


async def test_a_line_that_falls_silent_is_an_error_of_the_connection_to_who_opened_it(house: House) -> None:
    async def ask(proxy: Proxy, url: str) -> None:
        async with connected(f"{url}?heartbeat=1", 10.0) as connection:
            channel = await connection.channel()
            proxy.half_open()
            await channel.declare_queue("nobody hears of it")

    async with proxy_before(house.amqp_url) as (proxy, url):
        with pytest.raises(aiormq.exceptions.AMQPConnectionError, match="no sign of life"):
            await ask(proxy, url)
