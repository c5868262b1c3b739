"""What both clients do for requests that outlive them: handing one over, and taking its reply."""

import asyncio
import time
from abc import abstractmethod
from typing import Any

from producer_sdk.asking import (
    CONFIRM_TIMEOUT_S,
    DEFAULT_TIMEOUT_S,
    SUBMIT_TIMEOUT_S,
    CacheName,
    ConstraintsLike,
    PriorityName,
    Prompt,
    ScopeName,
    ask_submit,
    handle_of,
)
from producer_sdk.awaiting import Awaited, take
from producer_sdk.calls import AsyncCalls
from producer_sdk.drivers import Calls
from producer_sdk.durable import Submitted, Taking
from topology.messages import Reply


class AsyncSubmitting:
    """The part of the asyncio client."""

    agent: str
    agent_type: str | None
    _calls: AsyncCalls

    async def submit(
        self,
        prompt: Prompt,
        *,
        model: str = "auto",
        task: str | None = None,
        priority: PriorityName = "normal",
        timeout: float = SUBMIT_TIMEOUT_S,
        confirm_timeout: float = CONFIRM_TIMEOUT_S,
        cache: CacheName = "use",
        cache_ttl_s: float | None = None,
        cache_scope: ScopeName = "fleet",
        constraints: ConstraintsLike = None,
        request_id: str | None = None,
        **params: Any,
    ) -> Submitted:
        """Hands a durable request over, and returns once RabbitMQ has taken it.

        From then on it outlives this process, the workers and the brokers. Its answer, or its error, waits
        for `result` in a queue of its own, for 7 days. Whoever is stopped in the middle asks again with the
        same `request_id`: it is the same request. Nothing but `cancel` withdraws it.

        Args:
            prompt: As for `chat`.
            model: As for `chat`.
            task: As for `chat`.
            priority: As for `chat`.
            timeout: Seconds within which it is to be answered, at most 6 days.
            confirm_timeout: Seconds within which RabbitMQ is to take it.
            cache: As for `chat`.
            cache_ttl_s: As for `chat`.
            cache_scope: As for `chat`.
            constraints: As for `chat`.
            request_id: A name of one's own, of letters, digits, `_`, `.`, `:` and `-`; None: a new one.
            params: As for `chat`.

        Raises:
            Overloaded: It could not be handed over in time; the message says why.
            OptimizerError: As for `chat`.
        """
        asked = ask_submit(
            self.agent,
            self.agent_type,
            prompt,
            model=model,
            task=task,
            priority=priority,
            timeout=timeout,
            confirm_timeout=confirm_timeout,
            cache=cache,
            cache_ttl_s=cache_ttl_s,
            cache_scope=cache_scope,
            constraints=constraints,
            request_id=request_id,
            **params,
        )
        await self._calls.submit(asked)
        return handle_of(asked.request)

    async def result(
        self, job: Submitted | str, *, timeout: float = DEFAULT_TIMEOUT_S, keep: bool = False
    ) -> Reply:
        """Waits for the reply of a submitted request, and takes it; any process of the agent may.

        The reply goes with its queue, in one step, just before this returns: a process that dies before has
        not taken it, and one that dies after has. Of several that ask at once one takes it; the others
        wait, and end in `UnknownJob`.

        Args:
            job: What `submit` returned, or its id alone.
            timeout: Seconds to wait. The handle's deadline ends the wait as well; an id alone has none.
            keep: Leave the reply where it is, for who asks again.

        Raises:
            UnknownJob: No reply is kept for it: never submitted, taken already, or too old.
            DeadlineExceeded: No reply within `timeout`, or by its deadline; the message says which.
            Overloaded: RabbitMQ could not be asked in time.
            OptimizerError: What the request came to.
        """
        taking = Taking(self.agent, job, timeout, asyncio.get_running_loop().time())
        return await self._calls.result(taking, keep=keep)


class Submitting:
    """The part of the blocking client."""

    agent: str
    agent_type: str | None

    @abstractmethod
    def _driver(self) -> Calls:
        """What carries this process's calls."""

    def submit(
        self,
        prompt: Prompt,
        *,
        model: str = "auto",
        task: str | None = None,
        priority: PriorityName = "normal",
        timeout: float = SUBMIT_TIMEOUT_S,
        confirm_timeout: float = CONFIRM_TIMEOUT_S,
        cache: CacheName = "use",
        cache_ttl_s: float | None = None,
        cache_scope: ScopeName = "fleet",
        constraints: ConstraintsLike = None,
        request_id: str | None = None,
        **params: Any,
    ) -> Submitted:
        """Hands a durable request over, and returns once RabbitMQ has taken it.

        From then on it outlives this process, the workers and the brokers. Its answer, or its error, waits
        for `result` in a queue of its own, for 7 days. Whoever is stopped in the middle asks again with the
        same `request_id`: it is the same request. Nothing but `cancel` withdraws it.

        Args:
            prompt: As for `chat`.
            model: As for `chat`.
            task: As for `chat`.
            priority: As for `chat`.
            timeout: Seconds within which it is to be answered, at most 6 days.
            confirm_timeout: Seconds within which RabbitMQ is to take it.
            cache: As for `chat`.
            cache_ttl_s: As for `chat`.
            cache_scope: As for `chat`.
            constraints: As for `chat`.
            request_id: A name of one's own, of letters, digits, `_`, `.`, `:` and `-`; None: a new one.
            params: As for `chat`.

        Raises:
            Overloaded: It could not be handed over in time; the message says why.
            OptimizerError: As for `chat`.
        """
        asked = ask_submit(
            self.agent,
            self.agent_type,
            prompt,
            model=model,
            task=task,
            priority=priority,
            timeout=timeout,
            confirm_timeout=confirm_timeout,
            cache=cache,
            cache_ttl_s=cache_ttl_s,
            cache_scope=cache_scope,
            constraints=constraints,
            request_id=request_id,
            **params,
        )
        with Awaited(self._driver()) as awaited:
            awaited.begin(asked)
            awaited.handed_over()
        return handle_of(asked.request)

    def result(
        self, job: Submitted | str, *, timeout: float = DEFAULT_TIMEOUT_S, keep: bool = False
    ) -> Reply:
        """Waits for the reply of a submitted request, and takes it; any process of the agent may.

        The reply goes with its queue, in one step, just before this returns: a process that dies before has
        not taken it, and one that dies after has. Of several that ask at once one takes it; the others
        wait, and end in `UnknownJob`.

        Args:
            job: What `submit` returned, or its id alone.
            timeout: Seconds to wait. The handle's deadline ends the wait as well; an id alone has none.
            keep: Leave the reply where it is, for who asks again.

        Raises:
            UnknownJob: No reply is kept for it: never submitted, taken already, or too old.
            DeadlineExceeded: No reply within `timeout`, or by its deadline; the message says which.
            Overloaded: RabbitMQ could not be asked in time.
            OptimizerError: What the request came to.
        """
        return take(self._driver(), Taking(self.agent, job, timeout, time.monotonic()), keep=keep)
