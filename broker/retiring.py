"""Job queues that the fleet has no provider or lane for any more: emptied, then removed."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import aiormq
import httpx
from aio_pika.abc import AbstractConnection

from broker.declaring import BrokerAway, TopologyError, virtual_host
from broker.managing import management
from broker.sweeping import Onward, depth, sweep
from producer_sdk.connecting import connected
from producer_sdk.settings import masked
from producer_sdk.transport import Publisher
from topology import names
from topology.declaration import Declaration

_TIMEOUT_S: Final = 10.0
_NOTICE_S: Final = 5.0


@dataclass(frozen=True)
class Retired:
    """What became of such a queue.

    Attributes:
        moved: How many messages went onward.
        removed: Whether it is gone. False: it is still consumed, or was only to be emptied.
    """

    queue: str
    moved: int
    removed: bool


async def retire(
    declaration: Declaration,
    amqp_url: str,
    management_url: str,
    onward_from: Callable[[str], Onward],
    *,
    remove: bool,
) -> list[Retired]:
    """Empties the job queues that the declaration does not have, and removes them.

    Queues that somebody consumes are left alone: he has not reloaded yet. Nothing is lost on the way: a
    queue is unbound before it is emptied, so that what is published for it later goes to `optimizer.dead`.

    Args:
        declaration: What is to stand.
        amqp_url: RabbitMQ.
        management_url: Its management API; only there can queues be listed.
        onward_from: What becomes of the messages of a queue.
        remove: False: they are emptied and stay.

    Raises:
        TopologyError: A broker cannot be reached, or does not take what goes onward.
    """
    wanted = {queue.name for queue in declaration.queues}
    extra = [
        name for name in await _job_queues(amqp_url, management_url) if names.common_queue(name) not in wanted
    ]
    if not extra:
        return []
    try:
        async with (
            connected(amqp_url, _TIMEOUT_S) as connection,
            Publisher(amqp_url, "optimizer retiring") as publisher,
        ):
            return [
                await _retire(connection, publisher, queue, onward_from(queue), remove) for queue in extra
            ]
    except (aiormq.exceptions.AMQPError, OSError) as error:
        raise BrokerAway(f"RabbitMQ at {masked(amqp_url)} cannot be reached ({error})") from error


async def _job_queues(amqp_url: str, management_url: str) -> list[str]:
    path = f"/api/queues/{quote(virtual_host(amqp_url), safe='')}"
    try:
        async with management(management_url, _TIMEOUT_S) as client:
            answer = await client.get(path, params={"columns": "name"})
            answer.raise_for_status()
            found = [str(queue["name"]) for queue in answer.json()]
    except (httpx.HTTPError, ValueError) as error:
        raise TopologyError(
            f"RabbitMQ's management API does not list its queues ({type(error).__name__}: {error})"
        ) from error
    return sorted(name for name in found if names.is_jobs_queue(name))


async def _retire(
    connection: AbstractConnection, publisher: Publisher, queue: str, onward: Onward, remove: bool
) -> Retired:
    found = await depth(connection, queue)
    if found is None:
        return Retired(queue, 0, removed=True)
    if found[1]:
        return Retired(queue, 0, removed=False)
    if remove:
        await _bind(connection, queue, bound=False)
    moved = await sweep(connection, publisher, queue, onward)
    if not remove:
        return Retired(queue, moved or 0, removed=False)
    if moved is None or not await _is_left_empty(connection, queue):  # somebody consumes it again
        await _bind(connection, queue, bound=True)
        return Retired(queue, moved or 0, removed=False)
    channel = await connection.channel()
    # RabbitMQ deletes no quorum queue on the condition that it is empty; unbound, it stays so.
    await channel.queue_delete(queue)
    await channel.close()
    return Retired(queue, moved, removed=True)


async def _is_left_empty(connection: AbstractConnection, queue: str) -> bool:
    """Whether nobody holds anything of it; a quorum queue notices a moment later that we have gone."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_NOTICE_S):
            while await depth(connection, queue) != (0, 0):  # noqa: ASYNC110 - a broker tells nobody
                await asyncio.sleep(0.05)
            return True
    return False


async def _bind(connection: AbstractConnection, queue: str, *, bound: bool) -> None:
    channel = await connection.channel()
    own = await channel.get_queue(queue, ensure=False)
    await (own.bind(names.JOBS, queue) if bound else own.unbind(names.JOBS, queue))
    await channel.close()
