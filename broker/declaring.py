"""Putting the declaration into RabbitMQ, and checking that it stands."""

import logging
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import aiormq
import httpx
from aio_pika.abc import AbstractConnection

from broker.managing import management
from producer_sdk.amqp_url import node_urls
from producer_sdk.connecting import connect
from producer_sdk.settings import masked
from topology.declaration import Declaration, Policy

log = logging.getLogger("optimizer.topology")

_TIMEOUT_S: Final = 10.0


class TopologyError(Exception):
    """What RabbitMQ holds is not what the declaration says; the text names the object and the remedy."""


class BrokerAway(TopologyError):
    """RabbitMQ cannot be reached."""


async def apply(declaration: Declaration, amqp_url: str, management_url: str) -> None:
    """Declares exchanges, queues, bindings and policies. Doing it again changes nothing.

    Policies come first, so that no queue ever stands without its dead-lettering.

    Args:
        declaration: What must stand.
        amqp_url: The virtual host is its path.
        management_url: The management API, as `management` takes it.

    Raises:
        TopologyError: An object stands there with other properties, or a broker cannot be reached.
    """
    await _apply_policies(declaration.policies, virtual_host(amqp_url), management_url)
    async with await _connect(amqp_url) as connection:
        await _declare(declaration, connection)


async def missing(declaration: Declaration, amqp_url: str) -> list[str]:
    """The names of exchanges and queues that do not stand; needs no rights to change anything.

    Raises:
        BrokerAway: There is nobody to ask.
    """
    async with await _connect(amqp_url) as connection:
        exchanges = [e.name for e in declaration.exchanges]
        absent = [name for name in exchanges if not await _stands(connection, exchange=name)]
        queues = [q.name for q in declaration.queues]
        absent += [name for name in queues if not await _stands(connection, queue=name)]
    return absent


async def _connect(amqp_url: str) -> AbstractConnection:
    try:
        return await connect(amqp_url, _TIMEOUT_S)
    except (aiormq.exceptions.AMQPError, OSError) as error:
        raise BrokerAway(
            f"RabbitMQ at {masked(amqp_url)} cannot be reached ({type(error).__name__}: {error})"
        ) from error


def virtual_host(amqp_url: str) -> str:
    """The virtual host that an AMQP URL names; `/` when it names none."""
    return unquote(urlsplit(node_urls(amqp_url)[0]).path.removeprefix("/")) or "/"


async def _apply_policies(policies: tuple[Policy, ...], vhost: str, management_url: str) -> None:
    try:
        async with management(management_url, _TIMEOUT_S) as client:
            for policy in policies:
                answer = await client.put(
                    f"/api/policies/{quote(vhost, safe='')}/{policy.name}",
                    json={
                        "pattern": policy.pattern,
                        "apply-to": policy.apply_to,
                        "definition": dict(policy.definition),
                        "priority": policy.priority,
                    },
                )
                if answer.is_error:
                    raise TopologyError(f"policy {policy.name}: {answer.status_code} {answer.text}")
    except httpx.HTTPError as error:
        raise TopologyError(
            "RabbitMQ's management API cannot be reached, and policies need it: enable the management "
            f"plugin, or set OPTIMIZER_MANAGEMENT_URL ({type(error).__name__}: {error})"
        ) from error


async def _declare(declaration: Declaration, connection: AbstractConnection) -> None:
    channel = await (await connection.channel()).get_underlay_channel()
    name = ""
    try:
        for exchange in declaration.exchanges:
            name = exchange.name
            await channel.exchange_declare(exchange.name, exchange_type=exchange.type, durable=True)
        for queue in declaration.queues:
            name = queue.name
            await channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)
            for bound_exchange, key in queue.bindings:
                await channel.queue_bind(queue.name, bound_exchange, key)
    except aiormq.exceptions.AMQPChannelError as error:
        raise TopologyError(
            f"{name}: stands there with other properties; delete it once it is empty, then apply again "
            f"({error})"
        ) from error


async def _stands(connection: AbstractConnection, *, queue: str = "", exchange: str = "") -> bool:
    channel = await connection.channel()  # a failed passive declaration closes its channel
    try:
        if queue:
            await channel.declare_queue(queue, passive=True)
        else:
            await channel.declare_exchange(exchange, passive=True)
    except aiormq.exceptions.ChannelNotFoundEntity:
        return False
    await channel.close()
    return True
