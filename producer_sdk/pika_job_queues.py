"""The queues of durable requests' replies, for the blocking client: as `job_queues.py`, on pika's loop."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker
from pika.spec import Basic

from producer_sdk.connecting import ANSWER_S
from producer_sdk.core import REFUSED_AGAIN_S
from producer_sdk.drivers import OnEnded
from producer_sdk.durable import Taking
from producer_sdk.errors import OptimizerError
from producer_sdk.pika_connection import EventLoop, describe
from producer_sdk.pika_transport import PikaSubscriber
from topology.declaration import JOB_REPLY_QUEUE_ARGUMENTS
from topology.messages import Reply

if TYPE_CHECKING:
    from pika.frame import Method

_NO_ANSWER: Final = f"no answer from RabbitMQ within {ANSWER_S:g} s"
_NOT_FOUND: Final = 404


class PikaJobQueues:
    """Declares them and takes replies from them, on a subscriber's connection.

    All of it runs on the loop's thread, but for `add`.
    """

    def __init__(self) -> None:
        self._looks: set[Look] = set()

    def begin(self, loop: EventLoop, subscriber: PikaSubscriber) -> None:
        """Works on this loop from now on; what was under way on another begins anew."""
        self._loop = loop
        self._subscriber = subscriber
        for look in list(self._looks):
            look.begin(loop, subscriber)

    def declare(self, queue: str, told: Callable[[str | None], None]) -> None:
        """Has the queue stand; `told` is given why it does not, or None, once."""
        ended = False

        def end(why_not: str | None) -> None:
            nonlocal ended
            if ended:
                return
            ended = True
            self._loop.remove_timeout(timer)
            if channel is not None and channel.is_open:
                channel.close()
            told(why_not)

        def opened(channel: Channel) -> None:
            arguments = dict(JOB_REPLY_QUEUE_ARGUMENTS)
            channel.queue_declare(queue, durable=True, arguments=arguments, callback=lambda _: end(None))

        timer = self._loop.call_later(ANSWER_S, partial(end, _NO_ANSWER))
        channel = self._subscriber.open_channel(opened, lambda _, reason: end(describe(reason)))
        if channel is None:
            end(self._subscriber.why_down())

    def add(self, taking: Taking, told: OnEnded, *, keep: bool) -> "Look":
        """A look that is still to begin."""
        look = Look(taking, told, keep, self._looks.discard)
        self._looks.add(look)
        return look

    def start(self, look: "Look") -> None:
        """Begins a look that was added."""
        look.begin(self._loop, self._subscriber)

    def reconnected(self) -> None:
        """The connection is up again."""
        for look in list(self._looks):
            look.try_again()

    def end_all(self, error: Callable[[], OptimizerError]) -> None:
        """Ends every look in an error."""
        for look in list(self._looks):
            look.end(error())


class Look:
    """One `result`, on as many channels as it takes. It ends once, and tells then what it came to."""

    def __init__(self, taking: Taking, told: OnEnded, keep: bool, forget: Callable[["Look"], None]) -> None:
        self._taking = taking
        self._told = told
        self._keep = keep
        self._forget = forget
        self._ended = False
        self._loop: EventLoop | None = None
        self._channel: Channel | None = None
        self._answer_by: float | None = None
        self._timer: Any = None

    def begin(self, loop: EventLoop, subscriber: PikaSubscriber) -> None:
        """Looks on this loop from now on."""
        if self._ended:
            return
        self._loop, self._subscriber = loop, subscriber
        self._channel = self._timer = None
        self.try_again()

    def end(self, outcome: Reply | OptimizerError) -> None:
        """The end; what was delivered and not taken goes back to the queue."""
        if self._ended:
            return
        self._ended = True
        self._forget(self)
        self._let_go()
        if self._loop is not None and self._timer is not None:
            self._loop.remove_timeout(self._timer)
        self._told(outcome)

    def try_again(self) -> None:
        """Opens a channel and looks, unless it does so already."""
        if self._ended or self._channel is not None:
            return
        self._channel = self._subscriber.open_channel(self._on_open, self._on_closed)
        self._answer_by = time.monotonic() + ANSWER_S if self._channel else None
        self._wake()

    def _on_open(self, channel: Channel) -> None:
        if channel is self._channel:
            found = partial(self._found, channel)
            channel.queue_declare(self._taking.queue, passive=True, callback=found)

    def _found(self, channel: Channel, frame: "Method[Any]") -> None:
        if channel is not self._channel:
            return
        if ended := self._taking.found(frame.method.message_count, time.monotonic()):
            self.end(ended)
            return
        self._wake()
        channel.add_on_cancel_callback(partial(self._on_cancelled, channel))
        channel.basic_qos(prefetch_count=1, callback=lambda _: self._consume(channel))

    def _consume(self, channel: Channel) -> None:
        if channel is self._channel:
            self._answer_by = None
            channel.basic_consume(self._taking.queue, self._on_delivery)

    def _on_delivery(self, channel: Channel, method: Basic.Deliver, _: object, body: bytes) -> None:
        if channel is not self._channel:
            return
        if not self._taking.read(body):
            channel.basic_ack(method.delivery_tag)
        elif self._keep:
            self.end(self._taking.taken())
        else:
            # Nothing before this takes it: whoever dies here leaves it to the next who asks.
            self._answer_by = time.monotonic() + ANSWER_S
            self._wake()
            channel.queue_delete(self._taking.queue, callback=lambda _: self.end(self._taking.taken()))

    def _on_cancelled(self, channel: Channel, _: object) -> None:
        if channel is self._channel and self._answer_by is None:
            self._let_go()  # another process took the reply, and the queue with it
            self._wake(again=True)

    def _on_closed(self, channel: Channel, reason: BaseException) -> None:
        if self._ended or channel is not self._channel:
            return
        self._channel = self._answer_by = None
        if isinstance(reason, ChannelClosedByBroker) and reason.reply_code == _NOT_FOUND:
            if ended := self._taking.missing(reason.reply_text):
                self.end(ended)
                return
        else:
            self._taking.met(describe(reason))
        self._wake(again=True)

    def _let_go(self) -> None:
        channel, self._channel, self._answer_by = self._channel, None, None
        if channel is not None and channel.is_open:
            channel.close()

    def _wake(self, *, again: bool = False) -> None:
        """Sees to it that `_on_time` is called when something is due next."""
        assert self._loop is not None, "it has begun"  # noqa: S101 - for the type checker
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
        now = time.monotonic()
        due = min(self._taking.until, self._answer_by or self._taking.until)
        if again:
            due = min(due, now + REFUSED_AGAIN_S)
        self._timer = self._loop.call_later(max(0.0, due - now), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        now = time.monotonic()
        if not self._subscriber.is_up:
            self._taking.met(self._subscriber.why_down())
        if self._answer_by is not None and self._answer_by <= now:
            self._taking.met(_NO_ANSWER)
            self._let_go()
        if self._taking.until <= now:
            self.end(self._taking.given_up(now))
        elif self._channel is None:
            self.try_again()
        else:
            self._wake()
