"""A client process: reads what to ask, a line each, and says what came of it, a line each.

It watches the SDK's core from outside: what was confirmed, how often a caller was told, what was dropped.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any, cast

from producer_sdk import AsyncOptimizer, OptimizerError, Reply
from producer_sdk.core import Answered, Core, Effect, Failed
from tests.support.clients import Client, Driver, open_client
from tests.support.house import echo_of
from topology.errors import Refused
from topology.wire import unpack


class Watch:
    """Sees what passes the core of every client in this process."""

    def __init__(self) -> None:
        self.confirmed: set[str] = set()
        self.told: Counter[str] = Counter()
        self.replies: Counter[str] = Counter()

    def begin(self) -> None:
        """Looks over the core's shoulder from now on."""
        confirmed, received, due = Core.confirmed, Core.received, Core.due

        def watch_confirmed(core: Core, request_id: str) -> list[Effect]:
            self.confirmed.add(request_id)
            return confirmed(core, request_id)

        def watch_received(core: Core, body: bytes) -> list[Effect]:
            self._count(body)
            return self._tell(received(core, body))

        def watch_due(core: Core, now: float, obstacle: str | None = None) -> list[Effect]:
            return self._tell(due(core, now, obstacle))

        watching = {"confirmed": watch_confirmed, "received": watch_received, "due": watch_due}
        for name, watch in watching.items():
            setattr(Core, name, watch)

    def _tell(self, effects: list[Effect]) -> list[Effect]:
        self.told.update(effect.id for effect in effects if isinstance(effect, (Answered, Failed)))
        return effects

    def _count(self, body: bytes) -> None:
        try:
            value = unpack(body)
        except Refused:
            return
        if "waits_for" not in value:
            self.replies[str(value.get("id"))] += 1


class Asking:
    """Asks what it is told to, for any number of agents."""

    def __init__(self, driver: Driver, stack: AsyncExitStack) -> None:
        self._driver = driver
        self._stack = stack
        self._clients: dict[str, Client] = {}
        self._watch = Watch()
        self._watch.begin()

    async def run(self, lines: asyncio.StreamReader) -> None:
        """Until there are no more lines, and each has its end."""
        async with asyncio.TaskGroup() as asking:
            async for line in lines:
                ask = json.loads(line)
                if "retransmit" in ask:
                    self._retransmit()
                    continue
                client = await self._client(ask["agent"])
                asking.create_task(self._ask(client, ask), name=ask["id"])
        dropped = self._watch.replies.total() - len(self._watch.replies)
        _say({"dropped": dropped})

    async def _client(self, agent: str) -> Client:
        if agent not in self._clients:
            opening = open_client(self._driver, os.environ["OPTIMIZER_AMQP_URL"], agent)
            self._clients[agent] = await self._stack.enter_async_context(opening)
        return self._clients[agent]

    def _retransmit(self) -> None:
        for client in self._clients.values():
            if isinstance(client, AsyncOptimizer) and client._calls._stack is not None:
                client._calls._on_reconnect()

    async def _ask(self, client: Client, ask: dict[str, Any]) -> None:
        error, right, id_ = None, False, ask["id"]
        try:
            reply = await (self._have_done if ask["durable"] else _chat)(client, ask)
            right = reply.id == id_ and (reply.text or "").startswith(echo_of(ask["prompt"]))
        except OptimizerError as failed:
            error = f"{failed.type}: {failed.message}"
        _say(
            {
                "id": id_,
                "confirmed": id_ in self._watch.confirmed,
                "told": max(1, self._watch.told[id_]),
                "error": error,
                "right": right,
                "ended_at": time.time(),
            }
        )

    async def _have_done(self, client: Client, ask: dict[str, Any]) -> Reply:
        """Hands a durable request over; another client of the agent takes the reply."""
        timeout = ask["timeout_s"]
        job = await client.submit(
            ask["prompt"], request_id=ask["id"], timeout=timeout, confirm_timeout=timeout, **_options(ask)
        )
        async with open_client("asyncio", os.environ["OPTIMIZER_AMQP_URL"], ask["agent"]) as another:
            return await another.result(str(job), timeout=timeout)


async def _chat(client: Client, ask: dict[str, Any]) -> Reply:
    return await client.chat(ask["prompt"], request_id=ask["id"], timeout=ask["timeout_s"], **_options(ask))


def _options(ask: dict[str, Any]) -> dict[str, Any]:
    return {name: ask[name] for name in ("model", "cache", "priority")}


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201 - its output


async def main(driver: Driver) -> None:
    lines = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with AsyncExitStack() as stack:
        await Asking(driver, stack).run(lines)


if __name__ == "__main__":
    asyncio.run(main(cast("Driver", sys.argv[1])))
