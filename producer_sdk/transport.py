"""The supervised connections to RabbitMQ: one that publishes, confirmed, and one that consumes.

Publishing and consuming have connections of their own, since a broker under an alarm stops reading from
connections that publish, and acknowledgements would stall with them. Each reconnects by itself, for
ever, with growing back-off. Nothing is replayed behind the caller's back: a publish whose confirm never
came is reported as `LOST`, and whoever published decides.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

import aiormq

from producer_sdk import alarms
from producer_sdk.channel import Confirmed, LeanChannel
from producer_sdk.consuming import Delivery, Subscriber, Subscription
from producer_sdk.outgoing import Outgoing
from producer_sdk.supervision import Supervised
from topology.wire import MAX_MESSAGE_BYTES

__all__ = ["Delivery", "OnPublished", "Outgoing", "Published", "Publisher", "Subscriber", "Subscription"]

log = logging.getLogger("optimizer.transport")

PUBLISH_TIMEOUT_S: Final = 30.0
_SWEEP_S: Final = 1.0


class Published(Enum):
    """What became of a publish."""

    CONFIRMED = auto()
    """The broker has taken responsibility for it."""
    RETURNED = auto()
    """No queue takes this routing key."""
    REFUSED = auto()
    """The broker said no."""
    NOWHERE = auto()
    """The channel was closed since an exchange is missing; perhaps not the one of this message."""
    LOST = auto()
    """Nobody knows: the connection was lost, or no confirm came in time."""


OnPublished = Callable[[Published], None]


class Publisher(Supervised):
    """Publishes with confirms, pipelined: any number of publishes may wait for theirs at once.

    Under an alarm (memory, disk) RabbitMQ reads nothing more from whoever publishes. Then it is not up, and
    nothing is sent that would only pile up here.
    """

    confirms = True

    def __init__(self, url: str, name: str, on_reconnect: Callable[[], None] | None = None) -> None:
        super().__init__(url, f"{name} publishing")
        self._on_reconnect = on_reconnect
        self._waiting: dict[int, tuple[float, OnPublished]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._following: asyncio.Task[None] | None = None
        self._stopped = False

    def why_down(self) -> str:
        """One clause for an error's text."""
        return alarms.WHY if self._stopped else super().why_down()

    def knock(self) -> None:
        """Has RabbitMQ say whether it takes messages; `is_up` tells, a moment later."""
        self.send(alarms.KNOCK, lambda _: None)

    async def _opened(self, channel: LeanChannel) -> None:
        follow = alarms.follow_alarms(channel.connection, self._on_alarm)
        self._following = asyncio.create_task(follow, name=f"alarms {self.name}")
        if self._on_reconnect is not None:
            asyncio.get_running_loop().call_soon(self._on_reconnect)

    def _on_alarm(self, began: bool) -> None:
        self._stopped = began
        if began:
            self._up.clear()
            self.last_error = alarms.WHY
            log.warning("publishing stopped", extra={"connection": self.name, "error": alarms.WHY})
            return
        self._up.set()
        if self._on_reconnect is not None:
            self._on_reconnect()

    def send(self, message: Outgoing, told: OnPublished, timeout: float = PUBLISH_TIMEOUT_S) -> None:
        """Publishes once on the connection at hand, and tells what became of it, once, later.

        Args:
            message: What to publish.
            told: Called with the outcome; `LOST` where there is no connection.
            timeout: Seconds after which a broker that has not answered counts as lost.

        Raises:
            ValueError: The body is larger than any message may be; it would close the channel for everybody.
        """
        if len(message.body) > MAX_MESSAGE_BYTES:
            raise ValueError(f"{len(message.body)} bytes are more than the limit of {MAX_MESSAGE_BYTES}")
        channel, loop = self._channel, asyncio.get_running_loop()
        if channel is None or channel.is_closed or not self._up.is_set():
            loop.call_soon(told, Published.LOST)
            return

        def on_confirmed(word: Confirmed) -> None:
            if self._waiting.pop(tag, None):
                told(_WORDS[word])

        tag = channel.send(message, on_confirmed)
        self._waiting[tag] = (loop.time() + timeout, told)
        if self._timer is None:
            self._timer = loop.call_later(_SWEEP_S, self._sweep)

    async def publish(self, message: Outgoing, timeout: float = PUBLISH_TIMEOUT_S) -> Published:
        """Publishes once and waits for the broker's word, at most `timeout` seconds; as `send` otherwise."""
        if not self._up.is_set() and not await self.wait_until_up(timeout):
            return Published.LOST
        outcome: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self.send(message, lambda word: None if outcome.done() else outcome.set_result(word), timeout)
        return await outcome

    def _sweep(self) -> None:
        """Ends the wait for confirms that are overdue, however long the connection lives."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for tag, (until, told) in list(self._waiting.items()):
            if until <= now:
                del self._waiting[tag]
                if self._channel is not None:
                    self._channel.forget(tag)
                told(Published.LOST)
        if self._waiting:
            self._timer = loop.call_later(_SWEEP_S, self._sweep)

    def _lost(self) -> None:
        if self._following is not None:
            self._following.cancel()
        self._stopped = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        missing = isinstance(self._closed_by, aiormq.exceptions.ChannelNotFoundEntity)
        lost_as = Published.NOWHERE if missing else Published.LOST
        for _, told in waiting.values():
            told(lost_as)


_WORDS: Final = {
    Confirmed.ACK: Published.CONFIRMED,
    Confirmed.NACK: Published.REFUSED,
    Confirmed.RETURNED: Published.RETURNED,
}
