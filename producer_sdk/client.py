"""The asyncio client of one agent."""

import asyncio
import os
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal, Self, overload

from producer_sdk.amqp_url import read_amqp_url
from producer_sdk.asking import (
    DEFAULT_TIMEOUT_S,
    CacheName,
    ConstraintsLike,
    PriorityName,
    Prompt,
    ScopeName,
    ask_chat,
    checked_agent,
    checked_room,
)
from producer_sdk.calls import AsyncCalls
from producer_sdk.core import OnWait
from producer_sdk.durable import Submitted
from producer_sdk.errors import OptimizerError
from producer_sdk.progress import Progress
from producer_sdk.settings import find_amqp_url
from producer_sdk.submitting import AsyncSubmitting
from topology import names
from topology.messages import Reply, new_id


class AsyncOptimizer(AsyncSubmitting):
    """An agent's door to the fleet's providers.

    Entering starts the connections without waiting for them; each call has its own timeout, which is
    never exceeded, whatever the brokers do. Safe to share among any number of tasks.

    Args:
        agent: Who asks: 1 to 64 of a-z, 0-9, `_`, `-`.
        agent_type: What kind of agent it is; for reports.
        url: RabbitMQ's URL; None: `OPTIMIZER_AMQP_URL`, then the nearest `.optimizer/env`.
        client: A name that tells this process's callback queue from others of the agent; None: the pid.

    Raises:
        InvalidRequest: The agent's name, or the URL, cannot be one.
        Overloaded: No URL is known.
    """

    def __init__(
        self,
        agent: str,
        *,
        agent_type: str | None = None,
        url: str | None = None,
        client: str | None = None,
    ) -> None:
        self.agent = checked_agent(agent)
        self.agent_type = agent_type
        reply_to = names.reply_queue(agent, names.slug(client or f"p{os.getpid()}"), new_id()[-12:])
        broker = find_amqp_url(url)
        read_amqp_url(broker)
        self._calls = AsyncCalls(broker, f"agent {agent}", reply_to)

    async def __aenter__(self) -> Self:
        await self._calls.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._calls.__aexit__(kind, error, trace)

    @property
    def reply_to(self) -> str:
        """The callback queue of this client."""
        return self._calls.reply_to

    async def chat(
        self,
        prompt: Prompt,
        *,
        model: str = "auto",
        task: str | None = None,
        priority: PriorityName = "normal",
        timeout: float = DEFAULT_TIMEOUT_S,
        cache: CacheName = "use",
        cache_ttl_s: float | None = None,
        cache_scope: ScopeName = "fleet",
        constraints: ConstraintsLike = None,
        on_wait: OnWait | None = None,
        request_id: str | None = None,
        **params: Any,
    ) -> Reply:
        """Asks a model and waits for the answer.

        Identical requests are shared by default: the answer may come from the cache, or from the same
        call that another agent waits for; `reply.source` tells. Whoever stops waiting (a cancelled task,
        `asyncio.timeout`, Ctrl-C) withdraws the request: what nobody else waits for is not bought.

        Args:
            prompt: A text, or a list of OpenAI messages.
            model: `provider/model`, a bare model, or `auto`.
            task: What it is for (`code`, `reasoning`, `general`, ...); guides `auto`.
            priority: `high`, `normal` or `batch`.
            timeout: Seconds within which the call ends, in an answer or in an error.
            cache: `use`, `refresh` (a new answer), `join` (share running calls only), `off`.
            cache_ttl_s: How old an answer may be, in seconds; None: the fleet's setting.
            cache_scope: Share with the whole `fleet`, or only within this `agent`.
            constraints: Such as `{"required_capabilities": ["tools"]}`.
            on_wait: Called with a `Waiting` each time the request is found to wait: for which limit, until
                when, at which position, as far as known.
            request_id: A name of one's own for `cancel` and for the events; None: a new one. The same id
                again is the same request again.
            params: The rest of the OpenAI body: `temperature`, `max_tokens`, `tools`, ...

        Raises:
            OptimizerError: Its subclasses say what happened and whether to try again.
        """
        asked = ask_chat(
            self.agent,
            self.agent_type,
            prompt,
            model=model,
            task=task,
            priority=priority,
            timeout=timeout,
            cache=cache,
            cache_ttl_s=cache_ttl_s,
            cache_scope=cache_scope,
            constraints=constraints,
            on_wait=on_wait,
            request_id=request_id,
            **params,
        )
        return await self._calls.call(asked.request, asked.priority, asked.timeout, asked.on_wait)

    @overload
    async def map(
        self,
        prompts: Iterable[Prompt],
        *,
        progress: bool = ...,
        at_once: int = ...,
        return_errors: Literal[False] = ...,
        **options: Any,
    ) -> list[Reply]: ...

    @overload
    async def map(
        self,
        prompts: Iterable[Prompt],
        *,
        progress: bool = ...,
        at_once: int = ...,
        return_errors: Literal[True],
        **options: Any,
    ) -> list[Reply | OptimizerError]: ...

    @overload
    async def map(
        self,
        prompts: Iterable[Prompt],
        *,
        progress: bool = ...,
        at_once: int = ...,
        return_errors: bool,
        **options: Any,
    ) -> list[Reply] | list[Reply | OptimizerError]: ...

    async def map(
        self,
        prompts: Iterable[Prompt],
        *,
        progress: bool = False,
        at_once: int = 500,
        return_errors: bool = False,
        **options: Any,
    ) -> list[Reply] | list[Reply | OptimizerError]:
        """Asks many at once, and returns the replies in the order of the prompts.

        Args:
            prompts: One for each call.
            progress: Show a bar on stderr: done, shared, errors, cost.
            at_once: How many wait for answers at the same time, at most.
            return_errors: Put a call's `OptimizerError` in its place. False: the first one ends all, and
                what is still waiting is withdrawn.
            options: What `chat` takes, the same for each.

        Raises:
            OptimizerError: The first that happened, unless `return_errors`.
        """
        asked = list(prompts)
        room = asyncio.Semaphore(checked_room(at_once))
        with Progress(len(asked), shown=progress) as bar:

            async def ask(prompt: Prompt) -> Reply | OptimizerError:
                async with room:
                    try:
                        reply = await self.chat(prompt, **options)
                    except OptimizerError as error:
                        bar.failed()
                        if return_errors:
                            return error
                        raise
                bar.answered(reply)
                return reply

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(ask(prompt), name="map") for prompt in asked]
            except* OptimizerError as errors:
                raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    def cancel(self, request_id: str | Submitted) -> bool:
        """Calls a waiting call off: it ends in `Cancelled`. False when none of that id waits here.

        Given what `submit` returned, it withdraws that request, wherever it is: its reply is then the error
        `Cancelled`, unless it was answered before. False: RabbitMQ is away, and hears of it once it is back,
        if this client is open then.
        """
        if isinstance(request_id, Submitted):
            return self._calls.withdraw_job(request_id)
        return self._calls.cancel(request_id)
