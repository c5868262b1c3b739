"""The two connections of the blocking client: one that publishes, confirmed, and one that consumes.

The rules are those of `transport.py`. All of it runs on the loop's own thread; nothing is thread-safe.
"""

import logging
import secrets
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from pika import BasicProperties
from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker, ConsumerCancelled
from pika.spec import Basic

from producer_sdk.amqp_url import AmqpUrl
from producer_sdk.consuming import DECLARE_TIMEOUT_S
from producer_sdk.pika_connection import EventLoop, PikaConnection, Silence, describe
from producer_sdk.transport import OnPublished, Outgoing, Published
from topology import names
from topology.declaration import REPLY_QUEUE_ARGUMENTS
from topology.wire import CONTENT_TYPE

if TYPE_CHECKING:
    from pika.frame import Method

log = logging.getLogger("optimizer.transport")

PUBLISH_TIMEOUT_S: Final = 30.0
_SWEEP_S: Final = 1.0
_PREFETCH: Final = 500
_NOT_FOUND, _LOCKED, _OTHERWISE = 404, 405, 406
_CANNOT_STAND: Final = {_NOT_FOUND, _LOCKED, _OTHERWISE}


class PikaPublisher(PikaConnection):
    """Publishes with confirms, pipelined: any number of publishes may wait for theirs at once.

    Args:
        on_unblocked: Called when the broker reads again after an alarm.
    """

    def __init__(
        self,
        url: AmqpUrl,
        name: str,
        loop: EventLoop,
        on_up: Callable[[], None],
        on_closed: Callable[[], None],
        on_unblocked: Callable[[], None],
    ) -> None:
        super().__init__(url, name, loop, on_up, on_closed)
        self._on_unblocked = on_unblocked
        self._sent = 0
        self._channel_id = ""
        self._waiting: dict[int, tuple[float, OnPublished]] = {}
        self._stopped_by: str | None = None
        self._sweeping = False

    def send(self, message: Outgoing, told: OnPublished) -> None:
        """Publishes once on the connection at hand, and tells what became of it, once.

        Args:
            message: What to publish.
            told: Called with the outcome; `LOST` where there is no connection.
        """
        channel = self._channel
        if channel is None or not channel.is_open:
            told(Published.LOST)
            return
        self._sent = tag = self._sent + 1
        channel.basic_publish(
            message.exchange,
            message.routing_key,
            message.body,
            _properties(message, f"{self._channel_id}-{tag}"),
            mandatory=message.mandatory,
        )
        self._waiting[tag] = (self._loop.time() + PUBLISH_TIMEOUT_S, told)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(_SWEEP_S, self._sweep)

    @property
    def is_up(self) -> bool:
        """Whether the broker reads what is published; under an alarm it stops, and says so."""
        return super().is_up and self._stopped_by is None

    def why_down(self) -> str:  # noqa: D102 - as the base says
        if self._stopped_by is not None:
            return f"RabbitMQ takes no messages at present ({self._stopped_by})"
        return super().why_down()

    def _on_open(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(self._on_alarm)
        connection.add_on_connection_unblocked_callback(self._on_alarm_over)
        super()._on_open(connection)

    def _prepare(self, channel: Channel) -> None:
        self._sent = 0
        self._channel_id = secrets.token_hex(6)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=self._ready)

    def _forget(self, error: BaseException) -> None:
        self._stopped_by = None
        waiting, self._waiting = self._waiting, {}
        missing = isinstance(error, ChannelClosedByBroker) and error.reply_code == _NOT_FOUND
        for _, told in waiting.values():
            told(Published.NOWHERE if missing else Published.LOST)

    def _on_alarm(self, _: object, method: Any) -> None:
        self._stopped_by = self.last_error = str(method.method.reason)
        log.warning("publishing stopped", extra={"connection": self.name, "error": self._stopped_by})

    def _on_alarm_over(self, *_: object) -> None:
        self._stopped_by = None
        self._on_unblocked()

    def _on_return(self, _: object, __: object, properties: BasicProperties, ___: bytes) -> None:
        self._tell(int(str(properties.message_id).rpartition("-")[2]), Published.RETURNED)

    def _on_confirm(self, frame: "Method[Basic.Ack | Basic.Nack]") -> None:
        word = Published.CONFIRMED if isinstance(frame.method, Basic.Ack) else Published.REFUSED
        last = frame.method.delivery_tag
        if not frame.method.multiple:
            self._tell(last, word)
            return
        for tag in list(takewhile(lambda tag: tag <= last, self._waiting)):  # in the order of their numbers
            self._tell(tag, word)

    def _tell(self, tag: int, word: Published) -> None:
        if waiting := self._waiting.pop(tag, None):
            waiting[1](word)

    def _sweep(self) -> None:
        """Ends the wait for confirms that are overdue, however long the connection lives."""
        now = self._loop.time()
        for tag in list(takewhile(lambda tag: self._waiting[tag][0] <= now, self._waiting)):
            self._tell(tag, Published.LOST)
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            self._loop.call_later(_SWEEP_S, self._sweep)


