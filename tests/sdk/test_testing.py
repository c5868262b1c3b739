"""The doubles that agents test themselves with."""

import asyncio
import inspect
from typing import Any

import pytest

from producer_sdk import (
    AsyncOptimizer,
    ContentFiltered,
    InvalidRequest,
    Optimizer,
    OptimizerError,
    RateLimited,
    Reply,
    Submitted,
    UnknownJob,
)
from producer_sdk.testing import AsyncOptimizerDouble, Call, OptimizerDouble

Double = OptimizerDouble | AsyncOptimizerDouble
Kind = type[OptimizerDouble] | type[AsyncOptimizerDouble]


def chat(double: Double, prompt: Any = "Hello", **options: Any) -> Reply:
    """One call, whichever client it is."""
    if isinstance(double, OptimizerDouble):
        return double.chat(prompt, **options)

    async def ask(double: AsyncOptimizerDouble) -> Reply:
        async with double:
            return await double.chat(prompt, **options)

    return asyncio.run(ask(double))


def map_(double: Double, prompts: list[str], *, return_errors: bool = False, **options: Any) -> Any:
    if isinstance(double, OptimizerDouble):
        return double.map(prompts, return_errors=return_errors, **options)

    async def ask(double: AsyncOptimizerDouble) -> Any:
        async with double:
            return await double.map(prompts, return_errors=return_errors, **options)

    return asyncio.run(ask(double))


@pytest.fixture(params=[OptimizerDouble, AsyncOptimizerDouble])
def double(request: pytest.FixtureRequest) -> Double:
    made: Double = request.param("quality", agent_type="reviewer")
    return made


@pytest.mark.parametrize(
    ("kind", "real"), [(OptimizerDouble, Optimizer), (AsyncOptimizerDouble, AsyncOptimizer)]
)
def test_a_double_takes_what_the_client_takes(kind: Kind, real: type) -> None:
    assert inspect.signature(kind) == inspect.signature(real)
    for name, method in inspect.getmembers(real, callable):
        if not name.startswith("_") or name in {"__enter__", "__exit__", "__aenter__", "__aexit__"}:
            assert inspect.signature(getattr(kind, name)) == inspect.signature(method)
    assert issubclass(kind, real)


def test_without_a_word_the_prompt_comes_back(double: Double) -> None:
    reply = chat(double, "Hello")

    assert (reply.text, reply.status, reply.source, reply.cost_usd) == ("Hello", "ok", "provider", 0.0)


def test_one_answer_serves_all_calls_and_several_one_each_the_last_for_the_rest(double: Double) -> None:
    double.answers("always")
    assert [chat(double).text for _ in range(2)] == ["always"] * 2
    assert (chat(double).finish_reason, chat(double).tool_calls) == ("stop", [])

    double.answers("first", "second")
    assert [chat(double).text for _ in range(3)] == ["first", "second", "second"]


def test_an_answer_may_be_a_body_a_reply_an_error_or_made_of_the_call(double: Double) -> None:
    body = {"choices": [{"message": {"content": "42"}}], "usage": {"total_tokens": 7}}
    double.answers(
        body,
        Reply(id="any", status="ok", source="cache", body=body),
        RateLimited("later"),
        lambda call: call.prompt.upper(),
    )

    first = chat(double, model="groq/llama")
    assert (first.text, first.usage.total_tokens, first.model) == ("42", 7, "groq/llama")
    second = chat(double, request_id="mine")
    assert (second.id, second.source) == ("mine", "cache")
    with pytest.raises(RateLimited, match="later"):
        chat(double)
    assert chat(double, "loud").text == "LOUD"


def test_a_body_can_be_named(double: Double) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    double.answers(body={"choices": [{"message": {"content": None, "tool_calls": [call]}}]})

    reply = chat(double)

    assert reply.text == ""
    assert reply.tool_calls == [call]
    assert reply.finish_reason is None


def test_answers_can_be_for_some_calls_and_the_last_word_comes_first(double: Double) -> None:
    double.answers("anything")
    double.answers("code", when=lambda call: call.task == "code")
    double.answers("a review", when="diff")

    assert chat(double, "this diff", task="code").text == "a review"
    assert chat(double, "that", task="code").text == "code"
    assert chat(double, "that").text == "anything"


def test_it_fails_as_it_is_told(double: Double) -> None:
    double.fails(ContentFiltered("not that"), when="bad")

    with pytest.raises(ContentFiltered, match="not that"):
        chat(double, "bad words")
    assert chat(double, "good words").text == "good words"


