"""Calling off: a caller wants no answer any more, and what nobody else waits for is not bought."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker.answers import CalledOff, Cancelled, Remembered
from broker.flights import StateAway
from producer_sdk.transport import Delivery, Outgoing
from topology import names
from topology.errors import ErrorType, Refused
from topology.events import EventType
from topology.messages import Cancel, Control, Waiter, new_id
from workers.moving import AGAIN_S
from workers.replies import Answer, Replies, error_outcome
from workers.worker import Worker

log = logging.getLogger("optimizer.cancelling")

_MESSAGE: Final = "its caller called it off"
_CALLED_OFF: Final = error_outcome(ErrorType.CANCELLED, _MESSAGE)


@dataclass(frozen=True)
class Withdrawal:
    """What an agent says of one of its own requests. `key` is the waiter's."""

    delivery: Delivery
    key: str


def withdrawal_of(delivery: Delivery, agent: str) -> Withdrawal:
    """Reads what `agent`, who is the routing key's, withdraws.

    Raises:
        Refused: It cannot be read, or its properties say something else.
    """
    id_ = Cancel.from_bytes(delivery.body).id
    properties = delivery.properties
    if properties.app_id and properties.app_id != agent:
        raise Refused(
            ErrorType.INVALID_REQUEST,
            f"app_id: {properties.app_id!r} is not the agent of the routing key, {agent!r}",
        )
    if properties.correlation_id and properties.correlation_id != id_:
        raise Refused(ErrorType.INVALID_REQUEST, f"id: {id_!r} is not the message's correlation_id")
    return Withdrawal(delivery, f"{agent}/{id_}")


class Cancelling:
    """Settles requests that were withdrawn; only who looks for a durable one's reply wants a word."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._replies = Replies(worker.publisher, worker.events, worker.clock)

    async def carry_out(self, withdrawals: Sequence[Withdrawal]) -> None:
        """Settles and acknowledges them, however long Redis is away."""
        answers = await self._ask([withdrawal.key for withdrawal in withdrawals])
        durable = [a.waiter for a in answers if isinstance(a, CalledOff) and a.waiter.durable]
        told = await self._replies.send([Answer(waiter, _CALLED_OFF, None) for waiter in durable])
        for withdrawal, answer in zip(withdrawals, answers, strict=True):
            match answer:
                case CalledOff(waiter=waiter):
                    if waiter not in told:
                        self._tell(waiter)
                    hurry(self._worker, answer)
                case Remembered():
                    pass  # answered already, or not here yet
            withdrawal.delivery.ack()

    async def _ask(self, keys: Sequence[str]) -> list[Cancelled]:
        while True:
            try:
                return await self._worker.flights.cancel(keys)
            except StateAway as error:
                log.warning("Redis is away, cancelling nothing", extra={"error": str(error)})
                await asyncio.sleep(AGAIN_S)

    def _tell(self, waiter: Waiter) -> None:
        common = {"agent": waiter.agent, "request_id": waiter.id, "priority": waiter.priority.value}
        self._worker.events.emit(
            EventType.ERROR,
            **common,
            error=ErrorType.CANCELLED.value,
            message=_MESSAGE,
            provider=None,
            provider_status=None,
        )
        self._worker.events.emit(
            EventType.REQUEST_COMPLETED,
            **common,
            status="error",
            source=None,
            provider=None,
            model=None,
            cost_usd=None,
            total_s=round(max(0.0, self._worker.clock.now() - waiter.queued_at), 4),
        )


def hurry(worker: Worker, called_off: CalledOff) -> None:
    """Has a call that nobody wants any more cut at once.

    Its worker finds out by itself when it renews its claim the next time. This makes it renew now, so it
    may get lost without harm.
    """
    if message := renew_now(called_off):
        worker.publisher.send(message, lambda _: None)


def renew_now(called_off: CalledOff) -> Outgoing | None:
    """What tells the worker that calls for nobody; None: there is none."""
    if called_off.worker is None:
        return None
    control = Control(id=new_id(), action="renew", flight=called_off.fingerprint)
    queue = names.control_queue(called_off.worker)
    return Outgoing("", queue, control.to_bytes(), persistent=False, mandatory=False)
