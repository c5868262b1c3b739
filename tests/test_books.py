"""No call is ever made that is not in the books, and each that was made has its end there."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aio_pika

from sandbox.simulator import SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until
from topology import names
from topology.events import EventType
from topology.messages import Event

ENDS = {EventType.CALL_COMPLETED, EventType.CALL_FAILED}


def by_call(events: Sequence[Event]) -> dict[str, list[str]]:
    """The events of each call, in the order in which they came."""
    calls: dict[str, list[str]] = defaultdict(list)
    for event in events:
        calls[event.model_dump()["call"]].append(event.type)
    return calls


async def test_each_call_is_entered_before_it_is_made_and_again_when_it_has_ended(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(faults={"server_error": 0.15, "rate_limited": 0.15})
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.events("optimizer.call.#") as events, house.agent() as optimizer:
        await asyncio.gather(*(optimizer.chat(f"Prompt {n}", timeout=60) for n in range(20)))
        ledger = simulator.ledger()
        await until(lambda: len(by_call(events)) == len(ledger) and len(events) == 2 * len(ledger))

    calls = by_call(events)
    assert set(calls) == {entry.call_id for entry in ledger}
    assert all(first == EventType.CALL_STARTED and last in ENDS for first, last in calls.values())
    assert {e.id for e in events} == {
        f"{e.model_dump()['call']}{suffix(e.type)}" for e in events
    }  # so that publishing one again changes nothing


async def test_nothing_is_called_while_rabbitmq_takes_no_entries(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with (
        house.workers(fleet),
        house.agent() as optimizer,
        house.events("optimizer.call.failed") as failed,
    ):
        async with refusing(house, EventType.CALL_STARTED):
            call = asyncio.create_task(optimizer.chat("Anything", timeout=60))
            await until(lambda: len(failed) > 0)
            assert simulator.ledger() == []
        reply = await call

    assert reply.status == "ok"
    assert len(simulator.ledger()) == 1
    assert {event.model_dump()["kind"] for event in failed} == {"unsent"}


async def test_what_rabbitmq_did_not_take_is_entered_when_it_does(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(faults={"server_error": 1.0})
    fleet = house.simulated(simulator.base_url)

    async with (
        house.workers(fleet),
        house.agent() as optimizer,
        house.events("optimizer.call.failed") as failed,
    ):
        async with refusing(house, EventType.CALL_FAILED):
            call = asyncio.create_task(optimizer.chat("Anything", timeout=60))
            await until(
                lambda: len(failed) > 0
            )  # the queue that is not full has it; RabbitMQ said no all the same
            simulator.change(faults={"server_error": 0.0})
        await until(lambda: [event.id for event in failed].count(failed[0].id) > 1)
        assert (await call).status == "ok"


@asynccontextmanager
async def refusing(house: House, type_: EventType) -> AsyncIterator[None]:
    """RabbitMQ takes no events of this type: the recorder's queue is full."""
    async with await aio_pika.connect(house.amqp_url) as connection:
        channel = await connection.channel()
        arguments: dict[str, Any] = {"x-max-length": 0, "x-overflow": "reject-publish"}
        full = await channel.declare_queue(names.RECORDER_QUEUE, exclusive=True, arguments=arguments)
        await full.bind(names.EVENTS, type_)
        yield


def suffix(type_: str) -> str:
    return {EventType.CALL_STARTED: ":started", EventType.CALL_FAILED: ":failed"}.get(EventType(type_), "")
