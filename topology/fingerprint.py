"""Which requests are the same: a fingerprint over all that changes the answer, and nothing else."""

import hashlib
import json
from typing import Any, Final

from topology.messages import CacheMode, CacheScope, Constraints, Request

_FORM: Final = "1"
"""Part of every fingerprint, so that a change of this file never meets answers stored under the old rules."""

_TRANSPORT_PARAMS: Final = frozenset({"stream", "stream_options", "user", "metadata", "model"})
"""Parts of an OpenAI body that change how an answer travels or is booked, not what it says."""


def fingerprint(request: Request) -> str:
    """The flight that a request belongs to, as 40 hex digits.

    Two requests share one exactly when they ask the same operation of the same model with the same
    parameters, task, constraints and scope. `cache="off"` makes a flight of its own for each id.
    """
    identity: dict[str, Any] = {
        "form": _FORM,
        "operation": request.operation,
        "model": request.model,
        "params": {k: v for k, v in request.params.items() if k not in _TRANSPORT_PARAMS},
        "task": request.task,
        "constraints": _without_order(request.constraints),
    }
    if request.cache_scope is CacheScope.AGENT or request.cache is CacheMode.OFF:
        identity["agent"] = request.agent
    if request.cache is CacheMode.OFF:
        identity["id"] = request.id
    # A request holds nothing that JSON cannot carry.
    text = json.dumps(_canonical(identity), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _without_order(constraints: Constraints) -> dict[str, Any]:
    """Names in a list of demands mean the same in any order."""
    values = constraints.__dict__
    return {k: sorted(set(v)) if isinstance(v, tuple) else v for k, v in values.items()}


def _canonical(value: Any) -> Any:
    """Without nulls in maps, and with 1.0 as 1: differences that no provider sees."""
    if type(value) is str:  # by far the most
        return value
    if isinstance(value, dict):
        return {str(k): _canonical(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
