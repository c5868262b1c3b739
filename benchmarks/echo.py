"""The bare thing to compare with: an RPC echo in plain aio-pika, on the same kinds of queues as ours.

`python -m benchmarks.echo` is the server. The client is `EchoClient`.
"""

import asyncio
import os
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage

REQUESTS: Final = "benchmark.echo"
PREFETCH: Final = 200


class EchoClient:
    """Publishes to the echo's queue, confirmed and persistent, and waits for the reply on its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._replies: dict[str, asyncio.Future[bytes]] = {}

    async def __aenter__(self) -> Self:
        self._publishing = await aio_pika.connect(self._url)
        self._consuming = await aio_pika.connect(self._url)
        self._channel = await self._publishing.channel()
        await declare_requests(self._channel)
        channel = await self._consuming.channel()
        await channel.set_qos(500)
        queue = await channel.declare_queue(
            f"benchmark.reply.{uuid4().hex}",
            durable=True,
            arguments={"x-queue-type": "classic", "x-expires": 60_000},
        )
        self._reply_to = queue.name
        await queue.consume(self._on_reply)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._publishing.close()
        await self._consuming.close()

    async def call(self, body: bytes) -> bytes:
        """One round trip."""
        id_ = uuid4().hex
        future = self._replies[id_] = asyncio.get_running_loop().create_future()
        message = aio_pika.Message(
            body,
            correlation_id=id_,
            reply_to=self._reply_to,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._channel.default_exchange.publish(message, REQUESTS, mandatory=True)
        return await future

    async def _on_reply(self, message: AbstractIncomingMessage) -> None:
        future = self._replies.pop(message.correlation_id or "", None)
        if future is not None:
            future.set_result(message.body)
        await message.ack()


async def declare_requests(channel: aio_pika.abc.AbstractChannel) -> aio_pika.abc.AbstractQueue:
    """The echo's queue: a quorum queue, as `requests.*` are."""
    return await channel.declare_queue(REQUESTS, durable=True, arguments={"x-queue-type": "quorum"})


async def serve(url: str) -> None:
    """Echoes until killed: reply, confirmed and persistent, then the acknowledgement."""
    publishing, consuming = await aio_pika.connect(url), await aio_pika.connect(url)
    out, into = await publishing.channel(), await consuming.channel()
    await into.set_qos(PREFETCH)
    queue = await declare_requests(into)

    async def answer(message: AbstractIncomingMessage) -> None:
        reply = aio_pika.Message(
            message.body,
            correlation_id=message.correlation_id,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await out.default_exchange.publish(reply, message.reply_to or "", mandatory=True)
        await message.ack()

    await queue.consume(answer)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(os.environ["OPTIMIZER_AMQP_URL"]))
