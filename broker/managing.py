"""RabbitMQ's management API: policies and lists of queues are to be had only there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from producer_sdk.amqp_url import node_urls

_USUAL_PORTS = {"amqp": ("http", 15672), "amqps": ("https", 15671)}


@asynccontextmanager
async def management(url: str, timeout: float) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API, logged in.

    Args:
        url: With credentials, such as `http://guest:guest@host:15672`. It may name several nodes, as
            `http://guest:guest@host1:15672,host2:15672`: the first that answers is asked.
        timeout: Seconds that each answer may take.

    Raises:
        HTTPError: None answers; this is what the last one said.
        InvalidURL: It is none.
    """
    *others, last = node_urls(url)
    for node in others:
        try:
            async with _client(node, timeout) as probe:
                await probe.get("/api/overview")
        except httpx.TransportError:
            continue
        last = node
        break
    async with _client(last, timeout) as client:
        yield client


def management_url_of(amqp_url: str) -> str:
    """Where the management API of a broker usually is: the same hosts and user, the usual port.

    Args:
        amqp_url: As for clients.
    """
    nodes = [httpx.URL(node) for node in node_urls(amqp_url)]
    scheme, port = _USUAL_PORTS.get(nodes[0].scheme, ("http", 15672))
    user = nodes[0].userinfo.decode()
    hosts = (f"[{node.host}]" if ":" in node.host else node.host for node in nodes)
    return f"{scheme}://{user}{'@' if user else ''}{','.join(f'{host}:{port}' for host in hosts)}"


def _client(node: str, timeout: float) -> httpx.AsyncClient:
    url = httpx.URL(node)
    # The credentials are taken out of the URL: httpx logs URLs.
    return httpx.AsyncClient(
        base_url=url.copy_with(userinfo=b""), auth=(url.username, url.password), timeout=timeout
    )
