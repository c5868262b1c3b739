"""Carrying out one call over HTTP: wait, answer, notice that the caller left."""

import asyncio
from collections.abc import Callable
from enum import Enum

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from sandbox.simulator.ledger import Outcome
from sandbox.simulator.prompts import Prompt
from sandbox.simulator.provider import Admitted, Provider
from sandbox.simulator.replies import Reply, cut_short


class Waited(Enum):
    """How a wait ended."""

    FULLY = "the time has passed"
    CLIENT_GONE = "the client closed its connection"
    CLOSING = "the provider is shutting down"


class Waits:
    """All waits in progress, which end together when the provider shuts down."""

    def __init__(self) -> None:
        self._closing = False
        self._timers: set[asyncio.Timeout] = set()

    async def wait(self, receive: Receive, seconds: float) -> Waited:
        """Wait `seconds`, less if the client leaves or the provider shuts down."""
        if seconds <= 0.0:
            return Waited.FULLY
        if self._closing:
            return Waited.CLOSING
        timer = asyncio.timeout(seconds)
        try:
            async with timer:
                self._timers.add(timer)
                # The body has been read: the next message can only be the disconnection.
                await receive()
        except TimeoutError:
            return Waited.CLOSING if self._closing else Waited.FULLY
        finally:
            self._timers.discard(timer)
        return Waited.CLIENT_GONE

    def end_all(self) -> None:
        """End every wait now; waits that begin later end at once."""
        self._closing = True
        now = asyncio.get_running_loop().time()
        for timer in self._timers:
            timer.reschedule(now)


class CallEndpoint:
    """ASGI endpoint of one kind of call.

    Args:
        provider: Judges the calls.
        waits: Where the waits of calls are kept.
        read: Reads the body; raises `InvalidBodyError`.
    """

    def __init__(self, provider: Provider, waits: Waits, read: Callable[[bytes], Prompt]) -> None:
        self._provider = provider
        self._waits = waits
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, judge and answer one call."""
        request = Request(scope, receive)
        try:
            raw = await request.body()
        except ClientDisconnect:
            return  # it never reached the provider
        judged = self._provider.judge(raw, request.headers, self._read)
        if isinstance(judged, Reply):
            await self._send(judged, receive, send)
            return
        outcome: Outcome = "cut"  # what a call is that something unforeseen ends
        status: int | None = None
        try:
            outcome, status = await self._carry_out(judged, receive, send)
        finally:
            self._provider.finish(judged, outcome, status)

    async def _carry_out(self, call: Admitted, receive: Receive, send: Send) -> tuple[Outcome, int | None]:
        reply = call.reply
        match await self._waits.wait(receive, call.wait_s):
            case Waited.CLIENT_GONE:
                return ("timeout" if call.fault == "timeout" else "client_gone"), None
            case Waited.CLOSING:
                await self._send(cut_short(reply), receive, send)
                return "cut", reply.status
            case Waited.FULLY:
                pass
        match await self._send(reply, receive, send):
            case Waited.FULLY:
                return call.outcome, reply.status
            case Waited.CLIENT_GONE:
                return "client_gone", reply.status
            case Waited.CLOSING:
                return "cut", reply.status

    async def _send(self, reply: Reply, receive: Receive, send: Send) -> Waited:
        headers = dict(reply.headers)
        pieces = reply.pieces if reply.gap_s > 0.0 else (b"".join(reply.pieces),)
        if reply.whole and len(reply.pieces) == 1:
            headers["content-length"] = str(len(reply.pieces[0]))
        packed = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": packed})
        for index, piece in enumerate(pieces):
            waited = await self._waits.wait(receive, reply.gap_s if index else 0.0)
            if waited is not Waited.FULLY:
                return waited
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if reply.whole:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        # Otherwise the server closes the connection, for the response is not complete.
        return Waited.FULLY
