"""Types of fields that hold only what can go on: to a provider as JSON, or into an AMQP property."""

import math
from typing import Annotated, Any, Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

FARTHEST: Final = 1e10
"""The year 2286, and as a span 317 years: Redis's expiry does not reach much farther."""

_PLAIN: Final = frozenset({str, int, bool, type(None)})
_TEXT: Final = frozenset({str})
_DEEPEST: Final = 64
_SHORT_BYTES: Final = 255


def _short(value: str) -> str:
    if len(value.encode("utf-8")) > _SHORT_BYTES:
        raise PydanticCustomError("too_long", "an AMQP property holds at most 255 bytes")
    return value


def _json(params: dict[str, Any]) -> dict[str, Any]:
    if why_not_json(params) is None:
        return params
    for name, value in params.items():
        if reason := why_not_json(value):
            raise PydanticCustomError(
                "not_json",
                "only what JSON can carry is allowed; in {name}, {reason}",
                {"name": repr(name[:50]), "reason": reason},
            )
    return params


Short = Annotated[str, AfterValidator(_short)]
"""A text for an AMQP property: a longer one cannot be published."""

JsonObject = Annotated[dict[str, Any], AfterValidator(_json)]
"""What a provider can be sent, whatever an agent's msgpack held."""


def why_not_json(value: object, deepest: int = _DEEPEST) -> str | None:
    """What in `value` JSON cannot carry, as a clause for an error; None when there is nothing.

    Keys may be whole numbers, as in `logit_bias={50256: -100}`: JSON writes them as text. Two keys that
    would be the same text may not.
    """
    if isinstance(value, (dict, list, tuple)):
        return _why_not_inside(value, deepest)
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} is no JSON number"
    if value is None or isinstance(value, (str, int)):
        return None
    return f"a value of type {type(value).__name__} is not JSON"


def _why_not_inside(container: Any, deepest: int) -> str | None:
    if deepest == 0:
        return f"it is nested deeper than {_DEEPEST} levels"
    values = container
    if isinstance(container, dict):
        if not _TEXT.issuperset(map(type, container)) and (reason := _why_not_keys(container)):
            return reason
        values = container.values()
    for value in values:
        if type(value) not in _PLAIN and (reason := why_not_json(value, deepest - 1)):
            return reason
    return None


def _why_not_keys(value: dict[Any, Any]) -> str | None:
    for key in value:
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            return f"a key of type {type(key).__name__} is not JSON; make it a text"
    if len({str(key) for key in value}) < len(value):
        return "two keys are the same in JSON; make all of them texts"
    return None
