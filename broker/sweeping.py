"""Passing once over what waits in a queue that nobody consumes: each message goes where it is told to."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import aiormq
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage, AbstractQueue

from broker.declaring import TopologyError
from producer_sdk.transport import Outgoing, Published, Publisher
from topology import names

log = logging.getLogger("optimizer.sweeping")

Onward = Callable[[bytes], Awaitable[Sequence[Outgoing]]]
"""What is to be published in place of a message with this body; none: it is forgotten."""

_AT_ONCE: Final = 64
_IDLE_S: Final = 2.0
_TRIES: Final = 20
_AGAIN_S: Final = 0.5


async def depth(connection: AbstractConnection, queue: str) -> tuple[int, int] | None:
    """How many messages are ready in a queue and how many consume it; None: there is no such queue."""
    channel = await connection.channel()
    try:
        found = (await channel.declare_queue(queue, passive=True)).declaration_result
    except aiormq.exceptions.ChannelNotFoundEntity:
        return None
    await channel.close()
    return found.message_count or 0, found.consumer_count or 0


async def with_sides(connection: AbstractConnection, queues: Sequence[str]) -> list[str]:
    """These queues, each of jobs followed by all that stand beside it."""
    found = []
    for queue in queues:
        found.append(queue)
        for side in range(1, names.SIDES + 1 if names.is_jobs_queue(queue) else 1):
            beside = names.side_queue(queue, side)
            if await depth(connection, beside) is None:
                break
            found.append(beside)
    return found


async def sweep(
    connection: AbstractConnection, publisher: Publisher, queue: str, onward: Onward
) -> int | None:
    """Replaces each message that waits now by what `onward` says, confirmed before it is acknowledged.

    It ends even where `onward` sends a message back to the same queue: no more are taken than waited at
    the start. So those that must stay go round once, keep their order, and do not age: each hand-out of
    one and the same message counts towards its queue's delivery limit.

    Returns:
        How many were replaced; None: the queue is consumed, or gone, and nothing was done.

    Raises:
        TopologyError: What comes onward cannot be published.
    """
    found = await depth(connection, queue)
    if found is None or found[1]:
        return None
    waiting, passed = found[0], 0
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=_AT_ONCE)
    inbox: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    if waiting:
        await _consume(await channel.get_queue(queue, ensure=False), inbox)
    while passed < waiting and (batch := await _next(inbox, waiting - passed)):
        messages = [message for taken in batch for message in await onward(taken.body)]
        await asyncio.gather(*(_publish(publisher, message) for message in messages))
        for taken in batch:
            await taken.ack()
        passed += len(batch)
    await channel.close()  # what was handed to us beyond that goes back to its place
    return passed


async def _consume(queue: AbstractQueue, inbox: "asyncio.Queue[AbstractIncomingMessage]") -> None:
    await queue.consume(inbox.put)


async def _next(inbox: "asyncio.Queue[AbstractIncomingMessage]", most: int) -> list[AbstractIncomingMessage]:
    """What has come, in order; empty when nothing comes: somebody else has taken the rest."""
    try:
        async with asyncio.timeout(_IDLE_S):
            batch = [await inbox.get()]
    except TimeoutError:
        return []
    while len(batch) < min(most, _AT_ONCE) and not inbox.empty():
        batch.append(inbox.get_nowait())
    return batch


async def _publish(publisher: Publisher, message: Outgoing) -> None:
    for _ in range(_TRIES):
        outcome = await publisher.publish(message)
        if outcome is Published.CONFIRMED:
            return
        log.warning("publish failed", extra={"to": message.routing_key, "how": outcome.name})
        await asyncio.sleep(_AGAIN_S)
    raise TopologyError(f"{message.routing_key}: RabbitMQ takes nothing for it ({outcome.name.lower()})")
