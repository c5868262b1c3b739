"""Leaving a client ends it, however far it has come with its connections."""

import asyncio

import pytest

from producer_sdk.roster import Roster
from producer_sdk.transport import Subscriber
from tests.support.house import House
from tests.support.waiting import until

TURNS = range(150)
"""Of the event loop: after each, a different step of connecting is cut short."""


@pytest.mark.parametrize("answers", [False, True])
async def test_a_client_that_is_left_while_it_connects_is_left_at_once(house: House, answers: bool) -> None:
    if not answers:
        house.amqp_url = "amqp://guest:guest@127.0.0.1:9/"

    for turns in TURNS:
        async with asyncio.timeout(20), house.agent():
            await some(turns)
    await until(nothing_is_left, 90)


async def test_a_consumer_that_rabbitmq_refuses_is_left_at_once(house: House) -> None:
    for turns in TURNS:
        subscriber = Subscriber(house.amqp_url, "tester")
        await Roster("tester").listen(subscriber)  # no topology stands: there is nothing to bind to
        async with asyncio.timeout(20), subscriber:
            await some(turns)
    await until(nothing_is_left, 90)


async def some(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def nothing_is_left() -> bool:
    """The library closes what was half open in tasks of its own."""
    return asyncio.all_tasks() == {asyncio.current_task()}
