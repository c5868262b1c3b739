"""The simulated provider as an ASGI application."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from sandbox.simulator import replies
from sandbox.simulator.calls import CallEndpoint, Waits
from sandbox.simulator.invoice import write_invoice
from sandbox.simulator.prompts import read_chat, read_embeddings
from sandbox.simulator.provider import Provider
from sandbox.simulator.settings import Settings


def create_app(settings: Settings, ledger_path: Path | None = None) -> Starlette:
    """Build the application; `app.state.waits.end_all()` ends the calls in progress.

    Args:
        settings: What the provider is told at first.
        ledger_path: File that finished calls are appended to as JSON lines. `None`: none.
    """
    provider = Provider(settings, ledger_path)
    waits = Waits()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        provider.ledger.open()
        try:
            yield
        finally:
            provider.ledger.close()

    chat = CallEndpoint(provider, waits, read_chat)
    embeddings = CallEndpoint(provider, waits, read_embeddings)
    catalogue = _Catalogue(provider)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/embeddings", embeddings, methods=["POST"]),
            Route("/v1/models", catalogue.models),
            Mount("/_simulator", routes=_Admin(provider).routes()),
        ],
        lifespan=lifespan,
    )
    app.state.waits = waits
    return app


class _Catalogue:
    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def models(self, request: Request) -> Response:
        if self._provider.account(request.headers) is None:
            refusal = replies.unknown_key()
            return Response(refusal.pieces[0], refusal.status, refusal.headers)
        models = [
            {"id": model.id, "object": "model", "created": 0, "owned_by": "simulator"}
            for model in self._provider.settings.models
        ]
        return JSONResponse({"object": "list", "data": models})


class _Admin:
    """What tests and benchmarks ask the simulator, under /_simulator and without a key."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def routes(self) -> list[Route]:
        return [
            Route("/health", self.health),
            Route("/ledger", self.ledger),
            Route("/invoice", self.invoice),
            Route("/summary", self.summary),
            Route("/reset", self.reset, methods=["POST"]),
            Route("/settings", self.change, methods=["PATCH"]),
        ]

    async def health(self, _request: Request) -> Response:
        counts = {"in_flight": self._provider.in_flight, "calls": len(self._provider.ledger)}
        return JSONResponse({"status": "ok", **counts})

    async def ledger(self, request: Request) -> Response:
        since = request.query_params.get("since", "0")
        if not since.isdecimal():
            return JSONResponse({"error": "since must be a sequence number"}, 400)
        entries = self._provider.ledger.since(int(since))
        return JSONResponse({"entries": [entry.model_dump() for entry in entries]})

    async def invoice(self, request: Request) -> Response:
        entries = self._provider.ledger.since(0)
        match request.query_params.get("format", "csv"):
            case "csv":
                return Response(write_invoice(entries, "csv"), media_type="text/csv")
            case "jsonl":
                return Response(write_invoice(entries, "jsonl"), media_type="application/jsonl")
            case _:
                return JSONResponse({"error": "format must be csv or jsonl"}, 400)

    async def summary(self, _request: Request) -> Response:
        return JSONResponse(self._provider.summary().model_dump())

    async def reset(self, _request: Request) -> Response:
        self._provider.reset()
        return JSONResponse({})

    async def change(self, request: Request) -> Response:
        try:
            changes = json.loads(await request.body())
            if not isinstance(changes, dict):
                return JSONResponse({"error": "settings must be a JSON object"}, 400)
            self._provider.change(changes)
        except ValidationError as exc:
            faults = exc.errors(include_url=False, include_context=False, include_input=False)
            return JSONResponse({"error": faults}, 400)
        except ValueError:
            return JSONResponse({"error": "settings must be JSON"}, 400)
        return JSONResponse({})
