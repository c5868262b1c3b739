"""Replies as values: good answers, faulty ones and refusals in OpenAI's shapes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, assert_never

from sandbox.simulator.answers import (
    ChatAnswer,
    EmbeddingsAnswer,
    chat_body,
    chat_chunks,
    embeddings_body,
)
from sandbox.simulator.limits import Excess, Standing
from sandbox.simulator.prompts import ChatPrompt, EmbeddingsPrompt
from sandbox.simulator.settings import Fault


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent for a call."""

    status: int
    pieces: tuple[bytes, ...]
    """The body, in the pieces it is sent in."""
    headers: dict[str, str] = field(default_factory=dict)
    gap_s: float = 0.0
    """Seconds between the pieces."""
    whole: bool = True
    """Whether the body is completed; if not, the connection closes after the pieces."""


def chat_reply(
    prompt: ChatPrompt, answer: ChatAnswer, fault: Fault, answer_id: str, created: int, gap_s: float
) -> Reply:
    """The reply to an admitted chat completion. `gap_s` stands between the chunks of a stream."""
    finished = fault != "no_finish_reason"
    if not prompt.stream:
        return _faulty(_json(200, chat_body(prompt, answer, answer_id, created, finished=finished)), fault)
    chunks = chat_chunks(prompt, answer, answer_id, created, finished=finished)
    pieces = (*(_event(chunk) for chunk in chunks), b"data: [DONE]\n\n")
    reply = Reply(200, pieces, {"content-type": "text/event-stream; charset=utf-8"}, gap_s)
    return _faulty(reply, fault)


def embeddings_reply(prompt: EmbeddingsPrompt, answer: EmbeddingsAnswer, fault: Fault) -> Reply:
    """The reply to admitted embeddings."""
    return _faulty(_json(200, embeddings_body(prompt, answer)), fault)


def cut_short(reply: Reply) -> Reply:
    """The first half of a reply, after which the connection closes."""
    pieces = reply.pieces[: ceil(len(reply.pieces) / 2)]
    if len(reply.pieces) == 1:
        pieces = (pieces[0][: len(pieces[0]) // 2],)
    return replace(reply, pieces=pieces, whole=False)


def bad_request(message: str, param: str | None) -> Reply:
    """Status 400: the body cannot be read."""
    return _error(400, message, "invalid_request_error", param=param)


def unknown_key() -> Reply:
    """Status 401: no account has this key."""
    return _error(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key")


def unknown_model(model: str) -> Reply:
    """Status 404: the model is not on offer."""
    message = f"The model `{model}` does not exist or you do not have access to it."
    return _error(404, message, "invalid_request_error", "model_not_found", "model")


def unsupported(param: str) -> Reply:
    """Status 400: the model does not take this parameter."""
    message = f"Unsupported parameter: '{param}' is not supported with this model."
    return _error(400, message, "invalid_request_error", "unsupported_parameter", param)


def over_limit(model: str, account: str, excess: Excess) -> Reply:
    """Status 429: a rate limit forbids the call for now."""
    limit, capacity = excess.standing.limit, excess.standing.capacity
    facts = f"Limit {capacity}, Used {ceil(excess.standing.used)}, Requested {excess.cost}"
    subject = f"{model} in organization {account} on {limit.kind} per {limit.window_s:g} s"
    if excess.cost > capacity:
        message = f"Request too large for {subject}: {facts}."
    else:
        message = f"Rate limit reached for {subject}: {facts}."
    return throttled(message, limit.kind, excess.wait_s)


def throttled(message: str, kind: str, wait_s: float) -> Reply:
    """Status 429, saying when to come again."""
    wait_ms = ceil(wait_s * 1000)
    headers = {"retry-after": str(ceil(wait_ms / 1000)), "retry-after-ms": str(wait_ms)}
    message = f"{message} Please try again in {wait_ms / 1000:.3f}s."
    return with_headers(_error(429, message, kind, "rate_limit_exceeded"), headers)


def limit_headers(standings: Sequence[Standing]) -> dict[str, str]:
    """OpenAI's `x-ratelimit-*` headers.

    https://platform.openai.com/docs/guides/rate-limits, "Rate limits in headers".
    """
    headers: dict[str, str] = {}
    for standing in standings:
        kind = standing.limit.kind
        headers[f"x-ratelimit-limit-{kind}"] = str(standing.capacity)
        headers[f"x-ratelimit-remaining-{kind}"] = str(standing.remaining)
        headers[f"x-ratelimit-reset-{kind}"] = go_duration(standing.reset_s)
    return headers


def with_headers(reply: Reply, headers: dict[str, str]) -> Reply:
    """The reply with further headers."""
    return replace(reply, headers={**reply.headers, **headers})


def go_duration(seconds: float) -> str:
    """A duration as Go prints it, to the millisecond, rounded up: `6m0s`, `1.2s`, `120ms`, `0s`."""
    total_ms = ceil(seconds * 1000)
    if 0 < total_ms < 1000:
        return f"{total_ms}ms"
    minutes, ms = divmod(total_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def server_error() -> Reply:
    """Status 500."""
    return _error(500, "The server had an error while processing your request.", "server_error")


def unavailable() -> Reply:
    """Status 503."""
    return _error(503, "The engine is currently overloaded.", "service_unavailable")


def gave_up() -> Reply:
    """Status 504, after a hang."""
    return _error(504, "The request timed out.", "timeout")


def _faulty(reply: Reply, fault: Fault) -> Reply:
    in_stream = reply.headers["content-type"].startswith("text/event-stream")
    match fault:
        case "ok" | "slow" | "no_finish_reason":
            pass
        case "server_error":
            reply = server_error()
        case "unavailable":
            reply = unavailable()
        case "timeout":
            reply = gave_up()
        case "cut":
            reply = cut_short(reply)
        case "malformed":
            broken = b'{"id": "chatcmpl-<html>oops\n\n'
            reply = replace(reply, pieces=(b"data: " + broken if in_stream else broken,))
        case "error_in_200":
            error = _error_body("The model failed while generating.", "server_error", None, None)
            reply = replace(reply, pieces=(_event(error) if in_stream else _dumped(error),))
        case "rate_limited":
            raise ValueError("a call refused by a fault is not admitted")
        case _:
            assert_never(fault)
    return reply


def _error(status: int, message: str, kind: str, code: str | None = None, param: str | None = None) -> Reply:
    return _json(status, _error_body(message, kind, code, param))


def _error_body(message: str, kind: str, code: str | None, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _json(status: int, body: dict[str, Any]) -> Reply:
    return Reply(status, (_dumped(body),), {"content-type": "application/json"})


def _dumped(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + _dumped(body) + b"\n\n"
