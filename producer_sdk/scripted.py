"""What stands in for the drivers of the two clients' doubles: calls come to what a test has said."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from producer_sdk.asking import Asked, Message, request_message
from producer_sdk.core import Answered, Failed, HandedOver, OnWait
from producer_sdk.drivers import OnEnded, Told
from producer_sdk.durable import Submitted, Taking
from producer_sdk.errors import OptimizerError
from topology.messages import CacheMode, CacheScope, Constraints, Reply, Request, Source, Usage
from topology.names import Priority

if TYPE_CHECKING:
    from queue import SimpleQueue


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


class Script:
    """What calls come to, and which there were. May be used from any thread."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._kept: dict[str, Reply | OptimizerError] = {}
        self._rules: deque[tuple[When | None, deque[Answer]]] = deque()
        self._lock = threading.Lock()

    def add(self, answers: tuple[Answer, ...], when: When | None) -> None:
        """What calls are answered with from now on."""
        if not answers:
            raise ValueError("give at least one answer")
        with self._lock:
            self._rules.appendleft((when, deque(answers)))

    def outcome(self, request: Request, priority: Priority, timeout: float) -> Reply | OptimizerError:
        """What a call comes to; it is noted."""
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

    def submit(self, request: Request, priority: Priority, timeout: float) -> None:
        """The same id again is the same request."""
        if request.id not in self._kept:
            self._kept[request.id] = self.outcome(request, priority, timeout)

    def result(self, taking: Taking, *, keep: bool) -> Reply | OptimizerError:
        """What a submitted call came to; it is given once, unless it is kept."""
        with self._lock:
            outcome = self._kept.get(taking.id) if keep else self._kept.pop(taking.id, None)
        return outcome or taking.unknown()

    def _answer_to(self, call: Call) -> Answer:
        for when, answers in self._rules:
            if when is None or (when in call.prompt if isinstance(when, str) else when(call)):
                return answers.popleft() if len(answers) > 1 else answers[0]
        return call.prompt


class ScriptedCalls:
    """The driver of `OptimizerDouble`; see `Calls`. No call ever waits."""

    def __init__(self, script: Script) -> None:
        self.reply_to = "reply.double"
        self._script = script

    def start(self) -> None:
        """See `Calls`."""

    def begin(self, asked: Asked, told: "SimpleQueue[Told]") -> None:
        """See `Calls`."""
        request_message(asked.request, asked.priority, self.reply_to)
        if asked.request.durable:
            self._script.submit(asked.request, asked.priority, asked.timeout)
            told.put(HandedOver(asked.request.id))
            return
        outcome = self._script.outcome(asked.request, asked.priority, asked.timeout)
        id_ = asked.request.id
        told.put(Answered(id_, outcome) if isinstance(outcome, Reply) else Failed(id_, outcome))

    def forget(self, _: str) -> None:
        """See `Calls`."""

    def cancel(self, _: str) -> bool:
        """See `Calls`."""
        return False

    def look(self, taking: Taking, told: OnEnded, *, keep: bool) -> Callable[[], None]:
        """See `Calls`."""
        told(self._script.result(taking, keep=keep))
        return lambda: None

    def withdraw_job(self, _: Submitted) -> bool:
        """See `Calls`."""
        return True

    def close(self) -> None:
        """See `Calls`."""


class AsyncScriptedCalls:
    """The driver of `AsyncOptimizerDouble`; see `AsyncCalls`. No call waits longer than a turn."""

    def __init__(self, script: Script, reply_to: str) -> None:
        self._script = script
        self.reply_to = reply_to
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
        """See `AsyncCalls`."""
        self._check(request, priority)
        outcome = self._script.outcome(request, priority, timeout)
        await asyncio.sleep(0)
        if isinstance(outcome, OptimizerError):
            raise outcome
        return outcome

    async def submit(self, asked: Asked) -> None:
        """See `AsyncCalls`."""
        self._check(asked.request, asked.priority)
        self._script.submit(asked.request, asked.priority, asked.timeout)
        await asyncio.sleep(0)

    async def result(self, taking: Taking, *, keep: bool) -> Reply:
        """See `AsyncCalls`."""
        self._check()
        outcome = self._script.result(taking, keep=keep)
        await asyncio.sleep(0)
        if isinstance(outcome, OptimizerError):
            raise outcome
        return outcome

    def withdraw_job(self, _: Submitted) -> bool:
        """See `AsyncCalls`."""
        return self._open

    def cancel(self, _: str) -> bool:
        """See `AsyncCalls`."""
        return False

    def _check(self, request: Request | None = None, priority: Priority = Priority.NORMAL) -> None:
        if not self._open:
            raise RuntimeError("open the client first: async with AsyncOptimizer(...) as optimizer:")
        if request is not None:
            request_message(request, priority, self.reply_to)


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
