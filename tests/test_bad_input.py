"""Bad input is answered with a typed error, or kept with its reason; no worker dies of it."""

import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, cast

import aio_pika
import msgpack
import pytest

from sandbox.simulator import SimulatorProcess
from tests.fuzz.line import write
from tests.fuzz.malformed import NOTHING, Maker, Malformed, Raw, shortstr
from tests.support.house import House
from tests.support.waiting import until
from topology import names
from topology.events import EventType
from topology.messages import Event, Job, Reply
from topology.wire import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    import aiormq


class Line:
    """A client that says what it likes."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel, reply_to: str) -> None:
        self.channel = channel
        self.reply_to = reply_to
        self.replies: list[Reply] = []

    async def say(self, body: bytes, key: str = "normal.tester", **properties: Any) -> None:
        exchange = await self.channel.get_exchange(names.REQUESTS)
        told = {"correlation_id": "r1", "reply_to": self.reply_to, **properties}
        await exchange.publish(aio_pika.Message(body, **told), key)

    async def say_raw(
        self,
        raw: dict[str, bytes],
        body: bytes | None = None,
        exchange: str = names.REQUESTS,
        key: str = "normal.tester",
    ) -> None:
        """With properties that are given as the bytes on the wire."""
        told = {"correlation_id": "r1", "reply_to": self.reply_to, "message_id": "m1"}
        made = Raw(raw, **{name: value for name, value in told.items() if name not in raw})
        message = Malformed("raw", "m1", "r1", exchange, key, made, body or request(), NOTHING)
        underlay = await self.channel.get_underlay_channel()
        await write(cast("aiormq.Channel", underlay), message)

    async def kept(self) -> aio_pika.abc.AbstractIncomingMessage:
        queue = await self.channel.get_queue(names.DEAD_KEPT_QUEUE)
        found: list[aio_pika.abc.AbstractIncomingMessage] = []

        async def is_there() -> bool:
            if message := await queue.get(no_ack=True, fail=False):
                found.append(message)
            return bool(found)

        await until(is_there)
        return found[0]


@asynccontextmanager
async def line_to(house: House) -> AsyncIterator[Line]:
    connection = await aio_pika.connect(house.amqp_url)
    async with connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = await channel.declare_queue("reply.tester.raw.1", exclusive=True)
        line = Line(channel, queue.name)

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            line.replies.append(Reply.from_bytes(message.body))

        await queue.consume(take, no_ack=True)
        yield line


def request(**changes: Any) -> bytes:
    value = {
        "v": 1,
        "id": "r1",
        "agent": "tester",
        "params": {"messages": [{"role": "user", "content": "x"}]},
    }
    packed: bytes = msgpack.packb({**value, **changes})
    return packed


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("body", "properties", "says"),
    [
        (b"\xc1not msgpack", {}, "not msgpack"),
        (msgpack.packb([1, 2]), {}, "no map"),
        (request(v=9), {}, "version v=9"),
        (request(params="text"), {}, "params"),
        (request(params={"deep": nested(200)}), {}, "nested deeper"),
        (request(params={"temperature": float("nan")}), {}, "params"),
        (request(agent="somebody-else"), {}, "agent: 'somebody-else' is not the agent of the routing key"),
        (request(), {"app_id": "somebody-else"}, "app_id"),
        (request(id="another"), {}, "id: 'another'"),
        (request(deadline=1.0), {}, "deadline: it passed"),
        (request(model="nobody/has-this"), {}, "offered by no enabled provider"),
        (request(cache="sometimes"), {}, "cache"),
        (request(cache_ttl_s=1e300), {}, "cache_ttl_s"),
        (
            request(params={"messages": [], "metadata": {"a": b"bytes"}}),
            {},
            "in 'metadata', a value of type bytes",
        ),
        (request(params={"a": [[]] * 600_000}), {}, "more than 1000000 lists, maps and values"),
        (request(v="x" * 1_000_000), {}, "version v='xxx"),
    ],
)
async def test_whoever_can_be_told_is_told(
    house: House, simulator: SimulatorProcess, body: bytes, properties: dict[str, Any], says: str
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet) as [worker], line_to(house) as line:
        await line.say(body, **properties)
        await until(lambda: bool(line.replies))
        await line.say(request(id="r2"), correlation_id="r2")
        await until(lambda: len(line.replies) == 2)
        assert not worker.done()

    bad, good = line.replies
    assert bad.error is not None
    assert says in bad.error.message
    assert (good.id, good.status) == ("r2", "ok")


@pytest.mark.parametrize(
    ("body", "key", "properties", "says"),
    [
        (b"\xc1", "normal.tester", {"reply_to": None}, "not msgpack"),
        (request(), "normal.tester", {"reply_to": None}, "needs correlation_id and reply_to"),
        (request(), "normal.tester", {"reply_to": "reply.somebody.x.1"}, "is not a queue of agent 'tester'"),
        (request(), "normal.NOT AN AGENT", {}, "routing key: agent"),
    ],
)
async def test_what_nobody_can_be_told_of_is_kept_with_its_reason(
    house: House,
    simulator: SimulatorProcess,
    body: bytes,
    key: str,
    properties: dict[str, Any],
    says: str,
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), line_to(house) as line:
        await line.say(body, key, **properties)
        kept = await line.kept()

    assert kept.body == body
    assert says in str(kept.headers["x-reason"])
    assert line.replies == []


async def test_a_body_over_the_limit_is_kept_as_far_as_it_fits_and_the_front_goes_on(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), line_to(house) as line, house.agent() as optimizer:
        await line.say(b"x" * (MAX_MESSAGE_BYTES + 1), reply_to=None)
        kept = await line.kept()
        reply = await optimizer.chat("Still there?")

    assert len(kept.body) == MAX_MESSAGE_BYTES
    assert reply.status == "ok"


@pytest.mark.parametrize(
    "raw",
    [
        {"timestamp": struct.pack(">Q", time.time_ns())},
        {"content_type": shortstr("größe".encode("latin-1"))},
        {"headers": struct.pack(">I", 11) + b"\x01aT" + b"\xff" * 8},
    ],
)
async def test_properties_that_no_library_reads_neither_cut_the_connection_nor_cost_the_answer(
    house: House, simulator: SimulatorProcess, raw: dict[str, bytes]
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), line_to(house) as line:
        await line.say_raw(raw)
        await until(lambda: bool(line.replies))

    assert [(reply.id, reply.status) for reply in line.replies] == [("r1", "ok")]


async def test_an_id_that_no_http_header_can_hold_is_served(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), line_to(house) as line:
        for id_ in ("größe", "a\r\nb", "a\0b"):
            await line.say(request(id=id_), correlation_id=id_)
        await until(lambda: len(line.replies) == 3)

    assert {(reply.id, reply.status) for reply in line.replies} == {
        ("größe", "ok"),
        ("a\r\nb", "ok"),
        ("a\0b", "ok"),
    }


async def test_a_job_that_went_past_its_exchange_is_kept_and_nothing_is_bought(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), line_to(house) as line:
        body = msgpack.packb(Maker("job", Random(1), "r1", line.reply_to, time.time()).job())
        assert Job.from_bytes(body)
        await line.channel.default_exchange.publish(aio_pika.Message(body), "jobs.simulated.any.normal")
        kept = await line.kept()

    assert "jobs are believed from optimizer.jobs alone" in str(kept.headers["x-reason"])
    assert simulator.ledger() == []


@pytest.mark.parametrize("providers", [5, "simulated", {"simulated": 5}, {"simulated": {"closed": 5}}])
async def test_a_heartbeat_that_anybody_made_up_stops_nobody(
    house: House, simulator: SimulatorProcess, providers: object
) -> None:
    fleet = house.simulated(simulator.base_url)
    type_ = EventType.WORKER_HEALTH.value
    event = Event.model_validate(
        {"id": "e", "type": type_, "at": time.time(), "worker": "x", "providers": providers}
    )

    async with house.workers(fleet) as [worker], line_to(house) as line:
        events = await line.channel.get_exchange(names.EVENTS)
        await events.publish(aio_pika.Message(event.to_bytes()), type_)
        await line.say(request())
        await until(lambda: bool(line.replies))
        assert not worker.done()

    assert line.replies[0].status == "ok"


async def test_noise_in_its_callback_queue_does_not_disturb_an_agent(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), line_to(house) as line, house.agent() as optimizer:
        assert (await optimizer.chat("Before")).status == "ok"
        for raw in ({"timestamp": b"\xff" * 8}, {"correlation_id": shortstr(b"\xff")}):
            await line.say_raw(raw, b"noise", exchange="", key=optimizer.reply_to)
        reply = await optimizer.chat("After")

    assert reply.status == "ok"


async def test_a_job_that_cannot_be_read_is_kept_and_the_pool_goes_on(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), line_to(house) as line, house.agent() as optimizer:
        jobs = await line.channel.get_exchange(names.JOBS)
        await jobs.publish(aio_pika.Message(b"nonsense"), "jobs.simulated.any.normal")
        kept = await line.kept()
        reply = await optimizer.chat("Still there?")

    assert kept.headers["x-queue"] == "jobs.simulated.any.normal"
    assert reply.status == "ok"
