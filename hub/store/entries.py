"""Events as the store takes them: checked field by field, since anybody may publish one."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from topology.errors import Refused
from topology.events import EventType
from topology.messages import Event

_LONGEST_TEXT: Final = 1000
_LONGEST_FACTS: Final = 20_000


class Unreadable(ValueError):
    """A message that is no event which can be stored; the text says why, and repeats nothing of it."""


def _storable(text: str) -> str:
    if any(c == "\x00" or "\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("holds characters that no database takes")
    return text


Text = Annotated[str, StringConstraints(max_length=_LONGEST_TEXT), AfterValidator(_storable)]
Count = Annotated[int, Field(ge=0, lt=2**62)]


class Entry(BaseModel):
    """What every event has."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    id: Text
    type: Text
    at: float
    agent: Text | None = None
    request_id: Text | None = None


class CallEntry(Entry):
    """What one event says of a call to a provider; `docs/events.md` has the fields."""

    call: Text
    flight: Text | None = None
    agent_type: Text | None = None
    provider: Text | None = None
    model: Text | None = None
    account: Text | None = None
    task: Text | None = None
    priority: Text | None = None
    attempt: Count | None = None
    worker: Text | None = None
    until: float | None = None
    latency_s: float | None = None
    status: Count | None = None
    error: Text | None = None
    kind: Text | None = None
    code: Text | None = None
    reason: Text | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cost_usd: float | None = None


class RequestEntry(Entry):
    """What one event says of a request: it came in, it was answered, it ended in an error."""

    agent: Text
    request_id: Text
    agent_type: Text | None = None
    task: Text | None = None
    model: Text | None = None
    flight: Text | None = None
    priority: Text | None = None
    status: Text | None = None
    source: Text | None = None
    provider: Text | None = None
    cost_usd: float | None = None
    total_s: float | None = None
    error: Text | None = None


class HealthEntry(Entry):
    """A worker lives."""

    worker: Text
    roles: Annotated[Sequence[Text], Field(max_length=100)] = ()
    host: Text | None = None
    pid: Count | None = None


class OtherEntry(Entry):
    """Any other event, of types that are not known yet too; kept as it is."""

    facts: dict[str, Any]


_CALLS: Final = frozenset(
    {
        EventType.CALL_STARTED,
        EventType.CALL_COMPLETED,
        EventType.CALL_FAILED,
        EventType.SPEND_DOUBTFUL,
        EventType.SPEND_DUPLICATE,
    }
)
ENTRANCES: Final = frozenset({EventType.CACHE_HIT, EventType.CACHE_MISS, EventType.DEDUPE_JOINED})
_REQUESTS: Final = ENTRANCES | {EventType.REQUEST_COMPLETED, EventType.ERROR}


def read_entry(body: bytes) -> Entry:
    """Reads what was published as an event.

    Raises:
        Unreadable: It is none, or one of its fields cannot be what it says.
    """
    try:
        event = Event.from_bytes(body)
        return _entry(event)
    except Refused as refused:
        raise Unreadable(refused.message) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Unreadable(f"event: {field}: {first['msg']}") from None


def _entry(event: Event) -> Entry:
    common = {name: getattr(event, name) for name in Entry.model_fields}
    facts = event.model_extra or {}
    if event.type in _CALLS:
        return CallEntry.model_validate({**facts, **common, **_whose_call(event, facts)})
    if event.type in _REQUESTS:
        return RequestEntry.model_validate({**facts, **common})
    if event.type == EventType.WORKER_HEALTH:
        return HealthEntry.model_validate({**facts, **common})
    return OtherEntry.model_validate({**common, "facts": _as_json(facts)})


def _whose_call(event: Event, facts: dict[str, Any]) -> dict[str, Any]:
    """The call's id, and whose call it was.

    A doubtful call is told of by whoever found it out, perhaps for another request. Workers of 0.1 name no
    call: their events are each a call of their own.
    """
    call = {"call": facts.get("call", event.id)}
    if event.type == EventType.SPEND_DOUBTFUL:
        return {**call, "agent": None, "request_id": facts.get("called_for")}
    return call


def _as_json(facts: dict[str, Any]) -> Any:
    try:
        text = json.dumps(facts, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Unreadable(f"event: its fields are no JSON ({type(error).__name__})") from None
    if len(text) > _LONGEST_FACTS:
        raise Unreadable(f"event: its fields take {len(text)} characters, more than {_LONGEST_FACTS}")
    return json.loads(text)
