"""A load that goes on while brokers come and go, and the account of what it came to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

from producer_sdk.connecting import connect
from tests.containers.stack import Stack
from tests.support.clients import Client, Driver, open_client
from tests.support.house import echo_of
from topology import names
from topology.events import EventType
from topology.messages import Event

AGENTS: tuple[tuple[str, Driver], ...] = (
    ("ada", "asyncio"),
    ("bea", "pika"),
    ("cai", "asyncio"),
    ("dee", "pika"),
    ("eve", "asyncio"),
    ("fay", "pika"),
)
TIMEOUT_S = 300.0
_BOOKS = "test.books"
_BOOKED = ("optimizer.call.#", "optimizer.spend.#")


class Load:
    """Agents on the host. Turn after turn each asks what nobody else does, and what all of them ask."""

    def __init__(self, stack: Stack, title: str) -> None:
        self._stack = stack
        self._title = title
        self._enough = asyncio.Event()
        self._opened = AsyncExitStack()
        self.clients: dict[str, Client] = {}
        self.answered: Counter[str] = Counter()
        self.prompts: set[str] = set()

    async def __aenter__(self) -> Self:
        for agent, driver in AGENTS:
            client = open_client(driver, self._stack.amqp_url, agent)
            self.clients[agent] = await self._opened.enter_async_context(client)
        self._asking = asyncio.gather(*(self._ask(agent) for agent in self.clients))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._enough.set()
        try:
            await self._asking
        except Exception as error:
            error.add_note(f"evidence: {await asyncio.to_thread(self._stack.keep_evidence)}")
            raise
        finally:
            await self._opened.aclose()

    async def goes_on(self, answers: int = 10) -> None:
        """Waits until each agent has had so many more answers."""
        wanted = {agent: self.answered[agent] + answers for agent in self.clients}

        def all_have() -> bool:
            if self._asking.done():
                self._asking.result()
            return all(self.answered[agent] >= count for agent, count in wanted.items())

        await until_slowly(all_have)

    async def _ask(self, agent: str) -> None:
        turn = 0
        while not self._enough.is_set():
            own, shared = f"{self._title}: {agent}'s turn {turn}", f"{self._title}: everybody's turn {turn}"
            await asyncio.gather(self._ask_one(agent, own), self._ask_one(agent, shared))
            turn += 1

    async def _ask_one(self, agent: str, prompt: str) -> None:
        self.prompts.add(prompt)
        reply = await self.clients[agent].chat(prompt, timeout=TIMEOUT_S)
        assert reply.text.split()[0] == echo_of(prompt)
        self.answered[agent] += 1


class Books:
    """The events about calls, in a queue that no node's end can take away."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.entries: dict[str, Event] = {}

    async def read(self) -> None:
        """Takes what has come."""
        async with await connect(self._url, 10) as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(_BOOKS, ensure=False)
            while (message := await queue.get(fail=False)) is not None:
                event = Event.from_bytes(message.body)
                self.entries[event.id] = event
                await message.ack()

    def of(self, kind: EventType) -> list[dict[str, Any]]:
        return [entry.model_dump() for entry in self.entries.values() if entry.type == kind]


@asynccontextmanager
async def books(stack: Stack) -> AsyncIterator[Books]:
    """The books from now on; read them when the load is over."""
    async with await connect(stack.amqp_url, 10) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(_BOOKS, durable=True, arguments={"x-queue-type": "quorum"})
        for key in _BOOKED:
            await queue.bind(names.EVENTS, key)
    yield Books(stack.amqp_url)
    async with await connect(stack.amqp_url, 10) as connection:
        await (await connection.channel()).queue_delete(_BOOKS)


async def settle(stack: Stack, load: Load, kept: Books, *, in_flight: int = 0) -> str:
    """Checks the account, and returns it in a line.

    Args:
        stack: At rest, or about to be.
        load: Over, all its calls answered.
        kept: Not yet read.
        in_flight: How many flights may have cost one call more than their doubtful spends explain.
    """
    await kept.read()
    calls = [entry for entry in stack.ledger() if entry["billed"]]
    doubtful = kept.of(EventType.SPEND_DOUBTFUL)
    begun = {entry["call"] for entry in kept.of(EventType.CALL_STARTED)}
    answers, distinct = load.answered.total(), len(load.prompts)
    line = (
        f"{answers} answers to {distinct} distinct requests; calls {len(calls)}, doubtful {len(doubtful)}, "
        f"duplicate {len(kept.of(EventType.SPEND_DUPLICATE))}"
    )
    assert {call["outcome"] for call in calls} == {"ok"}, line
    assert {call["call_id"] for call in calls} <= begun, line
    assert len({call["prompt_sha256"] for call in calls}) == distinct, line
    assert distinct <= len(calls) <= distinct + len(doubtful) + in_flight, line
    return line


async def comes_to_rest(stack: Stack, at_rest: Callable[[Stack], Awaitable[bool]]) -> None:
    """Waits until nothing is left anywhere; if that never comes, keeps what tells why."""
    try:
        await until_slowly(lambda: at_rest(stack))
    except TimeoutError as error:
        error.add_note(f"evidence: {await asyncio.to_thread(stack.keep_evidence)}")
        raise


async def until_slowly(condition: Callable[[], Awaitable[bool] | bool], timeout_s: float = TIMEOUT_S) -> None:
    """As `until`, for what costs a process or a query to find out."""
    async with asyncio.timeout(timeout_s):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(0.5)
