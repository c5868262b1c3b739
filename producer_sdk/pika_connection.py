"""A connection on pika's event loop that is opened again whenever it is lost, with growing back-off.

The rules are those of `supervision.py`. All of it runs on the loop's own thread; nothing is thread-safe.
"""

import logging
import os
import random
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from pika import ConnectionParameters, SSLOptions
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.channel import Channel
from pika.credentials import ExternalCredentials, PlainCredentials
from pika.exceptions import AMQPError, ChannelClosedByBroker

from producer_sdk.amqp_url import AmqpUrl, rotation
from producer_sdk.connecting import ANSWER_S

log = logging.getLogger("optimizer.transport")

THREAD_NAME: Final = "optimizer sdk"
READY_S: Final = 2 * ANSWER_S
"""For how long a channel may take to be of use; longer than a declaration, whose silence means more."""
_CONNECT_TIMEOUT_S: Final = 10.0
_HEARTBEAT_S: Final = 15
_LONGEST_BACKOFF_S: Final = 5.0
_CHANNEL_PAUSE_S: Final = 1.0


class EventLoop(IOLoop):
    """pika's event loop, which also knows the sockets of its connections."""

    def __init__(self) -> None:
        super().__init__()
        self.sockets: set[int] = set()

    def add_handler(self, fd: int, handler: Callable[[int, int], None], events: int) -> None:  # noqa: D102
        super().add_handler(fd, handler, events)
        self.sockets.add(fd)

    def remove_handler(self, fd: int) -> None:  # noqa: D102
        super().remove_handler(fd)
        self.sockets.discard(fd)

    def time(self) -> float:
        """The loop's clock, in seconds."""
        return time.monotonic()

    def cut(self) -> None:
        """Ends all connections at once, without a word to the broker; pika notices by itself."""
        for fd in self.sockets:
            with socket.socket(fileno=os.dup(fd)) as copy:
                try:
                    copy.shutdown(socket.SHUT_RDWR)
                except OSError:  # it is not connected
                    continue


class Silence(AMQPError):
    """The broker owes an answer."""


