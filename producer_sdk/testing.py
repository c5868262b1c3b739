"""Doubles of the two clients for an agent's own tests: no broker, no provider, no waiting.

They are the clients but for what carries the calls, so that arguments are checked, and refused, as ever::

    import pytest
    from producer_sdk import RateLimited
    from producer_sdk.testing import OptimizerDouble

    @pytest.fixture
    def optimizer():
        with OptimizerDouble("quality") as double:
            yield double

    def test_a_review_asks_for_code_at_high_priority(optimizer):
        optimizer.answers("Looks good")

        assert review(optimizer, "a diff") == "Looks good"
        [call] = optimizer.calls
        assert (call.task, call.priority) == ("code", "high")
        assert "a diff" in call.prompt

    def test_a_review_is_put_off_while_the_limit_is_spent(optimizer):
        optimizer.fails(RateLimited("spent until noon"))

        assert review(optimizer, "a diff") is None

A test that says nothing gets the prompt back as the answer.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

from producer_sdk.asking import Asked, Message, request_message
from producer_sdk.blocking import Optimizer
from producer_sdk.client import AsyncOptimizer
from producer_sdk.core import Answered, Failed, OnWait
from producer_sdk.errors import OptimizerError
from topology.messages import CacheMode, CacheScope, Constraints, Reply, Request, Source, Usage
from topology.names import Priority

if TYPE_CHECKING:
    from queue import SimpleQueue

    from producer_sdk.calls import AsyncCalls
    from producer_sdk.pika_calls import Told

_NOWHERE: Final = "amqp://localhost"


@dataclass(frozen=True)
class Call:
    """A call as the double took it.

    Attributes:
        prompt: The text of the last message.
        messages: All of them, as OpenAI's body has them.
        params: The rest of the OpenAI body.
        timeout: In seconds.
    """

    prompt: str
    messages: tuple[Message, ...]
    model: str
    task: str | None
    priority: Priority
    timeout: float
    cache: CacheMode
    cache_ttl_s: float | None
    cache_scope: CacheScope
    constraints: Constraints
    request_id: str
    params: Mapping[str, Any]


Given = str | Mapping[str, Any] | Reply | OptimizerError
Answer = Given | Callable[[Call], Given]
"""A text, an OpenAI body, a whole reply, an error, or what makes one of these of the call."""

When = str | Callable[[Call], bool]


class _Script:
    """What calls come to, and which there were. May be used from any thread."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._rules: deque[tuple[When | None, deque[Answer]]] = deque()
        self._lock = threading.Lock()

    def add(self, answers: tuple[Answer, ...], when: When | None) -> None:
        if not answers:
            raise ValueError("give at least one answer")
        with self._lock:
            self._rules.appendleft((when, deque(answers)))

    def outcome(self, request: Request, priority: Priority, timeout: float) -> Reply | OptimizerError:
        call = _call_of(request, priority, timeout)
        with self._lock:
            self.calls.append(call)
            answer = self._answer_to(call)
        given = answer(call) if callable(answer) else answer
        match given:
            case OptimizerError():
                return given
            case Reply():
                return given.model_copy(update={"id": request.id})
            case str():
                return _reply(request, {"choices": [_choice(given)]})
            case _:
                return _reply(request, dict(given))

    def _answer_to(self, call: Call) -> Answer:
        for when, answers in self._rules:
            if when is None or (when in call.prompt if isinstance(when, str) else when(call)):
                return answers.popleft() if len(answers) > 1 else answers[0]
        return call.prompt


class _Scripted:
    """What a test says to a double, and what it asks it."""

    _script: _Script

    @property
    def calls(self) -> list[Call]:
        """The calls so far, in the order they came."""
        return self._script.calls

    def answers(
        self, *answers: Answer, body: Mapping[str, Any] | None = None, when: When | None = None
    ) -> None:
        """What calls are answered with from now on; the rule that was given last comes first.

        Args:
            answers: One for each call, in their order; the last one for all that follow. Each is a text,
                an OpenAI body, a `Reply`, an error to raise, or a function of the `Call` that returns
                one of these.
            body: The same as an OpenAI body among them.
            when: For which calls: those with this text in their last message, or those that this
                function of the `Call` says yes to. None: all.
        """
        self._script.add(answers if body is None else (*answers, body), when)

    def fails(self, error: OptimizerError, *, when: When | None = None) -> None:
        """Calls end in this error from now on; `when` as for `answers`."""
        self._script.add((error,), when)


