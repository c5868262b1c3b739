"""A connection to RabbitMQ that is opened again whenever it is lost, for ever, with growing back-off."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self

import aiormq
from aiormq import Channel
from aiormq.abc import AbstractConnection
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from producer_sdk.amqp_url import node_urls, rotation
from producer_sdk.channel import LeanChannel
from producer_sdk.connecting import ANSWER_S, AWAY, CONNECT_TIMEOUT_S, NO_SUCH_QUEUE
from producer_sdk.decoding import make_decoding_total
from producer_sdk.opening import Opening, ours
from producer_sdk.settings import masked

log = logging.getLogger("optimizer.transport")

_LONGEST_BACKOFF_S: Final = 5.0


class Supervised:
    """One connection with one channel that is opened again whenever it is lost.

    Where the URL names several nodes, each attempt goes to the next one. Owns its task; entering starts it
    without waiting for the broker, leaving closes the connection.
    """

    confirms = False

    def __init__(self, url: str, name: str) -> None:
        make_decoding_total()
        self.url = url
        self.name = name
        self._nodes = rotation(node_urls(url))
        self.last_error: str | None = None
        self._channel: LeanChannel | None = None
        self._closed_by: BaseException | None = None
        self._given_up = asyncio.Event()
        self._up = asyncio.Event()
        self._leaving = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._task is None:
            self._leaving = False
            self._task = asyncio.create_task(self._run(), name=f"connection {self.name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._leaving = True
            self._task.cancel()
            with suppress(asyncio.CancelledError, *AWAY):
                await self._task
            self._task = None

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """What keeps the connection; it ends only by a fault of ours, or when this is left."""
        return self._task

    @property
    def is_up(self) -> bool:
        """Whether the connection can be used right now."""
        return self._up.is_set()

    async def wait_until_up(self, timeout: float | None = None) -> bool:
        """Waits for the connection, at most `timeout` seconds; False when it did not come."""
        if self._up.is_set() or self._task is None:
            return self._up.is_set()
        waiting = asyncio.ensure_future(self._up.wait())
        try:
            await asyncio.wait({waiting, self._task}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()  # a fault of ours must not look like a broker that is away
        return self._up.is_set()

    def why_down(self) -> str:
        """One clause for an error's text."""
        return f"RabbitMQ at {masked(self.url)} cannot be reached ({self.last_error or 'no answer yet'})"

    @asynccontextmanager
    async def another_channel(self) -> AsyncIterator[Channel]:
        """Another channel on the connection at hand, for what the broker may close it for.

        Raises:
            ChannelInvalidStateError: There is no connection at present; see `AWAY` for what else may happen.
        """
        if self._channel is None or self._channel.connection.is_closed:
            raise aiormq.exceptions.ChannelInvalidStateError("no connection at present")
        channel = await self._channel.connection.channel(publisher_confirms=False)
        try:
            yield channel  # type: ignore[misc]  # aiormq promises less than it gives
        except Exception as error:
            if type(error) is Exception:  # aiormq's word for a channel that ended while something was asked
                raise aiormq.exceptions.ChannelInvalidStateError("closed meanwhile") from error
            raise
        finally:
            if not channel.is_closed:
                with suppress(*AWAY):
                    await channel.close()

    async def has_queue(self, queue: str) -> bool | None:
        """Whether the queue stands; None: nobody can tell now, as when its node is down."""
        try:
            async with asyncio.timeout(ANSWER_S), self.another_channel() as channel:
                await channel.queue_declare(queue, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            return False if NO_SUCH_QUEUE in str(error) else None
        except AWAY:
            return None
        return True

    async def _opened(self, channel: LeanChannel) -> None:
        """What a fresh channel needs before the connection counts as up."""

    def _lost(self) -> None:
        """Called when the channel is gone."""

    async def _run(self) -> None:
        ours.set(True)
        while True:
            opened = await self._connect()
            try:
                await self._use(opened.connection)
            except AWAY as error:
                self._closed_by, self.last_error = error, _describe(error)
                log.warning("channel failed", extra={"connection": self.name, "error": self.last_error})
                if not self._leaving:
                    await asyncio.sleep(1.0)  # a missing queue or a refused right will not mend at once
            finally:
                await opened.close()
            if self._leaving:  # a cancellation while a channel is opened can be swallowed on its way here
                return

    async def _use(self, connection: AbstractConnection) -> None:
        """One channel, from its opening until it is lost."""
        try:
            self._channel = await open_channel(connection, confirms=self.confirms)
            await self._opened(self._channel)
            if self._leaving:
                return
            self._up.set()
            self._closed_by = await self._end_of(self._channel.closing)
            self.last_error = _describe(self._closed_by) if self._closed_by else "closed"
            log.warning(
                "connection lost (%s), connecting again", self.last_error, extra={"connection": self.name}
            )
        finally:
            self._up.clear()
            channel, self._channel = self._channel, None
            try:
                if channel is not None and not channel.is_closed:
                    with suppress(*AWAY):
                        await channel.flush()
            finally:
                self._lost()

    def _give_up(self) -> None:
        """The broker owes an answer on this channel that does not come: another connection may get it."""
        self._given_up.set()

    async def _end_of(self, closing: "asyncio.Future[Any]") -> BaseException | None:
        """Waits until the channel is closed, or given up; returns why."""
        self._given_up.clear()
        giving_up = asyncio.ensure_future(self._given_up.wait())
        ends: list[asyncio.Future[Any]] = [closing, giving_up]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            giving_up.cancel()
        if not closing.done():
            return TimeoutError(f"no answer within {ANSWER_S:g} s")
        return None if closing.cancelled() else closing.exception()

    async def _connect(self) -> Opening:
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, AWAY)),
            wait=wait_random_exponential(multiplier=0.2, max=_LONGEST_BACKOFF_S),
            before_sleep=self._note_failure,
        )
        async for attempt in retrying:
            with attempt:
                opening = Opening(next(self._nodes), self.name)
                await opening.open()
        return opening

    def _note_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.last_error = _describe(error) if error else None
        log.info("broker away", extra={"connection": self.name, "error": self.last_error})


async def open_channel(connection: AbstractConnection, *, confirms: bool) -> LeanChannel:
    """The one channel of a connection."""
    channel = connection.channels[1] = LeanChannel(connection, 1, confirms=confirms)
    await channel.open(timeout=CONNECT_TIMEOUT_S)
    return channel


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
