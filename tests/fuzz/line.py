"""A client that sends what no client library would, and hears all that can become of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import aiormq
from aiormq.abc import ChannelFrame, DeliveredMessage
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from tests.fuzz.books import Books
from tests.fuzz.malformed import AGENT, Malformed, shortstr
from topology import names
from topology.messages import Reply

REPLY_TO = f"reply.{AGENT}.fuzz.1"
_DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"


class _RawPublish(Basic.Publish):
    """A publish whose routing key is these bytes."""

    def __init__(self, exchange: str, routing_key: bytes) -> None:
        super().__init__(0, exchange, "", mandatory=True)
        self.raw_key = routing_key

    def marshal(self) -> bytes:
        return b"\0\0" + shortstr(self.exchange.encode()) + shortstr(self.raw_key) + b"\x01"


async def write(channel: aiormq.Channel, message: Malformed) -> None:
    """Publishes whatever the message says, on a channel without confirms."""
    key = message.routing_key
    method = (
        _RawPublish(message.exchange, key)
        if isinstance(key, bytes)
        else Basic.Publish(0, message.exchange, key, mandatory=True)
    )
    size, body = 100_000, message.body
    frames: list[Any] = [method, ContentHeader(0, len(body), message.properties)]
    frames += [ContentBody(body[at : at + size]) for at in range(0, len(body), size)]
    payload = b"".join(marshal(frame, channel.number) for frame in frames)
    await channel.write_queue.put(ChannelFrame(payload, should_close=False))


class RawChannel(aiormq.Channel):
    """Publishes without confirms; what is returned is told by its message id."""

    on_returned: Callable[[str], None]

    async def publish(self, message: Malformed) -> None:
        if self.is_closed:
            raise ConnectionError(
                f"the broker closed the line before this {message.kind}: {self._close_exception}"
            )
        await write(self, message)

    async def _on_return_frame(self, frame: Basic.Return) -> None:
        header = await self._get_frame()
        message = await self._read_content(frame, header)  # type: ignore[arg-type]
        self.on_returned(message.header.properties.message_id or "")


@asynccontextmanager
async def line_to(amqp_url: str, books: Books) -> AsyncIterator[RawChannel]:
    """A channel to publish on; whatever becomes of what is published is written into the books."""
    async with await aio_pika.connect(amqp_url) as sending, await aio_pika.connect(amqp_url) as hearing:
        assert sending.transport is not None
        underlay = sending.transport.connection
        channel = underlay.channels[1] = RawChannel(underlay, 1, publisher_confirms=False)
        channel.on_returned = books.returned
        await channel.open()
        await channel.basic_consume(_DIRECT_REPLY_TO, _nothing_comes, no_ack=True)
        listening = await (await hearing.channel()).get_underlay_channel()
        await listening.queue_declare(REPLY_TO, exclusive=True)

        async def on_reply(message: DeliveredMessage) -> None:
            books.reply(message.header.properties.correlation_id or "", Reply.from_bytes(message.body))

        async def on_kept(message: DeliveredMessage) -> None:
            books.kept(message.body, str((message.header.properties.headers or {}).get("x-reason")))

        await listening.basic_consume(REPLY_TO, on_reply, no_ack=True)
        await listening.basic_consume(names.DEAD_KEPT_QUEUE, on_kept, no_ack=True)
        yield channel


async def _nothing_comes(_: DeliveredMessage) -> None:
    raise AssertionError("nobody may answer past the callback queue")
