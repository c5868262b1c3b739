"""From what a call came to, to HTTP: the provider's body as it is, errors in OpenAI's shape."""

import json
import math
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from starlette.responses import Response

from gateway.rejecting import Rejected
from gateway.whole_stream import chunked
from producer_sdk.errors import OptimizerError
from topology.errors import ErrorType
from topology.messages import Reply

REQUEST_ID: Final = "x-request-id"
CLIENT_GONE: Final = 499

_INVALID: Final = "invalid_request_error"
_SERVER: Final = "server_error"
_KINDS: Final[dict[ErrorType, tuple[str, str | None]]] = {
    ErrorType.INVALID_REQUEST: (_INVALID, None),
    ErrorType.CONTEXT_TOO_LONG: (_INVALID, "context_length_exceeded"),
    ErrorType.CONTENT_FILTERED: (_INVALID, "content_filter"),
    ErrorType.AUTHENTICATION: ("authentication_error", "provider_key_refused"),
    ErrorType.BUDGET_EXHAUSTED: ("insufficient_quota", "insufficient_quota"),
    ErrorType.NO_MODEL_AVAILABLE: (_INVALID, "model_not_found"),
    ErrorType.RATE_LIMITED: ("rate_limit_error", "rate_limit_exceeded"),
    ErrorType.CANCELLED: (_INVALID, "cancelled"),
    ErrorType.INTERNAL: (_SERVER, "internal"),
    ErrorType.PROVIDER_ERROR: (_SERVER, "provider_error"),
    ErrorType.OVERLOADED: (_SERVER, "overloaded"),
    ErrorType.DEADLINE_EXCEEDED: (_SERVER, "deadline_exceeded"),
}
"""OpenAI's `type` and `code`; where OpenAI has no code, the wire's own word."""

_WORTH_RETRYING: Final = frozenset({ErrorType.OVERLOADED, ErrorType.INTERNAL})
"""For the others all waiting has been done here: a client that tries again would only wait twice."""
_OVERLOADED_S: Final = 1


def json_response(
    value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON body; what a model wrote is escaped as it must be, half an emoji too."""
    return Response(json.dumps(value), status, dict(headers or {}), "application/json")


def answer(reply: Reply) -> Response:
    """The provider's body, and in headers what the optimizer knows of it."""
    return json_response(reply.body or {}, headers=_facts(reply))


def whole_stream(reply: Reply, *, include_usage: bool) -> Response:
    """The same as a stream of one piece, for clients that cannot do without a stream."""
    events = chunked(reply.body or {}, include_usage=include_usage)
    return Response(events, 200, _facts(reply), "text/event-stream")


def error_answer(error: OptimizerError) -> Response:
    """What became of a call instead."""
    kind, code = _KINDS[error.type]
    headers = {"x-should-retry": "true" if error.type in _WORTH_RETRYING else "false"}
    if error.reply is not None:
        headers |= _facts(error.reply)
    if (wait_s := _wait_s(error)) is not None:
        headers["retry-after"] = str(wait_s)
    return _error(error.type.http_status, error.message, kind, code, None, headers)


def rejection(rejected: Rejected) -> Response:
    """What the gateway itself says no to."""
    headers = {"x-should-retry": "false", **rejected.headers}
    return _error(rejected.status, rejected.message, _INVALID, rejected.code, rejected.param, headers)


def fault() -> Response:
    """A fault of ours; the log has it."""
    return _error(500, "the gateway failed; its log says why", *_KINDS[ErrorType.INTERNAL], None, {})


def _error(
    status: int,
    message: str,
    kind: str,
    code: str | None,
    param: str | None,
    headers: Mapping[str, str],
) -> Response:
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json_response({"error": error}, status, headers)


def _facts(reply: Reply) -> dict[str, str]:
    facts = {
        "x-optimizer-source": reply.source,
        "x-optimizer-provider": reply.provider,
        "x-optimizer-model": reply.model,
        "x-optimizer-cost-usd": None if reply.cost_usd is None else _decimal(reply.cost_usd),
    }
    # A model's name may be the client's own words: nothing of it may end the header.
    return {name: quote(value, safe="/:@+,;=~ ") for name, value in facts.items() if value is not None}


def _decimal(usd: float) -> str:
    return f"{usd:.9f}".rstrip("0").rstrip(".")


def _wait_s(error: OptimizerError) -> int | None:
    """Whole seconds after which to come again, where they are known."""
    if error.type is ErrorType.OVERLOADED:
        return _OVERLOADED_S
    report = error.reply.error if error.reply else None
    if report is None or report.retry_after_s is None:
        return None
    return math.ceil(report.retry_after_s)
