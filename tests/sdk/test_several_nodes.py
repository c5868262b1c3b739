"""A URL that names several nodes: where one is away, the next one serves. Two proxies stand for nodes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

from broker import declaring
from broker.managing import management, management_url_of
from tests.support.clients import Driver, desk, nothing, open_client, said
from tests.support.house import House
from tests.support.proxy import Proxy, proxy_to
from tests.support.waiting import until
from topology.declaration import declaration

NOBODY = "127.0.0.1:9"


def through(house: House, *nodes: str) -> str:
    """The house's URL with other nodes in it."""
    amqp = urlsplit(house.amqp_url)
    return urlunsplit(amqp._replace(netloc=f"{amqp.username}:{amqp.password}@{','.join(nodes)}"))


@asynccontextmanager
async def two_nodes(house: House) -> AsyncIterator[tuple[list[Proxy], str]]:
    """Two ways to the one broker, and the URL that names both."""
    amqp = urlsplit(house.amqp_url)
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(proxy_to(amqp.hostname or "", amqp.port or 5672))
            for _ in range(2)
        ]
        yield proxies, through(house, *(f"127.0.0.1:{proxy.port}" for proxy in proxies))


async def test_a_node_that_is_away_is_passed_over(driver: Driver, declared: House) -> None:
    node = f"127.0.0.1:{urlsplit(declared.amqp_url).port}"
    async with (
        desk(declared.amqp_url),
        open_client(driver, through(declared, NOBODY, node, NOBODY)) as client,
    ):
        assert (await client.chat("Hello", timeout=60)).text == "Hello"


async def test_when_a_node_is_lost_what_waits_goes_on_at_another(driver: Driver, declared: House) -> None:
    async with (
        desk(declared.amqp_url, nothing) as front,
        two_nodes(declared) as (proxies, url),
        open_client(driver, url) as client,
    ):
        for lost, kept in (proxies, reversed(proxies)):
            before = len(front.asked)
            call = asyncio.ensure_future(client.chat(f"Without {lost.port}", timeout=90))
            await until(lambda: len(front.asked) > before)  # noqa: B023 - called before the next turn
            kept.restore()
            lost.cut()
            await front.reply(front.asked[-1], said(front.asked[-1], "here"))
            assert (await call).text == "here"


async def test_without_any_node_the_error_names_them_and_no_password(driver: Driver) -> None:
    async with open_client(driver, f"amqp://guest:secret@{NOBODY},{NOBODY}/vhost") as client:
        with pytest.raises(Exception, match=r"amqp://guest:\*\*\*@127\.0\.0\.1:9,127\.0\.0\.1:9/vhost"):
            await client.chat("Anybody?", timeout=0.7)


async def test_the_topology_is_looked_at_and_applied_wherever_a_node_answers(house: House) -> None:
    whole = declaration(house.simulated("http://127.0.0.1:1/v1"))
    node = f"127.0.0.1:{urlsplit(house.amqp_url).port}"
    api = urlsplit(house.management_url)
    apis = f"http://{api.username}:{api.password}@{NOBODY},{api.hostname}:{api.port}"

    for _ in range(4):  # the order is by chance
        await declaring.apply(whole, through(house, NOBODY, node), apis)
        assert await declaring.missing(whole, through(house, node, NOBODY)) == []
    with pytest.raises(declaring.BrokerAway):
        await declaring.missing(whole, through(house, NOBODY, NOBODY))


async def test_of_the_management_apis_the_first_that_answers_is_asked(house: House) -> None:
    api = urlsplit(house.management_url)
    login = f"{api.username}:{api.password}"
    async with management(f"http://{login}@{NOBODY},{api.hostname}:{api.port}", 10) as client:
        assert (await client.get("/api/overview")).status_code == httpx.codes.OK
        assert "guest" not in str(client.base_url)


def test_the_management_apis_are_where_the_nodes_are() -> None:
    assert management_url_of("amqp://me:pw@a:5673,b/fleet") == "http://me:pw@a:15672,b:15672"
    assert management_url_of("amqps://me:pw@[::1]/") == "https://me:pw@[::1]:15671"
    assert management_url_of("amqp://a") == "http://a:15672"
