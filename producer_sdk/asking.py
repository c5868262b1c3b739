"""What a call asks for: from a method's arguments to the request that travels."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from producer_sdk.core import OnWait
from producer_sdk.errors import InvalidRequest
from producer_sdk.transport import Outgoing
from topology import names
from topology.errors import Refused
from topology.messages import Cancel, Constraints, Request, new_id
from topology.names import Priority

DEFAULT_TIMEOUT_S: Final = 600.0

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
        timeout: Seconds within which it ends.
        on_wait: Whom to tell what it waits for.
    """

    request: Request
    priority: Priority
    timeout: float
    on_wait: OnWait | None


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
        reply_to=reply_to,
        app_id=request.agent,
    )


def cancel_message(request: Outgoing) -> Outgoing:
    """What withdraws a request: published like it, so that it comes behind it in the same queue."""
    id_ = request.correlation_id or ""
    return Outgoing(
        request.exchange,
        request.routing_key,
        Cancel(id=id_).to_bytes(),
        correlation_id=id_,
        app_id=request.app_id,
        mandatory=False,
        type=names.CANCEL_TYPE,
    )