class PikaConnection(ABC):
    """One connection with one channel that is opened again whenever it is lost, until it is closed.

    Where the URL names several nodes, each attempt goes to the next one.

    Attributes:
        last_error: Why it was last lost or could not be opened; None while that never happened.
        is_closed: Whether it was closed for good.
    """

    def __init__(
        self,
        url: AmqpUrl,
        name: str,
        loop: EventLoop,
        on_up: Callable[[], None],
        on_closed: Callable[[], None],
    ) -> None:
        self.name = name
        self.last_error: str | None = None
        self.is_closed = False
        self._url = url
        self._nodes = rotation(url.nodes)
        self._loop = loop
        self._on_up = on_up
        self._on_closed = on_closed
        self._connection: SelectConnection | None = None
        self._channel: Channel | None = None
        self._channel_error: BaseException | None = None
        self._open = self._was_open = False
        self._closing = False
        self._failures = 0
        self._timer: Any = None
        self._owed: Any = None

    @property
    def is_up(self) -> bool:
        """Whether it can be used right now."""
        return self._open

    def open(self) -> None:
        """Begins to connect, and to connect again whenever that is needed."""
        self._timer = None
        try:
            self._connection = SelectConnection(
                _parameters(self._url, next(self._nodes), self.name),
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_lost,
                on_close_callback=self._on_lost,
                custom_ioloop=self._loop,
            )
        except OSError as error:  # a certificate's file
            self._again(error)

    def close(self) -> None:
        """Ends the connection for good, once what was sent has gone out; `on_closed` tells when."""
        self._closing = True
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None
        if self._connection is None:
            self._end()
        elif self._connection.is_open:
            self._connection.close()
        # While it opens, pika cannot be stopped without a leak: it is closed once that has come to an end.

    def why_down(self) -> str:
        """One clause for an error's text."""
        return f"RabbitMQ at {self._url.shown} cannot be reached ({self.last_error or 'no answer yet'})"

    @abstractmethod
    def _prepare(self, channel: Channel) -> None:
        """What a fresh channel needs; ends in `_ready`."""

    @abstractmethod
    def _forget(self, error: BaseException) -> None:
        """The channel is gone, and this is why."""

    def _on_open(self, connection: Any) -> None:
        if self._closing:
            connection.close()
            return
        self._expect("to the opening of a channel")
        channel = connection.channel(on_open_callback=self._prepare)
        channel.add_on_close_callback(lambda _, reason: self._give_up(reason))
        self._channel = channel

    def _ready(self, _: object) -> None:
        self._has_answered()
        self._open = self._was_open = True
        self._failures = 0
        self._on_up()

    def _give_up(self, reason: BaseException) -> None:
        """A connection without its channel is of no use."""
        self._open = False
        if self._connection is not None and self._connection.is_open:
            self._channel_error = reason
            self._expect("to the end of a connection")
            self._connection.close()

    def _expect(self, what: str) -> None:
        """An answer that a broker owes for ever, on a line that is well, costs that line."""
        self._has_answered()
        self._owed = self._loop.call_later(READY_S, partial(self._on_silence, what, READY_S))

    def _has_answered(self) -> None:
        timer, self._owed = self._owed, None
        if timer is not None:
            self._loop.remove_timeout(timer)

    def _on_silence(self, what: str, seconds: float) -> None:
        # A channel that waits for a node that is cut off does not even take its own end: the line is cut.
        self._channel_error = Silence(f"no answer {what} within {seconds:g} s")
        self._loop.cut()

    def _on_lost(self, _: object, reason: BaseException) -> None:
        error, self._channel_error = self._channel_error or reason, None
        level = logging.WARNING if self._was_open else logging.INFO
        self._was_open = self._open = False
        self._connection = self._channel = None
        self._has_answered()
        self.last_error = describe(error)
        self._forget(error)
        if self._closing:
            self._end()
            return
        said = "connection lost (%s), connecting again"
        log.log(level, said, self.last_error, extra={"connection": self.name})
        self._again(error)

    def _again(self, error: BaseException) -> None:
        """Connects later: the more often it failed, the later; a channel's fault will not mend at once."""
        self.last_error = describe(error)
        pause_s = random.uniform(0.0, min(_LONGEST_BACKOFF_S, 0.2 * 2 ** min(self._failures, 10)))
        if isinstance(error, ChannelClosedByBroker):
            pause_s = max(pause_s, _CHANNEL_PAUSE_S)
        self._failures += 1
        self._timer = self._loop.call_later(pause_s, self.open)

    def _end(self) -> None:
        self.is_closed = True
        self._on_closed()


def _parameters(url: AmqpUrl, node: tuple[str, int], name: str) -> ConnectionParameters:
    host, port = node
    return ConnectionParameters(
        host=host,
        port=port,
        virtual_host=url.vhost,
        credentials=ExternalCredentials() if url.external else PlainCredentials(url.user, url.password),
        heartbeat=_HEARTBEAT_S,
        socket_timeout=_CONNECT_TIMEOUT_S,
        stack_timeout=_CONNECT_TIMEOUT_S,
        client_properties={"connection_name": name},
        ssl_options=SSLOptions(url.tls.context(), host) if url.tls else None,
    )


def describe(error: BaseException) -> str:
    """One clause; pika wraps what happened into errors that say where it noticed."""
    inner: object = error
    while isinstance(inner, BaseException):
        error = inner
        several = getattr(error, "exceptions", None)
        inner = several[-1] if several else getattr(error, "exception", error.args[0] if error.args else None)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _SaidOnce(logging.Filter):
    """Drops pika's lines of our own thread: a dozen for each attempt, and ours says the same in one.

    Whoever sets a level for the logger `pika` sees them all.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        ours = (record.threadName or "").startswith(THREAD_NAME)
        return not ours or logging.getLogger("pika").level != logging.NOTSET


for _name in (
    "pika.adapters.base_connection",
    "pika.adapters.utils.connection_workflow",
    "pika.adapters.utils.io_services_utils",
    "pika.channel",
    "pika.connection",
):
    logging.getLogger(_name).addFilter(_SaidOnce())
