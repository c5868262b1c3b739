"""The client's decisions without any I/O: what is pending, when to send again, whom a reply wakes.

A driver carries: it publishes what `Transmit` and `Withdraw` name, and tells the caller what `Answered`,
`Failed` and `Waits` say. Times are seconds of the driver's monotonic clock, which is the authority on
every deadline.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from producer_sdk.errors import Cancelled, DeadlineExceeded, OptimizerError, Overloaded, error_of
from topology.errors import Refused
from topology.messages import Reply, Waiting
from topology.wire import unpack

FIRST_SILENCE_S: Final = 30.0
LONGEST_SILENCE_S: Final = 600.0
REFUSED_AGAIN_S: Final = 1.0

OnWait = Callable[[Waiting], object]
"""What a caller gives as `on_wait`: called with why the request waits, each time that changes."""


@dataclass(frozen=True)
class Transmit:
    """Publish this request, for the first time or again."""

    id: str


@dataclass(frozen=True)
class Withdraw:
    """Publish that nobody waits for this request any more; one try is enough."""

    id: str


@dataclass(frozen=True)
class Answered:
    """The call has a result."""

    id: str
    reply: Reply


@dataclass(frozen=True)
class HandedOver:
    """The broker has taken a durable request, and with it the care for it: here the call ends."""

    id: str


@dataclass(frozen=True)
class Failed:
    """The call has ended in an error."""

    id: str
    error: OptimizerError


@dataclass(frozen=True)
class Waits:
    """The call goes on, and this is what it waits for."""

    id: str
    waiting: Waiting


Effect = Transmit | Withdraw | Answered | HandedOver | Failed | Waits


@dataclass
class _Pending:
    deadline: float
    timeout: float
    send_again_at: float
    durable: bool = False
    silence_s: float = FIRST_SILENCE_S
    confirmed: bool = False
    obstacle: str | None = None


class Core:
    """The pending calls of one client, keyed by request id."""

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._pending

    def begin(self, request_id: str, now: float, timeout: float, *, durable: bool = False) -> list[Effect]:
        """A new call, with `timeout` seconds for its answer; a `durable` one is over once it is confirmed."""
        call = _Pending(deadline=now + timeout, timeout=timeout, send_again_at=now, durable=durable)
        self._pending[request_id] = call
        return [self._transmit(request_id, call, now)]

    def confirmed(self, request_id: str) -> list[Effect]:
        """The broker has taken the request."""
        call = self._pending.get(request_id)
        if call is None:
            return []
        if call.durable:
            del self._pending[request_id]
            return [HandedOver(request_id)]
        call.confirmed, call.obstacle = True, None
        return []

    def unroutable(self, request_id: str) -> list[Effect]:
        """No queue takes the request: waiting cannot help."""
        if self._pending.pop(request_id, None) is None:
            return []
        return [
            Failed(
                request_id,
                Overloaded(
                    "RabbitMQ has no queue for requests: run `optimizer up` or `optimizer topology apply`"
                ),
            )
        ]

    def not_taken(self, request_id: str, now: float, why: str | None) -> list[Effect]:
        """Refused, or nobody knows: the same id again, soon. `why` is none while there is no reason yet."""
        call = self._pending.get(request_id)
        if call is None:
            return []
        call.send_again_at = min(call.send_again_at, now + REFUSED_AGAIN_S)
        if why is None or why == call.obstacle:
            return []
        call.obstacle = why
        return [Waits(request_id, Waiting(id=request_id, waits_for=why))]

    def reconnected(self, now: float) -> list[Effect]:
        """A connection is back: whatever is pending is sent again at once, replies may be lost.

        Silence counts anew: an older copy of the request that is still under way could lead the reply astray.
        """
        for call in self._pending.values():
            call.silence_s = FIRST_SILENCE_S
        return [self._transmit(request_id, call, now) for request_id, call in self._pending.items()]

    def received(self, body: bytes) -> list[Effect]:
        """A message from the callback queue. What nobody waits for is dropped."""
        try:
            value = unpack(body)
            if value.get("id") not in self._pending:
                return []
            if "waits_for" in value:
                waiting = Waiting.from_value(value)
                return [Waits(waiting.id, waiting)]
            reply = Reply.from_value(value)
        except (Refused, TypeError):  # an id of a type that cannot be one
            return []
        del self._pending[reply.id]
        if reply.error is not None:
            return [Failed(reply.id, error_of(reply.error, reply))]
        return [Answered(reply.id, reply)]

    def cancel(self, request_id: str) -> list[Effect]:
        """The caller calls it off, and wants to see it end."""
        if self._pending.pop(request_id, None) is None:
            return []
        return [Withdraw(request_id), Failed(request_id, Cancelled("the caller called it off"))]

    def forget(self, request_id: str) -> list[Effect]:
        """The caller has gone; nothing happens when the call has ended already.

        A durable request outlives its caller: it is not withdrawn.
        """
        call = self._pending.pop(request_id, None)
        return [] if call is None or call.durable else [Withdraw(request_id)]

    def due(self, now: float, obstacle: str | None = None) -> list[Effect]:
        """What has to happen by now: calls past their deadline, requests to send again.

        Args:
            now: The driver's clock.
            obstacle: Why nothing can be sent at present, if so; what a failed call's error names.
        """
        effects: list[Effect] = []
        for request_id, call in list(self._pending.items()):
            if call.deadline <= now:
                del self._pending[request_id]
                effects.append(Failed(request_id, _too_late(request_id, call, obstacle)))
            elif call.send_again_at <= now:
                effects.append(self._transmit(request_id, call, now))
        return effects

    def next_due(self) -> float | None:
        """When `due` should be called next; None while nothing is pending."""
        return min(
            (min(call.deadline, call.send_again_at) for call in self._pending.values()),
            default=None,
        )

    @staticmethod
    def _transmit(request_id: str, call: _Pending, now: float) -> Transmit:
        call.send_again_at = now + call.silence_s
        call.silence_s = min(call.silence_s * 2, LONGEST_SILENCE_S)
        return Transmit(request_id)


def _too_late(request_id: str, call: _Pending, obstacle: str | None) -> OptimizerError:
    if call.confirmed:
        return DeadlineExceeded(
            f"no answer within {call.timeout:g} s; the request was accepted and waited for a "
            "provider's permit or answer (optimizer status shows the queues)"
        )
    why = obstacle or call.obstacle or "RabbitMQ never confirmed the request"
    message = f"the request could not be handed over within {call.timeout:g} s: {why}"
    if call.durable:
        message += f"; it may have arrived all the same: submit it again with request_id={request_id!r}"
    return Overloaded(message)
