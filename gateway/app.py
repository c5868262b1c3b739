"""The gateway as an ASGI application: its routes, and the way of one call."""

import asyncio
from dataclasses import dataclass
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.answering import (
    CLIENT_GONE,
    REQUEST_ID,
    answer,
    error_answer,
    fault,
    json_response,
    rejection,
    whole_stream,
)
from gateway.following import Configured
from gateway.health import Health
from gateway.metrics import Call, Metrics
from gateway.models import Models
from gateway.reading import COMES_AGAIN_S, Asked, Operation, read_body, read_request
from gateway.rejecting import Rejected
from gateway.speakers import Speakers
from gateway.traffic import Traffic
from producer_sdk.calls import AsyncCalls
from producer_sdk.errors import OptimizerError, Overloaded
from topology.messages import Reply, new_id

_NEARLY: Final = 0.9
"""The client's clock began before ours, or after."""
_WHERE: Final = (
    "there is /v1/chat/completions, /v1/embeddings, /v1/models, /health and /metrics; a base URL ends in /v1"
)


@dataclass(frozen=True)
class Desk:
    """What all routes work with."""

    configured: Configured
    speakers: Speakers
    calls: AsyncCalls
    traffic: Traffic
    health: Health
    metrics: Metrics


def create_app(desk: Desk) -> Starlette:
    """Build the application; whoever made the desk opens and closes its connections."""
    models = Models(desk.configured, desk.speakers)
    observed = _Observed(desk)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", CallEndpoint(desk, "chat"), methods=["POST"]),
            Route("/v1/embeddings", CallEndpoint(desk, "embeddings"), methods=["POST"]),
            Route("/v1/models", models.all),
            Route("/v1/models/{model:path}", models.one),
            Route("/health", observed.health),
            Route("/metrics", observed.metrics),
        ],
        exception_handlers={HTTPException: _no_route, Rejected: _rejected, Exception: _fault},
    )


class CallEndpoint:
    """ASGI endpoint of one operation: read, ask, answer; and withdraw when the client hangs up."""

    def __init__(self, desk: Desk, operation: Operation) -> None:
        self._desk = desk
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry out one call."""
        loop = asyncio.get_running_loop()
        began, call = loop.time(), Call(self._operation)
        with self._desk.traffic.call():
            self._desk.metrics.began()
            try:
                response = await self._respond(HttpRequest(scope, receive), call)
                call.status = response.status_code
                await response(scope, receive, send)
            finally:
                self._desk.metrics.ended(call, loop.time() - began)

    async def _respond(self, http: HttpRequest, call: Call) -> Response:
        id_ = new_id()
        try:
            call.agent = self._desk.speakers.agent_of(http)
            body = await read_body(http)
            asked = read_request(
                self._operation, id_, call.agent, body, http.headers, self._desk.configured.fleet
            )
            call.reply = await self._ask(asked, http.receive)
            response = (
                whole_stream(call.reply, include_usage=asked.include_usage)
                if asked.streamed
                else answer(call.reply)
            )
        except Rejected as rejected:
            response = rejection(rejected)
        except OptimizerError as error:
            call.reply = error.reply
            response = error_answer(error)
        except ClientDisconnect:
            response = Response(status_code=CLIENT_GONE)  # for the metrics; nobody is there to read it
        response.headers[REQUEST_ID] = id_
        return response

    async def _ask(self, asked: Asked, receive: Receive) -> Reply:
        """The reply; a client that hangs up meanwhile withdraws the request.

        One that only lost its patience is about to ask again: its request stays for so long, or the same
        answer would be begun, cut and paid anew with each try.

        Raises:
            OptimizerError: What became of it instead.
            ClientDisconnect: The client hung up.
        """
        if self._desk.traffic.is_closing:
            raise Overloaded("the gateway is stopping; ask again, and another one answers")
        loop = asyncio.get_running_loop()
        began = loop.time()
        asking = asyncio.create_task(
            self._desk.calls.call(asked.request, asked.priority, asked.timeout_s), name="ask"
        )
        leaving = asyncio.create_task(_left(receive), name="client leaves")
        try:
            await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                if asked.patience_s is not None and loop.time() - began > _NEARLY * asked.patience_s:
                    await asyncio.wait({asking}, timeout=COMES_AGAIN_S)
                raise ClientDisconnect
            if asking.cancelled():  # not by us: the connections are closed
                raise Overloaded("the gateway stopped before the answer came; ask again, and it may be there")
            return asking.result()
        finally:
            asking.cancel()
            leaving.cancel()
            await asyncio.gather(asking, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    """Returns when the client has hung up. The body has been read: nothing else can come."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _Observed:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def health(self, _: HttpRequest) -> Response:
        reasons = ["draining"] if self._desk.traffic.is_closing else self._desk.health.reasons()
        return json_response({"healthy": not reasons, "unhealthy": reasons}, 503 if reasons else 200)

    async def metrics(self, _: HttpRequest) -> Response:
        return Response(self._desk.metrics.text(), media_type=CONTENT_TYPE_LATEST)


async def _rejected(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, Rejected)  # noqa: S101 - for the type checker
    return rejection(error)


async def _no_route(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
    if error.status_code == 405:
        message = f"{http.method} is not for {http.url.path}"
    else:
        message = f"{http.url.path}: no such path; {_WHERE}"
    return rejection(Rejected(error.status_code, message, headers=dict(error.headers or {})))


async def _fault(_: HttpRequest, __: Exception) -> Response:
    return fault()
