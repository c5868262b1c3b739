"""The blocking client of one agent."""

import os
import weakref
from collections.abc import Iterable
from itertools import islice
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
from producer_sdk.awaiting import Awaited
from producer_sdk.core import OnWait
from producer_sdk.drivers import Calls
from producer_sdk.durable import Submitted
from producer_sdk.errors import OptimizerError
from producer_sdk.lifetimes import DRIVERS, OPENING
from producer_sdk.pika_calls import PikaCalls
from producer_sdk.progress import Progress
from producer_sdk.settings import find_amqp_url
from producer_sdk.submitting import Submitting
from topology import names
from topology.messages import Reply, new_id


class Optimizer(Submitting):
    """An agent's door to the fleet's providers, for code without asyncio.

    The connections open with the first call, or on entering, in a thread of the client's own, and nothing
    waits for them; each call has its own timeout, which is never exceeded, whatever the brokers do. Any
    number of threads may share one. In a process that was forked, the next call opens connections of its
    own. Leaving, or `close`, ends the calls that still wait in `Cancelled`.

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
        self._url = read_amqp_url(find_amqp_url(url))
        self._client = client
        self._closed = False
        self._calls: PikaCalls | None = None

    def __enter__(self) -> Self:
        self._driver().start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def reply_to(self) -> str:
        """The callback queue of this process."""
        return self._driver().reply_to

    def close(self) -> None:
        """Ends the calls that still wait in `Cancelled`; later ones raise `RuntimeError`.

        Takes a few seconds at most. What was published is done all the same, and its answer is there for
        the next who asks. Closing twice is harmless.
        """
        with OPENING:
            self._closed = True
            calls = self._calls
        if calls is not None:
            calls.close()

    def chat(
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
        with Awaited(self._driver()) as awaited:
            awaited.begin(asked)
            _, outcome = awaited.next()
        if isinstance(outcome, OptimizerError):
            raise outcome
        return outcome

    @overload
    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        progress: bool = ...,
        at_once: int = ...,
        return_errors: Literal[False] = ...,
        **options: Any,
    ) -> list[Reply]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        progress: bool = ...,
        at_once: int = ...,
        return_errors: Literal[True],
        **options: Any,
    ) -> list[Reply | OptimizerError]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        progress: bool = ...,
        at_once: int = ...,
        return_errors: bool,
        **options: Any,
    ) -> list[Reply] | list[Reply | OptimizerError]: ...

    def map(
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
        outcomes: dict[int, Reply | OptimizerError] = {}
        numbers: dict[str, int] = {}
        rest = iter(range(len(asked)))
        with Progress(len(asked), shown=progress) as bar, Awaited(self._driver()) as awaited:

            def ended(number: int, outcome: Reply | OptimizerError) -> None:
                outcomes[number] = outcome
                if isinstance(outcome, Reply):
                    bar.answered(outcome)
                    return
                bar.failed()
                if not return_errors:
                    raise outcome

            room = checked_room(at_once)
            while len(outcomes) < len(asked):
                for number in islice(rest, room - len(numbers)):
                    try:
                        one = ask_chat(self.agent, self.agent_type, asked[number], **options)
                        awaited.begin(one)
                        numbers[one.request.id] = number
                    except OptimizerError as error:
                        ended(number, error)
                if numbers:
                    id_, outcome = awaited.next()
                    ended(numbers.pop(id_), outcome)
        return [outcomes[number] for number in range(len(asked))]

    def cancel(self, request_id: str | Submitted) -> bool:
        """Calls a waiting call off: it ends in `Cancelled`. False when none of that id waits here.

        Given what `submit` returned, it withdraws that request, wherever it is: its reply is then the error
        `Cancelled`, unless it was answered before. False: RabbitMQ is away, and hears of it once it is back,
        if this client is open then.
        """
        if isinstance(request_id, Submitted):
            return not self._closed and self._driver().withdraw_job(request_id)
        return not self._closed and self._driver().cancel(request_id)

    def _driver(self) -> Calls:
        """What carries this process's calls, made at the first use in it."""
        calls = self._calls
        if calls is not None and calls.pid == os.getpid() and not calls.is_closed:
            return calls
        with OPENING:
            if self._closed:
                raise RuntimeError("this client is closed; make a new one")
            calls = self._calls
            if calls is None or calls.pid != os.getpid() or calls.is_closed:
                client = names.slug(self._client or f"p{os.getpid()}")
                reply_to = names.reply_queue(self.agent, client, new_id()[-12:])
                calls = self._calls = PikaCalls(self._url, f"agent {self.agent}", reply_to)
                weakref.finalize(self, calls.close, 0.0).atexit = False  # nobody is left to call
                DRIVERS.add(calls)
            return calls
