"""Nothing is acknowledged before the next hop has it: a worker dies, or loses its connection, in between.

The agent here asks once and sends nothing again, so that nothing heals what a worker drops. Whoever dies has
sent every acknowledgement that it made so far; what it was about to publish has not left.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

import aio_pika
import pytest

from hub.store import tables
from hub.store.database import Database
from sandbox.simulator import SimulatorProcess
from tests.crash.scene import POOL, Scene, scene
from tests.support.connections import close_connections
from tests.support.entries import NOW, rows
from tests.support.house import House, echo_of
from tests.support.waiting import until
from topology import names
from topology.declaration import REPLY_QUEUE_ARGUMENTS
from topology.messages import Event, Reply, Request
from topology.names import Priority

AGENT = "asks-once"


@dataclass
class AsksOnce:
    """An agent without our SDK: it publishes each request once, and takes what comes."""

    channel: aio_pika.abc.AbstractChannel
    reply_to: str
    replies: list[Reply] = field(default_factory=list)

    async def ask(self, prompt: str) -> None:
        """Returns once RabbitMQ has confirmed the request."""
        params = {"messages": [{"role": "user", "content": prompt}]}
        request = Request(id=prompt, agent=AGENT, operation="chat", model="auto", params=params)
        exchange = await self.channel.get_exchange(names.REQUESTS, ensure=False)
        await exchange.publish(
            aio_pika.Message(
                request.to_bytes(),
                correlation_id=request.id,
                reply_to=self.reply_to,
                app_id=AGENT,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            ),
            names.request_key(Priority.NORMAL, AGENT),
        )

    async def reply(self) -> Reply:
        """Waits for a reply; it is the only one so far."""
        await until(lambda: bool(self.replies))
        [reply] = self.replies
        return reply


@asynccontextmanager
async def asks_once(house: House) -> AsyncIterator[AsksOnce]:
    async with await aio_pika.connect(house.amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue(
            names.reply_queue(AGENT, "client", "nonce"),
            durable=True,
            arguments=dict(REPLY_QUEUE_ARGUMENTS),
        )
        agent = AsksOnce(channel, queue.name)

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            agent.replies.append(Reply.from_bytes(message.body))

        await queue.consume(take, no_ack=True)
        yield agent


async def test_a_request_is_answered_though_its_front_died_with_the_job_unsent(
    house: House, simulator: SimulatorProcess
) -> None:
    async with scene(house, simulator) as s, asks_once(house) as agent:
        await s.nursery.start(POOL)
        victim = await s.nursery.start("front")
        await victim.arm("front.before_publish")
        await agent.ask("Not sent on")
        await s.dies_at(victim)
        await s.nursery.start("front")
        assert (await agent.reply()).text.startswith(echo_of("Not sent on"))
        await s.ends_with(calls=1)
    assert len(agent.replies) == 1


async def test_a_request_is_answered_though_its_front_died_with_the_stored_answer_unsent(
    house: House, simulator: SimulatorProcess
) -> None:
    async with scene(house, simulator) as s, asks_once(house) as agent:
        await s.nursery.start(POOL)
        victim = await s.nursery.start("front")
        bought = await s.ask("Known")
        await victim.arm("front.before_reply")
        await agent.ask("Known")
        await s.dies_at(victim)
        await s.nursery.start("front")
        reply = await agent.reply()
        assert (reply.source, reply.text) == ("cache", bought.text)
        await s.ends_with(calls=1)
    assert len(agent.replies) == 1


@pytest.mark.parametrize("point", ["backend.after_commit", "backend.after_event", "backend.before_reply"])
async def test_a_request_is_answered_though_its_backend_died_with_the_bought_answer_unsent(
    house: House, simulator: SimulatorProcess, point: str
) -> None:
    async with scene(house, simulator) as s, asks_once(house) as agent:
        await s.nursery.start("front")
        victim = await s.nursery.start(POOL)
        await victim.arm(point)
        await agent.ask("Bought")
        await s.dies_at(victim)
        await s.nursery.start(POOL)
        assert (await agent.reply()).text.startswith(echo_of("Bought"))
        await s.ends_with(calls=1)
    assert len(agent.replies) == 1


async def test_a_request_is_answered_though_the_job_was_lost_with_the_fronts_publishing_connection(
    house: House, simulator: SimulatorProcess
) -> None:
    """What a front holds is safe, as that is on its other connection, which stands."""
    async with scene(house, simulator) as s, asks_once(house) as agent:
        await s.nursery.start(POOL)
        front = await s.nursery.start("front")
        name = await name_of_the_front(s)
        await front.arm("front.before_publish", do="stop")
        await agent.ask("Lost on its way")
        await front.fired()
        # RabbitMQ reads nothing more from it: what the front writes next, it writes to nobody.
        assert await close_connections(house, f"{name} publishing") == 1
        front.cont()
        assert (await agent.reply()).text.startswith(echo_of("Lost on its way"))
        await s.ends_with(calls=1)
    assert len(agent.replies) == 1


async def name_of_the_front(s: Scene) -> str:
    await until(lambda: bool(s.beats("front")))
    return str((s.beats("front")[0].model_extra or {})["worker"])


async def test_what_a_recorder_had_in_hand_when_it_died_is_recorded_by_the_next(
    house: House, simulator: SimulatorProcess
) -> None:
    url = house.environ["OPTIMIZER_RECORDER__URL"] = f"sqlite:///{house.folder / 'optimizer.db'}"
    async with scene(house, simulator) as s:
        async with await aio_pika.connect(house.amqp_url) as connection:
            channel = await connection.channel(publisher_confirms=True)
            await channel.declare_queue(
                names.RECORDER_QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
            )
            event = Event(id="in hand", type="optimizer.retry", at=NOW, agent=AGENT, request_id="r")
            await channel.default_exchange.publish(aio_pika.Message(event.to_bytes()), names.RECORDER_QUEUE)
        victim = await s.nursery.start("recorder", armed="recorder.before_insert")
        await s.dies_at(victim)
        await s.nursery.start("recorder")
        with closing(Database(url)) as database:

            async def is_recorded() -> bool:
                found = await asyncio.to_thread(rows, database, tables.events)
                return [row["id"] for row in found] == ["in hand"]

            await until(is_recorded)
