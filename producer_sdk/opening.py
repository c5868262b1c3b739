"""One connection of aiormq's, opened and closed so that nothing of it is left behind, whenever that ends.

Cancelling aiormq while it connects loses what has just been opened: the result of a task that had come to
its end is thrown away, and the connection lives on with its reader, writer and heartbeat. So it is never
cancelled here. Its line is cut instead, and it comes to its end by itself.
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import ContextVar, copy_context
from typing import Any, Final

import aiormq
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from producer_sdk.connecting import CONNECT_TIMEOUT_S, SILENT

HEARTBEAT_S: Final = 15
_CLOSE_TIMEOUT_S: Final = 5.0
_LEFT: Final = aiormq.exceptions.ConnectionClosed(200, "left")
_SILENT: Final = aiormq.exceptions.ConnectionClosed(320, SILENT)

ours: ContextVar[bool] = ContextVar("ours", default=False)
"""Set in the tasks that keep our connections."""

_Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Opening:
    """A connection that is being opened, is open, or is over.

    Args:
        url: RabbitMQ.
        name: What RabbitMQ's own pages call it.
    """

    def __init__(self, url: str, name: str) -> None:
        self._line = _CuttableLine()
        self.connection = _Connection(
            URL(url).update_query(heartbeat=str(HEARTBEAT_S)),
            client_properties={"connection_name": name},
            transport_factory=self._line,
        )

    async def open(self) -> None:
        """Opens it, within `CONNECT_TIMEOUT_S`.

        Raises:
            AMQPError: The broker refuses, or hung up.
            OSError: It cannot be reached.
            TimeoutError: It does not answer.
        """
        opening = _task_of_its_own(self.connection.connect())
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.shield(opening)
        except BaseException as error:
            self._line.cut()
            await asyncio.wait({opening})
            await self.close()
            if isinstance(error, StopAsyncIteration):  # how aiormq says that the other side hung up early
                raise aiormq.exceptions.AMQPConnectionError("closed during the handshake") from None
            raise

    async def close(self) -> None:
        """Ends it, in order if the broker answers soon, else by cutting its line."""
        closing = _task_of_its_own(self.connection.close(_LEFT))
        try:
            await asyncio.wait({closing}, timeout=_CLOSE_TIMEOUT_S)
        finally:
            self._line.cut()
            await asyncio.wait({closing})


class _Connection(aiormq.Connection):
    """Ends with a reason, always.

    On a line that falls silent aiormq cancels its reader, and would hand that cancellation to everybody who
    waits for an answer on it: tasks that nobody has cancelled would end without a word.
    """

    async def close(self, exc: Any = _LEFT, timeout: Any = None) -> None:
        await super().close(_SILENT if isinstance(exc, asyncio.CancelledError) else exc, timeout)


def _task_of_its_own(work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
    """It is never cancelled, and nobody need ask how it ended."""
    context = copy_context()
    context.run(ours.set, True)
    task = asyncio.create_task(work, context=context)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return task


class _CuttableLine(TransportFactory):
    """Opens a connection's TCP line, and ends it at once when told, however far that has come."""

    def __init__(self) -> None:
        self._opening: asyncio.Future[_Line] | None = None
        self._is_cut = False

    async def create(self, url: URL, **kwargs: Any) -> _Line:
        if self._is_cut:
            raise aiormq.exceptions.AMQPConnectionError("left before it was opened")
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        self._opening = asyncio.ensure_future(factory.create(url, **kwargs))
        return await self._opening

    def cut(self) -> None:
        self._is_cut = True
        if self._opening is None or self._opening.cancel() or self._opening.cancelled():
            return
        if self._opening.exception() is None:
            _, writer = self._opening.result()
            writer.transport.abort()


class _SaidOnce(logging.Filter):
    """Drops what aiormq says of our connections, tracebacks and all: their supervisor says it in one line.

    Whoever sets a level for the logger `aiormq` sees it all.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not ours.get() or logging.getLogger("aiormq").level != logging.NOTSET


for _name in ("aiormq.connection", "aiormq.channel"):
    logging.getLogger(_name).addFilter(_SaidOnce())
