"""The OpenAI wire protocol: a request as it is sent, an answer as it is read.

A call has ended well only with a finish reason and without an `error` in the body, under status 200
too: OpenRouter reports failures after generation began that way.
"""

import json
from collections.abc import Mapping
from typing import Any

from topology.errors import ErrorType
from topology.messages import Request, Usage
from topology.providers.bodies import error_in, parsed
from topology.providers.failures import failure_of
from topology.providers.outcomes import Completion, Failure, FailureKind
from topology.providers.said import limits_in_headers


def path_of(request: Request) -> str:
    """The path below the base URL."""
    return "/embeddings" if request.operation == "embeddings" else "/chat/completions"


def body_of(request: Request, model: str) -> bytes:
    """The JSON body for this model; unknown parameters pass through untouched."""
    params = {k: v for k, v in request.params.items() if k not in {"stream", "stream_options"}}
    return json.dumps({**params, "model": model}, allow_nan=False).encode("utf-8", "surrogatepass")


def read_answer(
    operation: str,
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    *,
    provider: str | None = None,
) -> Completion | Failure:
    """What the provider's answer means.

    Args:
        operation: `chat` or `embeddings`.
        status: The HTTP status.
        headers: Those of the answer, in any case.
        content: The body as it came.
        provider: The catalogue's name of who answered, for what only its own errors say.
    """
    body = parsed(content)
    if status >= 400:
        return failure_of(provider, status, headers, error_in(body, content))
    if not isinstance(body, dict):
        return _cut_off("the answer is not JSON")
    if body.get("error"):
        error = error_in(body)
        return failure_of(provider, _inner_status(error.error.get("code")), headers, error)
    if not _is_complete(operation, body):
        return _cut_off("the answer has no finish reason")
    limits = tuple(limits_in_headers(provider, headers))
    return Completion(body=body, usage=_usage(body), model=body.get("model"), limits=limits)


def _inner_status(code: Any) -> int:
    """The status that an error inside a good answer names; without one, the provider is at fault."""
    return code if isinstance(code, int) and 400 <= code < 600 else 502


def _is_complete(operation: str, body: dict[str, Any]) -> bool:
    if operation == "embeddings":
        return isinstance(body.get("data"), list)
    choices = body.get("choices")
    return (
        isinstance(choices, list)
        and bool(choices)
        and all(isinstance(c, dict) and c.get("finish_reason") for c in choices)
    )


def _usage(body: dict[str, Any]) -> Usage:
    usage = body.get("usage")
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    counts = {n: usage[n] for n in names if isinstance(usage, dict) and isinstance(usage.get(n), int)}
    if "prompt_tokens" in counts:
        counts.setdefault("completion_tokens", 0)  # embeddings generate none
    return Usage(**counts)


def _cut_off(message: str) -> Failure:
    return Failure(FailureKind.AMBIGUOUS, ErrorType.PROVIDER_ERROR, message, 200)
