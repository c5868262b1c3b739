"""A cluster of three RabbitMQ nodes, each away in turn, under load: `make test-cluster`. Needs Docker.

First each is stopped and started again, then each is cut off by the network and comes back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest

from tests.containers.account import Load, books, comes_to_rest, settle, until_slowly
from tests.containers.stack import NODES, Stack, running_stack

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack("cluster") as stack:
        yield stack


async def stopped(stack: Stack, node: str, meanwhile: Callable[[], Awaitable[None]]) -> None:
    await asyncio.to_thread(stack.compose, "stop", node)
    await meanwhile()
    await asyncio.to_thread(stack.compose, "start", node)


async def cut_off(stack: Stack, node: str, meanwhile: Callable[[], Awaitable[None]]) -> None:
    await asyncio.to_thread(stack.cut_off, node)
    await meanwhile()
    await asyncio.to_thread(stack.join_again, node)


@pytest.mark.parametrize("away", [stopped, cut_off])
async def test_each_node_is_away_in_turn_and_nothing_is_lost_nor_bought_twice(
    stack: Stack, away: Callable[[Stack, str, Callable[[], Awaitable[None]]], Awaitable[None]]
) -> None:
    await whole(stack)
    stack.simulate(latency={"median_s": 1.0})
    async with books(stack) as kept:
        async with Load(stack, away.__name__) as load:
            await load.goes_on()
            for node in NODES:
                await away(stack, node, load.goes_on)
                await whole(stack)
                await load.goes_on()
        print(f"\neach node {away.__name__}:", await settle(stack, load, kept))  # noqa: T201 - the account
    await comes_to_rest(stack, at_rest)


async def whole(stack: Stack) -> None:
    """Waits until all nodes run, and every quorum queue has its three members."""

    async def is_whole() -> bool:
        try:
            nodes = await asyncio.to_thread(stack.management, "nodes", NODES[0])
            queues = await asyncio.to_thread(stack.management, "queues", NODES[0])
        except httpx.HTTPError:
            return False
        online = [queue.get("online", []) for queue in queues if queue["type"] == "quorum"]
        return all(node["running"] for node in nodes) and all(len(names) == len(NODES) for names in online)

    await until_slowly(is_whole)


async def at_rest(stack: Stack) -> bool:
    """Whether nothing is left in any queue, but replies that came again for a client that has moved on."""
    queues = await asyncio.to_thread(stack.management, "queues", NODES[0])
    return not [q["name"] for q in queues if q.get("messages", 1) and not q["name"].startswith("reply.")]
