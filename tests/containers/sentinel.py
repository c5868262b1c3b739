"""Redis with a replica and three Sentinels: fail-overs under load, `make test-cluster`. Needs Docker.

Replication is asynchronous, so a fail-over may lose what the primary wrote last. That may cost one call more
for each flight that was in flight then, and no answer.
"""

import asyncio
from collections.abc import Iterator

import pytest

from tests.containers.account import AGENTS, Load, books, comes_to_rest, settle, until_slowly
from tests.containers.stack import Stack, running_stack

pytestmark = pytest.mark.timeout(1800)

SERVERS = {"redis1", "redis2"}
AT_ONCE = 2 * len(AGENTS)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack("sentinel") as stack:
        yield stack


@pytest.mark.parametrize("fate", ["killed", "frozen", "ahead"])
async def test_a_fail_over_costs_at_most_one_call_more_for_each_flight(stack: Stack, fate: str) -> None:
    await until_slowly(lambda: follows(stack))
    stack.simulate(latency={"median_s": 1.0})
    async with books(stack) as kept:
        async with Load(stack, fate) as load:
            await load.goes_on()
            old = await primary(stack)
            if fate == "frozen":
                await run(stack, "pause", service=old)
            else:
                if fate == "ahead":
                    await get_ahead(stack, old, load)
                await run(stack, "kill", service=old)
            if fate == "ahead":
                await run(stack, "unpause", service=other(old))
            await until_slowly(lambda: is_primary(stack, other(old)))
            if fate == "frozen":  # it takes itself for the primary still, and nobody may write to it
                await run(stack, "unpause", service=old)
            await load.goes_on()
            if fate != "frozen":
                await run(stack, "start", service=old)
            await until_slowly(lambda: follows(stack))
            await load.goes_on()
        print(f"\nthe primary {fate}:", await settle(stack, load, kept, in_flight=AT_ONCE))  # noqa: T201
    assert await primary(stack) == other(old)
    await comes_to_rest(stack, at_rest)


async def get_ahead(stack: Stack, old: str, load: Load) -> None:
    """The primary goes on alone: its replica gets nothing of what it writes from now on."""
    await run(stack, "pause", service=other(old))
    await redis(stack, old, "client", "kill", "type", "replica")
    await load.goes_on()


async def primary(stack: Stack) -> str:
    """The server that Sentinel calls the primary."""
    command = ("redis-cli", "-p", "26379", "sentinel", "get-master-addr-by-name", "optimizer")
    said = await asyncio.to_thread(stack.inside, "sentinel1", *command)
    return said.split()[0]


async def is_primary(stack: Stack, server: str) -> bool:
    return await primary(stack) == server and "role:master" in await redis(
        stack, server, "info", "replication"
    )


async def follows(stack: Stack) -> bool:
    """Whether the replica has all that the primary has."""
    said = await redis(stack, other(await primary(stack)), "info", "replication")
    return "role:slave" in said and "master_link_status:up" in said


def other(server: str) -> str:
    (found,) = SERVERS - {server}
    return found


async def redis(stack: Stack, server: str, *command: str) -> str:
    """What a server answers; nothing where it cannot."""
    try:
        return await asyncio.to_thread(stack.inside, server, "redis-cli", *command)
    except AssertionError:
        return ""


async def run(stack: Stack, command: str, service: str) -> None:
    await asyncio.to_thread(lambda: stack.docker(command, service=service))


async def at_rest(stack: Stack) -> bool:
    """Whether nothing is left in any queue."""
    queues = await asyncio.to_thread(stack.management, "queues")
    return not [queue["name"] for queue in queues if queue.get("messages", 1)]
