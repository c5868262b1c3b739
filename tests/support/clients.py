"""Both clients of the SDK behind one face, and a desk that answers them where no fleet is needed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import aio_pika

from producer_sdk import AsyncOptimizer, Optimizer, OptimizerError, Reply, Submitted
from producer_sdk.asking import Prompt
from topology import names
from topology.messages import Cancel, Request
from topology.names import Priority

T = TypeVar("T")
Driver = Literal["asyncio", "pika"]
QUEUES = tuple(names.requests_queue(priority) for priority in Priority)
DRIVERS: tuple[Driver, ...] = ("asyncio", "pika")


class Client(Protocol):
    """What both clients do, for a test that awaits it."""

    @property
    def reply_to(self) -> str: ...

    async def chat(self, prompt: Prompt, **options: Any) -> Reply: ...

    async def map(self, prompts: Iterable[Prompt], **options: Any) -> list[Any]: ...

    async def submit(self, prompt: Prompt, **options: Any) -> Submitted: ...

    async def result(self, job: Submitted | str, *, timeout: float = ..., keep: bool = ...) -> Reply: ...

    def cancel(self, request_id: str | Submitted) -> bool: ...


class Threaded:
    """The blocking client, each of its calls in a thread."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._threads = ThreadPoolExecutor(64, thread_name_prefix="caller")

    @property
    def reply_to(self) -> str:
        return self.optimizer.reply_to

    async def chat(self, prompt: Prompt, **options: Any) -> Reply:
        return await self._in_thread(lambda: self.optimizer.chat(prompt, **options))

    async def map(self, prompts: Iterable[Prompt], **options: Any) -> list[Any]:
        return await self._in_thread(lambda: self.optimizer.map(prompts, **options))

    async def submit(self, prompt: Prompt, **options: Any) -> Submitted:
        return await self._in_thread(lambda: self.optimizer.submit(prompt, **options))

    async def result(self, job: Submitted | str, *, timeout: float = 600.0, keep: bool = False) -> Reply:
        return await self._in_thread(lambda: self.optimizer.result(job, timeout=timeout, keep=keep))

    def cancel(self, request_id: str | Submitted) -> bool:
        return self.optimizer.cancel(request_id)

    async def close(self) -> None:
        await self._in_thread(self.optimizer.close)
        self._threads.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


@asynccontextmanager
async def open_client(driver: Driver, url: str, agent: str = "tester") -> AsyncIterator[Client]:
    if driver == "asyncio":
        async with AsyncOptimizer(agent, url=url) as optimizer:
            yield optimizer
        return
    threaded = Threaded(Optimizer(agent, url=url).__enter__())
    try:
        yield threaded
    finally:
        await threaded.close()


async def outcome_of(call: Awaitable[Reply]) -> Reply | OptimizerError:
    try:
        return await call
    except OptimizerError as error:
        return error


@dataclass
class Asked:
    """A request as it arrived."""

    request: Request
    priority: Priority
    message_id: str | None
    reply_to: str | None

    @property
    def prompt(self) -> str:
        return str(self.request.params["messages"][-1]["content"])


@dataclass
class Desk:
    """Stands where the fronts stand. A test decides what each request comes to, and when."""

    answer: Callable[[Asked], Reply | None]
    asked: list[Asked] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    _channel: aio_pika.abc.AbstractChannel | None = None

    async def reply(self, asked: Asked, reply: Reply | bytes) -> None:
        assert self._channel is not None
        assert asked.reply_to is not None
        body = reply if isinstance(reply, bytes) else reply.to_bytes()
        await self._channel.default_exchange.publish(
            aio_pika.Message(body, correlation_id=asked.request.id), asked.reply_to, mandatory=False
        )

    async def take(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with message.process():
            if message.type == names.CANCEL_TYPE:
                self.withdrawn.append(Cancel.from_bytes(message.body).id)
                return
            priority, _ = names.speaker_of(message.routing_key or "")
            request = Request.from_bytes(message.body)
            asked = Asked(request, priority, message.message_id, message.reply_to)
            self.asked.append(asked)
            if (reply := self.answer(asked)) is not None:
                await self.reply(asked, reply)


def echo(asked: Asked) -> Reply:
    """An answer that repeats the prompt."""
    return said(asked, asked.prompt)


def said(asked: Asked, text: str) -> Reply:
    body = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    return Reply(id=asked.request.id, status="ok", body=body)


def nothing(_: Asked) -> None:
    """No answer."""


@asynccontextmanager
async def desk(
    url: str, answer: Callable[[Asked], Reply | None] = echo, queues: Iterable[str] = QUEUES
) -> AsyncIterator[Desk]:
    """Consumes the queues of requests; it connects again whenever it is lost."""
    opened = Desk(answer)
    connection = await aio_pika.connect_robust(url, reconnect_interval=0.2)
    async with connection:
        opened._channel = await connection.channel()
        for name in queues:
            queue = await opened._channel.get_queue(name, ensure=False)
            await queue.consume(opened.take)
        yield opened
