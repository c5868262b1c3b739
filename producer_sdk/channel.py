"""An AMQP channel for many small messages: no task, lock or future for each of them.

aiormq runs a task for each delivery and holds a lock around each publish. This channel keeps its
connection, its frames and its life cycle, and replaces what happens for each message by plain calls.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.frame import marshal

from producer_sdk.outgoing import Outgoing, ack_frame

if TYPE_CHECKING:
    from aiormq.abc import AbstractConnection, ExceptionType

log = logging.getLogger("optimizer.transport")

_FRAMES_AHEAD: Final = 1000
_TURNS: Final = 100


class Confirmed(Enum):
    """The broker's word on a publish."""

    ACK = auto()
    NACK = auto()
    RETURNED = auto()


OnConfirmed = Callable[[Confirmed], None]
OnMessage = Callable[[DeliveredMessage], None]


class LeanChannel(aiormq.Channel):
    """A channel whose publishes and deliveries are calls, not tasks.

    Publishes and acknowledgements of one turn of the event loop go out in one write. All publishes of the
    channel must go through `send`, which numbers them.
    """

    def __init__(self, connection: "AbstractConnection", number: int, *, confirms: bool) -> None:
        super().__init__(connection, number, publisher_confirms=confirms, frame_buffer=_FRAMES_AHEAD)
        self._largest_frame = self.max_content_size
        self._sent = 0
        self._unconfirmed: dict[int, OnConfirmed] = {}
        self._listeners: dict[str, OnMessage] = {}
        self._consumers_named = count(1)
        self._batch: _Batch | None = None
        self._putting: set[asyncio.Task[None]] = set()

    def _cancel_tasks(self, exc: "ExceptionType | None" = None) -> Coroutine[Any, Any, None]:
        # Without a reason aiormq ends what is being asked with a bare `Exception`, which says nothing, or
        # with its own reader's cancellation, which is nobody else's.
        if exc is None or isinstance(exc, asyncio.CancelledError):
            exc = aiormq.exceptions.ChannelInvalidStateError("closed meanwhile")
        return super()._cancel_tasks(exc)

    def send(self, message: Outgoing, on_confirmed: OnConfirmed) -> int:
        """Publishes; `on_confirmed` is called with the broker's word, unless the channel closes before.

        Returns:
            The delivery tag, by which `forget` drops the interest in that word.

        Raises:
            ValueError: It cannot be packed; nothing of it was sent.
        """
        tag = self._sent + 1
        # A returned message is known by this id: new for each transmission, and the tag is in it.
        frames = message.frames(self.number, f"{id(self):x}-{tag}", self._largest_frame)
        self._sent = tag
        self._unconfirmed[tag] = on_confirmed
        self._write(frames)
        return tag

    def forget(self, tag: int) -> None:
        """Nobody wants to know any more what becomes of this publish."""
        self._unconfirmed.pop(tag, None)

    def acknowledge(self, tag: int) -> None:
        """Acknowledges one delivery."""
        self._write(ack_frame(self.number, tag))

    def give_back(self, tag: int) -> None:
        """Has one delivery handed out again."""
        self._write(marshal(Basic.Nack(tag, requeue=True), self.number))

    async def listen(self, queue: str, on_message: OnMessage) -> str:
        """Consumes a queue with manual acknowledgement; returns the consumer's tag."""
        tag = f"c{next(self._consumers_named)}"
        self._listeners[tag] = on_message
        await self.rpc(Basic.Consume(queue=queue, consumer_tag=tag))
        self.consumers[tag] = _never  # aiormq answers for a consumer that the broker cancels
        return tag

    async def stop_listening(self, tag: str) -> None:
        """Ends a consumer; what was delivered to it stays with us until it is acknowledged."""
        await self.basic_cancel(tag)
        self._listeners.pop(tag, None)

    async def flush(self) -> None:
        """Gives the connection's writer the turns that it needs to take what was sent so far."""
        for _ in range(_TURNS):
            if self._batch is None or self.connection.is_closed:
                break
            await asyncio.sleep(0)

    def _write(self, frame: bytes) -> None:
        if self._batch is None:
            self._batch = _Batch(self._taken)
            try:
                self.write_queue.put_nowait(self._batch)
            except asyncio.QueueFull:
                task = self.loop.create_task(self.write_queue.put(self._batch), name="wait for the writer")
                self._putting.add(task)
                task.add_done_callback(self._putting.discard)
        self._batch.frames.append(frame)

    def _taken(self) -> None:
        self._batch = None

    async def _on_deliver_frame(self, frame: Basic.Deliver) -> None:
        header = await self._get_frame()
        message = await self._read_content(frame, header)  # type: ignore[arg-type]  # AMQP's order of frames
        listener = self._listeners.get(frame.consumer_tag or "")
        if listener is None:
            return
        try:
            listener(message)
        except Exception:  # a fault of ours; the channel has other consumers
            log.exception("a delivery's callback failed")

    async def _on_return_frame(self, frame: Basic.Return) -> None:
        header = await self._get_frame()
        message = await self._read_content(frame, header)  # type: ignore[arg-type]
        tag = int((message.header.properties.message_id or "-0").rpartition("-")[2])
        if on_confirmed := self._unconfirmed.pop(tag, None):
            on_confirmed(Confirmed.RETURNED)

    async def _on_confirm_frame(self, frame: Basic.Ack | Basic.Nack | Basic.Reject) -> None:
        word = Confirmed.ACK if isinstance(frame, Basic.Ack) else Confirmed.NACK
        last = frame.delivery_tag or 0
        if not getattr(frame, "multiple", False):
            if on_confirmed := self._unconfirmed.pop(last, None):
                on_confirmed(word)
            return
        covered = []
        for tag in self._unconfirmed:  # in the order of their numbers
            if tag > last:
                break
            covered.append(tag)
        for tag in covered:
            if on_confirmed := self._unconfirmed.pop(tag, None):
                on_confirmed(word)


class _Batch:
    """Frames that go out in one write: it takes more of them until the connection's writer comes for it.

    To the writer it is a `ChannelFrame`.
    """

    should_close = False
    should_drain = False

    def __init__(self, taken: Callable[[], None]) -> None:
        self.frames: list[bytes] = []
        self._taken = taken

    @property
    def payload(self) -> bytes:
        self._taken()
        return b"".join(self.frames)


async def _never(_: DeliveredMessage) -> None:
    raise AssertionError("deliveries are given to listeners")
