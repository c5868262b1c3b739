"""From HTTP to a request: the body becomes its params untouched, headers say what is ours to decide."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, NoReturn, TypeVar

from starlette.requests import Request as HttpRequest

from gateway.rejecting import Rejected
from topology.errors import Refused
from topology.fleet import Fleet
from topology.messages import CacheMode, CacheScope, Request
from topology.names import Priority
from topology.wire import MAX_BODY_BYTES

Operation = Literal["chat", "embeddings"]
T = TypeVar("T", bound=StrEnum)

_TIERS: Final = {
    "priority": Priority.HIGH,
    "fast": Priority.HIGH,
    "default": Priority.NORMAL,
    "auto": Priority.NORMAL,
    "scale": Priority.NORMAL,
    "flex": Priority.BATCH,
}
_PATIENCE_HEADERS: Final = ("x-stainless-read-timeout", "x-stainless-timeout")
"""Where OpenAI's SDKs say after how many seconds they will hang up."""
COMES_AGAIN_S: Final = 10.0
"""Within this time, an SDK that gave up waiting asks again: its longest back-off is 8 s."""
_GRACE_S: Final = 1.0


@dataclass(frozen=True)
class Asked:
    """A call as it is handed to the SDK.

    Attributes:
        timeout_s: Seconds within which it ends.
        patience_s: Seconds after which the client hangs up, where it said so.
        streamed: Whether the answer goes out as a stream of one piece.
        include_usage: Whether that stream tells what the answer used.
    """

    request: Request
    priority: Priority
    timeout_s: float
    patience_s: float | None
    streamed: bool = False
    include_usage: bool = False


async def read_body(http: HttpRequest) -> dict[str, Any]:
    """The JSON object that was sent.

    Raises:
        Rejected: It is something else, or larger than 8 MiB; what is too large is not read to its end.
        ClientDisconnect: The client has gone.
    """
    # Also what keeps web pages out: to send JSON, a browser asks first, and is not answered.
    if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Rejected(415, "send JSON, with the header Content-Type: application/json")
    raw = await _bounded(http)
    try:
        body = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Rejected(400, f"the body is not JSON ({error})") from None
    if not isinstance(body, dict):
        raise Rejected(400, "the body is no JSON object")
    return body


async def _bounded(http: HttpRequest) -> bytes:
    length = http.headers.get("content-length", "0")
    pieces, size = [], int(length) if length.isdecimal() else 0
    if size <= MAX_BODY_BYTES:
        size = 0
        async for piece in http.stream():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                break
    if size > MAX_BODY_BYTES:
        raise Rejected(
            413,
            f"the body is larger than {MAX_BODY_BYTES} bytes; send less text, or put images behind a URL",
        )
    return b"".join(pieces)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def read_request(
    operation: Operation,
    id_: str,
    agent: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    fleet: Fleet,
) -> Asked:
    """What is asked, of whom, how urgently and until when.

    Raises:
        Rejected: A field or a header cannot be what it is; the text names it.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Rejected(400, "you must provide a model; 'auto' leaves the choice to the fleet", param="model")
    streamed = bool(body.get("stream"))
    if streamed and not (fleet.gateway.whole_streams and operation == "chat"):
        raise Rejected(
            400,
            "streaming is not there yet; set stream=false, and the answer comes whole (whole_streams in "
            "[gateway] sends it as a stream of one piece)",
            param="stream",
        )
    patience_s = _patience_s(headers)
    section = fleet.fleet
    timeout_s = min(_timeout_s(headers, patience_s, section.timeout_s), section.max_deadline_s)
    value = {
        "id": id_,
        "agent": agent,
        "agent_type": headers.get("x-agent-type"),
        "operation": operation,
        "model": model,
        "params": {name: value for name, value in body.items() if name not in {"model", "service_tier"}},
        "task": headers.get("x-task"),
        "deadline": time.time() + timeout_s,
        "cache": _one_of(CacheMode, "X-Cache", headers.get("x-cache", CacheMode.USE)),
        "cache_ttl_s": _seconds("X-Cache-TTL", headers.get("x-cache-ttl")),
        "cache_scope": _one_of(CacheScope, "X-Cache-Scope", headers.get("x-cache-scope", CacheScope.FLEET)),
    }
    try:
        request = Request.from_value(value)
    except Refused as refused:
        raise Rejected(400, refused.message) from None
    usage = isinstance(options := body.get("stream_options"), dict) and bool(options.get("include_usage"))
    return Asked(request, _priority(body, headers), timeout_s, patience_s, streamed, usage)


def _timeout_s(headers: Mapping[str, str], patience_s: float | None, otherwise_s: float) -> float:
    given = _seconds("X-Timeout", headers.get("x-timeout"))
    if given == 0:
        raise Rejected(400, "X-Timeout: it leaves no time for an answer")
    if given is not None:
        return given
    # Later than the client: it is he who ends the call, with the exception that his user expects.
    return otherwise_s if patience_s is None else patience_s + COMES_AGAIN_S + _GRACE_S


def _patience_s(headers: Mapping[str, str]) -> float | None:
    for name in _PATIENCE_HEADERS:
        try:
            patience_s = _seconds(name, headers.get(name))
        except Rejected:
            continue  # not a word to us: the SDK says it to whomever it speaks to
        if patience_s:
            return patience_s
    return None


def _priority(body: Mapping[str, Any], headers: Mapping[str, str]) -> Priority:
    if (said := headers.get("x-priority")) is not None:
        return _one_of(Priority, "X-Priority", said)
    tier = body.get("service_tier") or "default"
    if not isinstance(tier, str) or tier not in _TIERS:
        choices = f"{', '.join(_TIERS)}; or send X-Priority"
        raise Rejected(400, f"service_tier: {tier!r} is none of {choices}", param="service_tier")
    return _TIERS[tier]


def _one_of(kind: type[T], name: str, said: str) -> T:
    try:
        return kind(said.lower())
    except ValueError:
        raise Rejected(400, f"{name}: {said!r} is none of {', '.join(kind)}") from None


def _seconds(name: str, said: str | None) -> float | None:
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise Rejected(400, f"{name}: {said!r} is no number of seconds")
    return seconds