class OptimizerDouble(_Scripted, Optimizer):
    """Stands in for `Optimizer`. Takes the same arguments, and needs no URL."""

    def __init__(
        self,
        agent: str,
        *,
        agent_type: str | None = None,
        url: str | None = None,
        client: str | None = None,
    ) -> None:
        super().__init__(agent, agent_type=agent_type, url=url or _NOWHERE, client=client)
        self._script = _Script()
        self._scripted_calls = _ScriptedCalls(self._script)

    def _driver(self) -> "_ScriptedCalls":
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        return self._scripted_calls


class AsyncOptimizerDouble(_Scripted, AsyncOptimizer):
    """Stands in for `AsyncOptimizer`. Takes the same arguments, and needs no URL."""

    def __init__(
        self,
        agent: str,
        *,
        agent_type: str | None = None,
        url: str | None = None,
        client: str | None = None,
    ) -> None:
        super().__init__(agent, agent_type=agent_type, url=url or _NOWHERE, client=client)
        self._script = _Script()
        self._calls = cast("AsyncCalls", _AsyncScriptedCalls(self._script, self.reply_to))


class _ScriptedCalls:
    """The driver of `OptimizerDouble`; see `Calls`. No call ever waits."""

    def __init__(self, script: _Script) -> None:
        self.reply_to = "reply.double"
        self._script = script

    def start(self) -> None:
        pass

    def begin(self, asked: Asked, told: "SimpleQueue[Told]") -> None:
        request_message(asked.request, asked.priority, self.reply_to)
        outcome = self._script.outcome(asked.request, asked.priority, asked.timeout)
        id_ = asked.request.id
        told.put(Answered(id_, outcome) if isinstance(outcome, Reply) else Failed(id_, outcome))

    def forget(self, _: str) -> None:
        pass

    def cancel(self, _: str) -> bool:
        return False

    def close(self) -> None:
        pass


class _AsyncScriptedCalls:
    """The driver of `AsyncOptimizerDouble`; see `AsyncCalls`. No call waits longer than a turn."""

    def __init__(self, script: _Script, reply_to: str) -> None:
        self._script = script
        self._reply_to = reply_to
        self._open = False

    async def __aenter__(self) -> Self:
        if self._open:
            raise RuntimeError("this client is open already; make a second one instead")
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False

    async def call(
        self, request: Request, priority: Priority, timeout: float, _: OnWait | None = None
    ) -> Reply:
        if not self._open:
            raise RuntimeError("open the client first: async with AsyncOptimizer(...) as optimizer:")
        request_message(request, priority, self._reply_to)
        outcome = self._script.outcome(request, priority, timeout)
        await asyncio.sleep(0)
        if isinstance(outcome, OptimizerError):
            raise outcome
        return outcome

    def cancel(self, _: str) -> bool:
        return False


def _call_of(request: Request, priority: Priority, timeout: float) -> Call:
    params = dict(request.params)
    messages = tuple(params.pop("messages"))
    content = messages[-1].get("content", "") if messages and isinstance(messages[-1], Mapping) else ""
    return Call(
        prompt=content if isinstance(content, str) else str(content),
        messages=messages,
        model=request.model,
        task=request.task,
        priority=priority,
        timeout=timeout,
        cache=request.cache,
        cache_ttl_s=request.cache_ttl_s,
        cache_scope=request.cache_scope,
        constraints=request.constraints,
        request_id=request.id,
        params=params,
    )


def _reply(request: Request, body: dict[str, Any]) -> Reply:
    model = request.model if request.model != "auto" else "double"
    return Reply(
        id=request.id,
        status="ok",
        source=Source.PROVIDER,
        body={"object": "chat.completion", "model": model, **body},
        provider="double",
        model=model,
        usage=Usage.model_validate(body.get("usage") or {}),
        cost_usd=0.0,
        attempts=1,
    )


def _choice(text: str) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
