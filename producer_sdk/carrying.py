"""What every driver does with the core's decisions, whatever library carries them."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Generic, Protocol, TypeVar

from producer_sdk.asking import cancel_message, cancel_submitted
from producer_sdk.core import (
    REFUSED_AGAIN_S,
    Answered,
    Core,
    Effect,
    Failed,
    HandedOver,
    OnWait,
    Transmit,
    Waits,
    Withdraw,
)
from producer_sdk.durable import Submitted
from producer_sdk.transport import OnPublished, Outgoing, Published
from topology.messages import Waiting

log = logging.getLogger("optimizer.sdk")


class Link(Protocol):
    """A supervised connection."""

    last_error: str | None

    @property
    def is_up(self) -> bool:
        """Whether it can be used right now."""

    def why_down(self) -> str:
        """One clause for an error's text."""


class PublishingLink(Link, Protocol):
    """A supervised connection that publishes."""

    def send(self, message: Outgoing, told: OnPublished) -> None:
        """Publishes once and tells what became of it, once."""


class Carried(Protocol):
    """A call as a driver remembers it; `on_the_way` until it is known what became of a transmission."""

    message: Outgoing
    durable: bool
    on_the_way: bool


CallT = TypeVar("CallT", bound=Carried)


class Carrier(ABC, Generic[CallT]):
    """Carries out what the core decides. A driver adds the connections, and tells its callers.

    Attributes:
        core: The decisions.
        calls: What still waits, by request id.
        publisher: Where requests go out.
        subscriber: Where replies come in.
        reply_to: The callback queue.
    """

    publisher: PublishingLink
    subscriber: Link

    def __init__(self, now: Callable[[], float], reply_to: str) -> None:
        self.core = Core()
        self.reply_to = reply_to
        self._left: set[str] = set()
        self._withdrawn: list[Submitted] = []
        self.calls: dict[str, CallT] = {}
        self._now = now

    @abstractmethod
    def tell(self, call: CallT, effect: Answered | HandedOver | Failed | Waits) -> None:
        """Tells the caller."""

    @abstractmethod
    def declare_job_queue(self, queue: str, told: Callable[[str | None], None]) -> None:
        """Has the queue of a durable request's reply stand; tells why it does not, or None, once."""

    @abstractmethod
    def nudge(self, due: float) -> None:
        """The core has something to do then; wake it."""

    def carry_out(self, effects: Iterable[Effect]) -> None:
        """Does what was decided; what concerns calls that are over is passed over."""
        for effect in effects:
            call = self.calls.get(effect.id)
            if call is None:
                continue
            match effect:
                case Transmit(id=id_):
                    self._transmit(id_, call)
                case Withdraw():
                    self.withdraw(call)
                case Answered() | HandedOver() | Failed() | Waits():
                    self.tell(call, effect)

    def withdraw(self, call: CallT) -> None:
        """Says that nobody waits for this request any more; without a connection nobody is told."""
        if self.publisher.is_up:
            self.publisher.send(cancel_message(call.message), lambda _: None)

    def withdraw_job(self, job: Submitted) -> bool:
        """Says that nobody wants a durable request any more; False: that has to wait for a connection."""
        if self.publisher.is_up:
            self.publisher.send(cancel_submitted(job), lambda _: None)
        else:
            self._withdrawn.append(job)
        return self.publisher.is_up

    def reconnected(self) -> None:
        """A connection is up: once both are, everything pending is sent again."""
        if self.publisher.is_up:
            withdrawn, self._withdrawn = self._withdrawn, []
            for job in withdrawn:
                self.withdraw_job(job)
        if self.publisher.is_up and self.subscriber.is_up:
            self.carry_out(self.core.reconnected(self._now()))

    def move(self, reply_to: str) -> None:
        """Replies come to another callback queue, since the one so far cannot be had any more.

        Whoever waits asks again under it: the reconnection, which follows, transmits.
        """
        self._left.add(self.reply_to)
        self.reply_to = reply_to

    def obstacle(self) -> str | None:
        """Why nothing can be sent at present, if so."""
        for link in (self.publisher, self.subscriber):
            if not link.is_up:
                return link.why_down()
        return None

    def _transmit(self, id_: str, call: CallT) -> None:
        """Publishes, unless that is still under way, or the callback queue does not stand yet.

        In the latter case the reconnection transmits.
        """
        if call.on_the_way:
            return
        if not (self.publisher.is_up and self.subscriber.is_up):
            failed = self.publisher.last_error or self.subscriber.last_error  # else it is only just opening
            self._not_taken(id_, self.obstacle() if failed else None)
            return
        if call.message.reply_to in self._left:
            call.message = replace(call.message, reply_to=self.reply_to)
        call.on_the_way = True
        if call.durable:  # before the request, so that no reply can come before it
            self.declare_job_queue(call.message.reply_to or "", partial(self._declared, id_, call))
        else:
            self._publish(id_, call)

    def _declared(self, id_: str, call: CallT, why_not: str | None) -> None:
        if why_not is None and self.calls.get(id_) is call:
            self._publish(id_, call)
            return
        call.on_the_way = False
        self._not_taken(id_, why_not)

    def _publish(self, id_: str, call: CallT) -> None:
        self.publisher.send(call.message, lambda outcome: self._published(id_, call, outcome))

    def _not_taken(self, id_: str, why: str | None) -> None:
        now = self._now()
        self.carry_out(self.core.not_taken(id_, now, why))
        self.nudge(now + REFUSED_AGAIN_S)

    def _published(self, id_: str, call: CallT, outcome: Published) -> None:
        call.on_the_way = False
        match outcome:
            case Published.CONFIRMED if call.message.reply_to in self._left:
                self._transmit(id_, call)  # its callback queue was given up meanwhile
            case Published.CONFIRMED:
                self.carry_out(self.core.confirmed(id_))
            case Published.RETURNED | Published.NOWHERE:
                self.carry_out(self.core.unroutable(id_))
            case Published.REFUSED:
                self._not_taken(id_, "RabbitMQ refused the request")
            case Published.LOST:
                self._not_taken(id_, self.publisher.why_down())


def tell_waiting(on_wait: OnWait | None, waiting: Waiting) -> None:
    """Tells a caller that wants to know; what its own code raises is logged, and the call goes on."""
    if on_wait is None:
        return
    try:
        on_wait(waiting)
    except Exception:
        log.exception("on_wait failed")