class PikaSubscriber(PikaConnection):
    """Consumes a callback queue of its own, which it declares on every new channel.

    Args:
        on_body: Called with each message, which is acknowledged after it.
        on_renamed: Called with the queue's next name where the broker does not let it stand under the one it
            has, as in `Subscription`.
    """

    def __init__(
        self,
        url: AmqpUrl,
        name: str,
        loop: EventLoop,
        on_up: Callable[[], None],
        on_closed: Callable[[], None],
        queue: str,
        on_body: Callable[[bytes], None],
        on_renamed: Callable[[str], None],
    ) -> None:
        super().__init__(url, name, loop, on_up, on_closed)
        self._first_name = self._queue = queue
        self._renamed = 0
        self._on_body = on_body
        self._on_renamed = on_renamed
        self._declaring: Any = None

    def open_channel(
        self, on_open: Callable[[Channel], None], on_closed: Callable[[Channel, BaseException], None]
    ) -> Channel | None:
        """Another channel, for what the broker may close it for; None without a connection."""
        if self._connection is None or not self._connection.is_open:
            return None
        channel: Channel = self._connection.channel(on_open_callback=on_open)
        channel.add_on_close_callback(on_closed)
        return channel

    def _prepare(self, channel: Channel) -> None:
        def declared(_: object) -> None:
            self._end_declaring()
            channel.basic_qos(prefetch_count=_PREFETCH, callback=limited)

        def limited(_: object) -> None:
            channel.basic_consume(self._queue, self._on_message, callback=self._ready)

        channel.add_on_cancel_callback(self._on_cancelled)
        arguments = dict(REPLY_QUEUE_ARGUMENTS)
        self._declaring = self._loop.call_later(
            DECLARE_TIMEOUT_S, partial(self._on_silence, "to a declaration", DECLARE_TIMEOUT_S)
        )
        channel.queue_declare(self._queue, durable=True, arguments=arguments, callback=declared)

    def _forget(self, error: BaseException) -> None:
        """What was delivered and not acknowledged is handed out again."""
        silent = isinstance(error, Silence)
        refused = isinstance(error, ChannelClosedByBroker) and error.reply_code in _CANNOT_STAND
        if self._end_declaring() and (silent or refused):
            self._renamed += 1
            self._queue = names.renamed(self._first_name, self._renamed)
            log.warning("queue renamed", extra={"queue": self._queue, "error": describe(error)})
            self._on_renamed(self._queue)

    def _end_declaring(self) -> bool:
        """Whether the queue was being declared."""
        timer, self._declaring = self._declaring, None
        if timer is not None:
            self._loop.remove_timeout(timer)
        return timer is not None

    def _on_cancelled(self, _: object) -> None:
        # The queue was deleted: counted as a lost channel, so that it is declared again.
        self._give_up(ConsumerCancelled())

    def _on_message(self, channel: Channel, method: Basic.Deliver, _: object, body: bytes) -> None:
        try:
            self._on_body(body)
        except Exception:  # a fault of ours; the other messages are none the worse for it
            log.exception("a delivery's callback failed")
            return
        if channel.is_open:
            channel.basic_ack(method.delivery_tag)


def _properties(message: Outgoing, message_id: str) -> BasicProperties:
    """The AMQP properties.

    Args:
        message: What is published.
        message_id: New for each transmission; it ends in the delivery tag, by which a return is known.
    """
    return BasicProperties(  # type: ignore[no-untyped-call]  # generated code
        message_id=message_id,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        app_id=message.app_id,
        type=message.type,
        content_type=CONTENT_TYPE,
        delivery_mode=2 if message.persistent else 1,
        headers=dict(message.headers) if message.headers else None,
    )
