"""The way back of a copy in `dead.kept`: to the entrance, as a request that a front has verified."""

import time

from broker.kept import Copy
from producer_sdk.transport import Outgoing
from topology import names
from topology.messages import Cancel, Envelope, Job, Request, Waiter
from topology.wire import WireMessage, unpack


class NoWayBack(ValueError):
    """A copy that cannot be replayed; the text says why, and what would help."""


def replayed(copy: Copy, timeout_s: float | None) -> Outgoing:
    """The message that brings it back; a job, too, is routed anew, and joins what became of its flight.

    Args:
        copy: With its body.
        timeout_s: Seconds from now that its new deadline lies ahead; None: it keeps its own.

    Raises:
        Refused: The body cannot be read.
        NoWayBack: It is no request, nobody can be answered, or its deadline is past.
    """
    message = read(copy)
    match message:
        case Job() | Envelope():
            request, waiter = message.request, message.waiter
        case Request():
            request, waiter = message, _sender(copy, message)
        case _:
            raise NoWayBack("it is no request")
    now = time.time()
    if timeout_s is not None:
        waiter = waiter.model_copy(update={"deadline": now + timeout_s})
        request = request.model_copy(update={"deadline": now + timeout_s})
    elif waiter.deadline <= now:
        raise NoWayBack(
            f"its deadline passed {now - waiter.deadline:.0f} s ago; --timeout gives it a new one, in seconds"
        )
    body = Envelope(request=request, waiter=waiter).to_bytes()
    return Outgoing(names.JOBS, names.requests_queue(waiter.priority), body, correlation_id=waiter.id)


def read(copy: Copy) -> WireMessage:
    """What the body is, by where it was.

    Raises:
        Refused: It is not that.
    """
    if names.is_jobs_queue(copy.queue):
        return Job.from_bytes(copy.body)
    if copy.headers.get("x-type") == names.CANCEL_TYPE:
        return Cancel.from_bytes(copy.body)
    if "waiter" in unpack(copy.body) and copy.headers.get("x-routing-key") == copy.queue:
        return Envelope.from_bytes(copy.body)
    return Request.from_bytes(copy.body)


def _sender(copy: Copy, request: Request) -> Waiter:
    """Who sent a request that no front had seen: checked as a front does."""
    try:
        priority, agent = names.speaker_of(str(copy.headers.get("x-routing-key", "")))
    except ValueError as error:
        raise NoWayBack(f"routing key: {error}") from None
    reply_to = str(copy.headers.get("x-reply-to", ""))
    if not names.may_reply_to(agent, reply_to):
        raise NoWayBack(f"reply_to: {reply_to!r} is not a queue of agent {agent!r}")
    if (request.agent, request.id) != (agent, copy.request_id):
        raise NoWayBack("agent and id are not those of the routing key and of the correlation_id")
    now = time.time()
    return Waiter(
        agent=agent,
        id=request.id,
        reply_to=reply_to,
        priority=priority,
        deadline=request.deadline or copy.kept_at or now,
        queued_at=copy.kept_at or now,
        stream=request.stream,
        durable=request.durable,
        tell_waits=request.tell_waits,
    )
