"""Connections break while calls wait; whichever library carries them, nobody notices."""

import asyncio

import aio_pika
import pytest

from producer_sdk import Overloaded, Waiting
from tests.support.clients import Client, Driver, desk, echo, nothing, open_client, said
from tests.support.connections import close_connections
from tests.support.house import House
from tests.support.proxy import proxy_before
from tests.support.waiting import until


@pytest.mark.parametrize("whose", ["consuming", "publishing", "tester"])
async def test_connections_closed_by_the_operator_during_calls_cost_nothing(
    client: Client, declared: House, whose: str
) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        call = asyncio.ensure_future(client.map([f"Prompt {n}" for n in range(10)], timeout=90))
        await until(lambda: len(front.asked) == 10)
        assert await close_connections(declared, whose) >= 1
        await until(lambda: len(front.asked) == 20)  # sent again, all of them
        for asked in front.asked:
            await front.reply(asked, echo(asked))
        replies = await call

    assert [reply.text for reply in replies] == [f"Prompt {n}" for n in range(10)]
    assert len({asked.request.id for asked in front.asked}) == 10
    assert len({asked.message_id for asked in front.asked}) == 20


async def test_a_lost_connection_is_said_in_one_line_that_says_why(
    client: Client, declared: House, caplog: pytest.LogCaptureFixture
) -> None:
    async with desk(declared.amqp_url, echo):
        await client.chat("Before", timeout=60)
        closed = await close_connections(declared, "tester")
        await until(lambda: len(caplog.records) >= closed)
        await client.chat("After", timeout=60)

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == closed
    assert all(line.startswith("connection lost (") and "CONNECTION_FORCED" in line for line in lines), lines


async def test_a_request_whose_confirm_was_lost_is_sent_again_under_its_id(
    driver: Driver, declared: House
) -> None:
    async with (
        desk(declared.amqp_url, nothing) as front,
        proxy_before(declared.amqp_url) as (proxy, url),
        open_client(driver, url) as client,
    ):
        before = asyncio.ensure_future(client.chat("Before", timeout=60))
        await until(lambda: len(front.asked) == 1)
        await front.reply(front.asked[0], said(front.asked[0], "hi"))
        await before
        proxy.silence()
        call = asyncio.ensure_future(client.chat("Hello", timeout=90))
        await until(lambda: len(front.asked) == 2)  # it arrived, and the confirm was swallowed
        proxy.cut()
        proxy.restore()
        await until(lambda: len(front.asked) == 3)
        await front.reply(front.asked[2], said(front.asked[2], "at last"))

        assert (await call).text == "at last"
    assert front.asked[1].request.id == front.asked[2].request.id
    assert front.asked[1].message_id != front.asked[2].message_id


async def test_a_reply_that_came_while_nobody_listened_is_not_lost(driver: Driver, declared: House) -> None:
    async with (
        desk(declared.amqp_url, nothing) as front,
        proxy_before(declared.amqp_url) as (proxy, url),
        open_client(driver, url) as client,
    ):
        call = asyncio.ensure_future(client.chat("Hello", timeout=90))
        await until(lambda: len(front.asked) == 1)
        proxy.cut()
        await front.reply(front.asked[0], said(front.asked[0], "while you were out"))
        proxy.restore()

        assert (await call).text == "while you were out"


async def test_a_reply_that_went_into_a_dead_line_is_not_lost(
    driver: Driver, declared: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a heartbeat of 1 s, which shortens the wait."""
    monkeypatch.setattr("producer_sdk.opening.HEARTBEAT_S", 1)
    monkeypatch.setattr("producer_sdk.pika_connection._HEARTBEAT_S", 1)

    async with (
        desk(declared.amqp_url, nothing) as front,
        proxy_before(declared.amqp_url) as (proxy, url),
        open_client(driver, url) as client,
    ):
        call = asyncio.ensure_future(client.chat("Hello", timeout=90))
        await until(lambda: len(front.asked) == 1)
        proxy.half_open()
        await front.reply(front.asked[0], said(front.asked[0], "into the void"))

        assert (await call).text == "into the void"


async def test_a_client_older_than_its_broker_is_answered_once_that_is_there(
    driver: Driver, declared: House
) -> None:
    async with desk(declared.amqp_url), proxy_before(declared.amqp_url) as (proxy, url):
        proxy.cut()
        async with open_client(driver, url) as client:
            with pytest.raises(Overloaded, match=r"could not be handed over .* cannot be reached"):
                await client.chat("Too early", timeout=0.5)
            call = asyncio.ensure_future(client.chat("In time", timeout=60))
            proxy.restore()

            assert (await call).text == "In time"


async def test_a_caller_is_told_that_rabbitmq_is_away(driver: Driver, declared: House) -> None:
    told: list[Waiting] = []

    async with (
        desk(declared.amqp_url) as front,
        proxy_before(declared.amqp_url) as (proxy, url),
        open_client(driver, url) as client,
    ):
        await client.chat("Before", timeout=60)
        proxy.cut()
        with pytest.raises(Overloaded):
            await client.chat("Gone", timeout=0.5)
        call = asyncio.ensure_future(client.chat("While", timeout=60, on_wait=told.append))
        await until(lambda: len(told) > 0)
        proxy.restore()

        assert (await call).text == "While"
    assert "RabbitMQ at amqp://" in told[0].waits_for
    assert "cannot be reached" in told[0].waits_for
    assert "Gone" not in [asked.prompt for asked in front.asked]


async def test_a_callback_queue_that_was_deleted_is_declared_again(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        call = asyncio.ensure_future(client.chat("Hello", timeout=90))
        await until(lambda: len(front.asked) == 1)
        connection = await aio_pika.connect(declared.amqp_url)
        async with connection:
            await (await connection.channel()).queue_delete(client.reply_to)
        await until(lambda: len(front.asked) == 2)
        await front.reply(front.asked[1], said(front.asked[1], "found you"))

        assert (await call).text == "found you"
