"""What a call asks for: from a method's arguments to the request that travels."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from producer_sdk.core import OnWait
from producer_sdk.durable import Submitted, checked_job_queue
from producer_sdk.errors import InvalidRequest
from producer_sdk.transport import Outgoing
from topology import names
from topology.declaration import JOB_REPLY_EXPIRES_S
from topology.errors import Refused
from topology.messages import Cancel, Constraints, Request, new_id
from topology.names import Priority

DEFAULT_TIMEOUT_S: Final = 600.0
SUBMIT_TIMEOUT_S: Final = 86400.0
CONFIRM_TIMEOUT_S: Final = 60.0
_LONGEST_SUBMIT_S: Final = JOB_REPLY_EXPIRES_S - 86400.0
"""The queue of its reply must outlive a durable request, by the time in which somebody comes for it."""

Message = Mapping[str, Any]
Prompt = str | Sequence[Message]
PriorityName = Literal["high", "normal", "batch"]
CacheName = Literal["use", "refresh", "join", "off"]
ScopeName = Literal["fleet", "agent"]
ConstraintsLike = Constraints | Mapping[str, Any] | None


def checked_agent(agent: str) -> str:
    """The name of an agent.

    Raises:
        InvalidRequest: It cannot be one.
    """
    if not names.is_agent_name(agent):
        raise InvalidRequest(f"agent: {agent!r} is not 1 to 64 of a-z, 0-9, '_' and '-'")
    return agent


@dataclass(frozen=True)
class Asked:
    """A call as a driver takes it.

    Attributes:
        timeout: Seconds within which the request ends.
        on_wait: Whom to tell what it waits for.
        confirm_timeout: Seconds within which a durable request is handed over.
    """

    request: Request
    priority: Priority
    timeout: float
    on_wait: OnWait | None
    confirm_timeout: float = math.inf

    @property
    def patience_s(self) -> float:
        """How long its caller waits at most, in seconds."""
        return min(self.timeout, self.confirm_timeout)


def ask_chat(
    agent: str,
    agent_type: str | None,
    prompt: Prompt,
    /,
    *,
    model: str = "auto",
    task: str | None = None,
    priority: str = "normal",
    timeout: float = DEFAULT_TIMEOUT_S,
    cache: str = "use",
    cache_ttl_s: float | None = None,
    cache_scope: str = "fleet",
    constraints: ConstraintsLike = None,
    on_wait: OnWait | None = None,
    request_id: str | None = None,
    **params: Any,
) -> Asked:
    """What a `chat` asks for; see there for what the arguments mean.

    Raises:
        InvalidRequest: A field cannot be what it is; the text names it.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    value = {
        "id": new_id() if request_id is None else request_id,
        "agent": agent,
        "agent_type": agent_type,
        "model": model,
        "params": {"messages": messages, **params},
        "task": task,
        "deadline": time.time() + timeout,
        "cache": cache,
        "cache_ttl_s": cache_ttl_s,
        "cache_scope": cache_scope,
        "constraints": constraints or Constraints(),
        "tell_waits": on_wait is not None,
    }
    try:
        request = Request.from_value(value)
    except Refused as refused:
        raise InvalidRequest(refused.message) from None
    return Asked(request, checked_priority(priority), timeout, on_wait)


def ask_submit(
    agent: str,
    agent_type: str | None,
    prompt: Prompt,
    /,
    *,
    timeout: float = SUBMIT_TIMEOUT_S,
    confirm_timeout: float = CONFIRM_TIMEOUT_S,
    **options: Any,
) -> Asked:
    """What a `submit` asks for; see there for what the arguments mean.

    Raises:
        InvalidRequest: A field cannot be what it is; the text names it.
    """
    if timeout > _LONGEST_SUBMIT_S:
        raise InvalidRequest(
            f"timeout: {timeout:g} s is more than {_LONGEST_SUBMIT_S:g}; the place for the reply is kept for "
            f"{JOB_REPLY_EXPIRES_S:g} s"
        )
    if "on_wait" in options:
        raise InvalidRequest("on_wait: nobody waits for a submitted request; leave it out")
    asked = ask_chat(agent, agent_type, prompt, timeout=timeout, **options)
    request = asked.request.model_copy(update={"durable": True})
    return replace(asked, request=request, confirm_timeout=confirm_timeout)


def handle_of(request: Request) -> Submitted:
    """What names a durable request from now on."""
    return Submitted(request.id, request.agent, request.deadline or 0.0)


def checked_room(at_once: int) -> int:
    """How many calls of a `map` may wait at the same time.

    Raises:
        InvalidRequest: None may.
    """
    if at_once < 1:
        raise InvalidRequest(f"at_once: {at_once} leaves room for no call; give 1 or more")
    return at_once


def checked_priority(priority: str) -> Priority:
    """The priority of that name.

    Raises:
        InvalidRequest: There is none.
    """
    try:
        return Priority(priority)
    except ValueError:
        raise InvalidRequest(f"priority: {priority!r} is none of {', '.join(Priority)}") from None


def request_message(request: Request, priority: Priority, reply_to: str) -> Outgoing:
    """The request as it is published.

    Args:
        request: What is asked.
        priority: How urgent it is.
        reply_to: The client's callback queue; a durable request has a queue of its own instead.

    Raises:
        InvalidRequest: It is larger than a request may be, or holds what cannot be sent.
    """
    try:
        body = request.to_bytes()
    except Refused as refused:
        raise InvalidRequest(refused.message) from None
    return Outgoing(
        names.REQUESTS,
        names.request_key(priority, request.agent),
        body,
        correlation_id=request.id,
        reply_to=checked_job_queue(request.agent, request.id) if request.durable else reply_to,
        app_id=request.agent,
    )


def cancel_message(request: Outgoing) -> Outgoing:
    """What withdraws a request: published like it, so that it comes behind it in the same queue."""
    return _cancel(request.routing_key, request.app_id or "", request.correlation_id or "")


def cancel_submitted(job: Submitted) -> Outgoing:
    """What withdraws a submitted request. Its priority is not known; a front remembers what overtakes."""
    return _cancel(names.request_key(Priority.HIGH, job.agent), job.agent, job.id)


def _cancel(routing_key: str, agent: str, id_: str) -> Outgoing:
    return Outgoing(
        names.REQUESTS,
        routing_key,
        Cancel(id=id_).to_bytes(),
        correlation_id=id_,
        app_id=agent,
        mandatory=False,
        type=names.CANCEL_TYPE,
    )
