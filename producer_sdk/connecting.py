"""Opening a connection to RabbitMQ: to one node, or to the first of several that answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection

from producer_sdk.amqp_url import node_urls, rotation

CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_S: Final = 10.0
"""How long the broker may take for an answer; nobody answers for a node that is cut off."""

AWAY: Final = (
    aiormq.exceptions.AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,
    OSError,
    TimeoutError,
)
"""How a broker that is away, or a connection that is lost, shows itself."""

SILENT: Final = "no sign of life from RabbitMQ"

NO_SUCH_QUEUE: Final = "no queue"
"""How RabbitMQ says so. With the same code it speaks of a queue that stands, on a node that is down."""


@asynccontextmanager
async def connected(url: str, timeout: float) -> AsyncIterator[AbstractConnection]:
    """As `connect`, closed at the end.

    aiormq cancels whoever waits for an answer on a line that falls silent; where nobody has cancelled this
    task, that is the connection's error.
    """
    async with await connect(url, timeout) as connection:
        try:
            yield connection
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise aiormq.exceptions.AMQPConnectionError(SILENT) from None
        except Exception as error:
            if type(error) is Exception:  # aiormq's word for a channel that ended while something was asked
                raise aiormq.exceptions.AMQPConnectionError("closed meanwhile") from error
            raise


async def connect(url: str, timeout: float) -> AbstractConnection:
    """Connects to the first node that answers.

    Args:
        url: It may name several nodes; each is tried once, in an order by chance.
        timeout: Seconds for each of them, such as `CONNECT_TIMEOUT_S`.

    Raises:
        AMQPError: None lets us in; this is what the last one said.
        OSError: None is reached, likewise.
        TimeoutError: None answers, likewise.
    """
    nodes = node_urls(url)
    *others, last = (node for node, _ in zip(rotation(nodes), nodes, strict=False))
    for node in others:
        try:
            return await _connect(node, timeout)
        except AWAY:
            continue
    return await _connect(last, timeout)


async def _connect(node: str, timeout: float) -> AbstractConnection:
    try:
        connection: AbstractConnection = await aio_pika.connect(node, timeout=timeout)
    except StopAsyncIteration:  # how aiormq says that the other side hung up before a word
        raise aiormq.exceptions.AMQPConnectionError("closed during the handshake") from None
    return connection
