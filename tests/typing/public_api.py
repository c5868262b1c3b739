"""What a type checker tells an agent's author about the SDK; `make check` runs it over this file."""

from typing import Any, assert_type

from producer_sdk import (
    AsyncOptimizer,
    Optimizer,
    OptimizerError,
    RateLimited,
    Reply,
    Submitted,
    UnknownJob,
    Waiting,
)
from producer_sdk.testing import AsyncOptimizerDouble, Call, OptimizerDouble


def blocking() -> None:
    with Optimizer("quality", agent_type="reviewer", url="amqp://localhost", client="one") as optimizer:
        assert_type(optimizer, Optimizer)
        reply = optimizer.chat("Hello", priority="high", cache="join", cache_scope="agent", temperature=0.2)
        assert_type(reply, Reply)
        assert_type(optimizer.map(["a", "b"]), list[Reply])
        assert_type(optimizer.map(["a"], return_errors=False, timeout=5.0), list[Reply])
        outcomes = optimizer.map((text for text in "ab"), return_errors=True, progress=True, at_once=2)
        assert_type(outcomes, list[Reply | OptimizerError])
        told_later = optimizer.map(["a"], return_errors=bool(outcomes))
        assert_type(told_later, list[Reply] | list[Reply | OptimizerError])
        assert_type(optimizer.cancel("id"), bool)
        assert_type(optimizer.reply_to, str)
        job = optimizer.submit("Hello", priority="batch", timeout=3600, confirm_timeout=5, temperature=0.2)
        assert_type(job, Submitted)
        assert_type((job.id, job.agent, job.deadline), tuple[str, str, float])
        assert_type(optimizer.result(job), Reply)
        assert_type(optimizer.result("its id", timeout=5, keep=True), Reply)
        assert_type(optimizer.cancel(job), bool)
    optimizer.close()


async def asynchronous() -> None:
    async with AsyncOptimizer("quality") as optimizer:
        assert_type(optimizer, AsyncOptimizer)
        assert_type(await optimizer.chat([{"role": "user", "content": "Hello"}]), Reply)
        assert_type(await optimizer.map(["a"]), list[Reply])
        assert_type(await optimizer.map(["a"], return_errors=True), list[Reply | OptimizerError])
        assert_type(optimizer.cancel("id"), bool)
        job = await optimizer.submit("Hello", request_id="mine")
        assert_type(job, Submitted)
        assert_type(await optimizer.result(job), Reply)
        assert_type(await optimizer.result(str(job), timeout=5, keep=True), Reply)


def reply(reply: Reply) -> None:
    assert_type(reply.text, str)
    assert_type(reply.tool_calls, list[dict[str, Any]])
    assert_type(reply.finish_reason, str | None)
    assert_type(reply.cost_usd, float | None)
    assert_type(reply.usage.total_tokens, int | None)
    assert_type(reply.timings.total_s, float)
    assert_type(reply.body, dict[str, Any] | None)


def waiting(optimizer: Optimizer) -> None:
    def tell(waiting: Waiting) -> None:
        assert_type(waiting.waits_for, str)
        assert_type(waiting.until, float | None)
        assert_type(waiting.position, int | None)

    optimizer.chat("Hello", on_wait=tell)
    optimizer.chat("Hello", on_wait=lambda waiting: print(waiting.waits_for))  # noqa: T201 - as a user would


def errors(optimizer: Optimizer) -> None:
    try:
        optimizer.chat("Hello")
    except OptimizerError as error:
        assert_type(error.retryable, bool)
        assert_type(error.message, str)
        assert_type(error.provider_status, int | None)
        assert_type(error.reply, Reply | None)
    try:
        optimizer.result("id")
    except UnknownJob as error:
        assert_type(error.message, str)


def takes_the_client(optimizer: Optimizer) -> None: ...


def takes_the_asyncio_client(optimizer: AsyncOptimizer) -> None: ...


def doubles() -> None:
    double = OptimizerDouble("quality")
    takes_the_client(double)
    takes_the_asyncio_client(AsyncOptimizerDouble("quality"))
    double.answers("one", {"choices": []}, RateLimited("later"), lambda call: call.prompt, when="diff")
    double.answers(body={"choices": []}, when=lambda call: call.task == "code")
    double.fails(RateLimited("later"))
    assert_type(double.calls, list[Call])
    assert_type(double.calls[0].prompt, str)
    assert_type(double.map(["a"]), list[Reply])
    assert_type(double.result(double.submit("a")), Reply)