def test_the_calls_are_there_to_be_looked_at(double: Double) -> None:
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Review this"}]
    chat(
        double, messages,
        model="groq/llama", task="code", priority="high", timeout=5, cache="join", cache_ttl_s=9,
        cache_scope="agent", constraints={"max_cost_usd": 1}, request_id="mine",
        temperature=0.2, max_tokens=9,
    )  # fmt: skip

    [call] = double.calls
    assert isinstance(call, Call)
    assert call.prompt == "Review this"
    assert list(call.messages) == messages
    assert (call.model, call.task, call.priority, call.timeout) == ("groq/llama", "code", "high", 5)
    assert (call.cache, call.cache_ttl_s, call.cache_scope) == ("join", 9, "agent")
    assert call.constraints.max_cost_usd == 1
    assert call.request_id == "mine"
    assert call.params == {"temperature": 0.2, "max_tokens": 9}


def test_many_are_answered_in_order(double: Double) -> None:
    double.fails(RateLimited("later"), when="two")

    outcomes = map_(double, ["one", "two", "three"], return_errors=True, progress=True)

    assert [o.text if isinstance(o, Reply) else type(o) for o in outcomes] == ["one", RateLimited, "three"]
    assert [call.prompt for call in double.calls] == ["one", "two", "three"]
    with pytest.raises(RateLimited):
        map_(double, ["one", "two"])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"priority": "urgent"}, "priority"),
        ({"cache": "sometimes"}, "cache"),
        ({"constraints": {"nonsense": 1}}, "nonsense"),
        ({"tools": {1}}, "JSON"),
        ({"stop": "x" * (9 << 20)}, "more than the limit"),
    ],
)
def test_what_the_client_refuses_the_double_refuses(
    double: Double, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest, match=field):
        chat(double, **options)
    assert double.calls == []


def test_what_the_client_does_not_accept_the_double_does_not(double: Double) -> None:
    with pytest.raises(InvalidRequest, match="agent"):
        type(double)("Not a name")
    with pytest.raises(ValueError, match="at least one answer"):
        double.answers()


def submit_and_take(double: Double, prompt: str, **options: Any) -> tuple[Submitted, Reply]:
    """Submits, looks at the reply and takes it."""
    if isinstance(double, OptimizerDouble):
        job = double.submit(prompt, **options)
        assert double.result(str(job), keep=True) == double.result(job, keep=True)
        return job, double.result(job)

    async def ask(double: AsyncOptimizerDouble) -> tuple[Submitted, Reply]:
        async with double:
            job = await double.submit(prompt, **options)
            assert await double.result(str(job), keep=True) == await double.result(job, keep=True)
            return job, await double.result(job)

    return asyncio.run(ask(double))


def test_a_submitted_request_has_its_result_once(double: Double) -> None:
    double.answers("Done")

    job, reply = submit_and_take(double, "Long work", priority="batch", timeout=3600.0, request_id="mine")

    assert (job.id, job.agent, reply.id, reply.text) == ("mine", "quality", "mine", "Done")
    [call] = double.calls
    assert (call.prompt, call.priority, call.timeout) == ("Long work", "batch", 3600.0)


def test_a_result_of_what_was_never_submitted_or_taken_already_is_refused() -> None:
    with OptimizerDouble("quality") as double:
        job = double.submit("Long work")
        double.result(job)
        for asked in (job, "never"):
            with pytest.raises(UnknownJob):
                double.result(asked)


def test_a_submitted_request_that_fails_says_so_in_its_result() -> None:
    with OptimizerDouble("quality") as double:
        double.fails(RateLimited("spent until noon"))
        job = double.submit("Long work")
        with pytest.raises(RateLimited):
            double.result(job)


def test_nothing_waits_so_nothing_can_be_called_off(double: Double) -> None:
    assert not double.cancel("any")
    assert double.reply_to.startswith("reply.")


def test_a_blocking_double_can_be_closed_like_the_client() -> None:
    with OptimizerDouble("quality") as double:
        assert double.chat("Hello").text == "Hello"
    with pytest.raises(RuntimeError, match="closed"):
        double.chat("Hello")


async def test_an_asyncio_double_must_be_open_like_the_client() -> None:
    double = AsyncOptimizerDouble("quality")
    with pytest.raises(RuntimeError, match="open the client first"):
        await double.chat("Hello")
    async with double:
        with pytest.raises(RuntimeError, match="open already"):
            await double.__aenter__()


def test_an_agent_is_tested_without_a_broker() -> None:
    def review(optimizer: Optimizer, diff: str) -> str | None:
        try:
            return optimizer.chat(f"Review: {diff}", task="code", priority="high").text
        except OptimizerError as error:
            return None if error.retryable else "refused"

    double = OptimizerDouble("quality")
    double.answers("Looks good", RateLimited("spent until noon"), ContentFiltered("no"))

    assert [review(double, "a diff") for _ in range(3)] == ["Looks good", None, "refused"]
    assert {(call.task, call.priority) for call in double.calls} == {("code", "high")}
