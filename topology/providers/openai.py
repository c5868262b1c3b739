"""The OpenAI wire protocol: a request as it is sent, an answer as it is read.

A call has ended well only with a finish reason and without an `error` in the body, under status 200
too: OpenRouter reports failures after generation began that way.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from topology.errors import ErrorType
from topology.messages import Request, Usage
from topology.providers.outcomes import Completion, Failure, FailureKind, retry_after_s

_LONGEST_MESSAGE: Final = 500

_QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_CONTEXT_CODES: Final = frozenset({"context_length_exceeded", "string_above_max_length"})
_FILTER_CODES: Final = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})


def path_of(request: Request) -> str:
    """The path below the base URL."""
    return "/embeddings" if request.operation == "embeddings" else "/chat/completions"


def body_of(request: Request, model: str) -> bytes:
    """The JSON body for this model; unknown parameters pass through untouched."""
    params = {k: v for k, v in request.params.items() if k not in {"stream", "stream_options"}}
    return json.dumps({**params, "model": model}, allow_nan=False).encode("utf-8", "surrogatepass")


def read_answer(
    operation: str, status: int, headers: Mapping[str, str], content: bytes
) -> Completion | Failure:
    """What the provider's answer means."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if status >= 400:
        return _failure(status, headers, _error_in(body))
    if not isinstance(body, dict):
        return _cut_off("the answer is not JSON")
    if body.get("error"):
        error = _error_in(body)
        code = error.get("code")
        inner = code if isinstance(code, int) and 400 <= code < 600 else 502
        return _failure(inner, headers, error)
    if not _is_complete(operation, body):
        return _cut_off("the answer has no finish reason")
    return Completion(body=body, usage=_usage(body), model=body.get("model"))


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


def _error_in(body: Any) -> dict[str, Any]:
    """The error object; Cerebras and others send it flat, Ollama as a text."""
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body)
    return error if isinstance(error, dict) else {"message": str(error)}


def _failure(status: int, headers: Mapping[str, str], error: Mapping[str, Any]) -> Failure:
    words = {str(error.get("code")), str(error.get("type"))}
    kind, error_type = _classify(status, words)
    message = error.get("message")
    text = message if isinstance(message, str) and message else f"HTTP status {status}"
    wait_s = retry_after_s(headers)
    return Failure(kind, error_type, text[:_LONGEST_MESSAGE], status, wait_s, _code(error))


def _code(error: Mapping[str, Any]) -> str | None:
    """The error's code or type, if it is a word and no sentence."""
    for name in ("code", "type"):
        word = str(error.get(name) or "")
        if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", word):
            return word
    return None


def _classify(status: int, words: set[str]) -> tuple[FailureKind, ErrorType]:  # noqa: PLR0911 - a table
    if words & _QUOTA_CODES:
        return FailureKind.QUOTA_GONE, ErrorType.BUDGET_EXHAUSTED
    if words & _CONTEXT_CODES:
        return FailureKind.REQUEST_AT_FAULT, ErrorType.CONTEXT_TOO_LONG
    if words & _FILTER_CODES:
        return FailureKind.REQUEST_AT_FAULT, ErrorType.CONTENT_FILTERED
    match status:
        case 429:
            return FailureKind.THROTTLED, ErrorType.RATE_LIMITED
        case 401 | 403:
            return FailureKind.KEY_REFUSED, ErrorType.AUTHENTICATION
        case 402:
            return FailureKind.QUOTA_GONE, ErrorType.BUDGET_EXHAUSTED
        case 404:
            return FailureKind.REQUEST_AT_FAULT, ErrorType.NO_MODEL_AVAILABLE
        case 408 | 409 | 425:
            return FailureKind.CAPACITY, ErrorType.PROVIDER_ERROR
        case _ if status >= 500:
            return FailureKind.CAPACITY, ErrorType.PROVIDER_ERROR
        case _:
            return FailureKind.REQUEST_AT_FAULT, ErrorType.INVALID_REQUEST


def _cut_off(message: str) -> Failure:
    return Failure(FailureKind.AMBIGUOUS, ErrorType.PROVIDER_ERROR, message, 200)
