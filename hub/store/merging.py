"""What an event adds to a row. Pure; the order of events and their repetition change nothing.

Each rule is a maximum, a minimum or a first value of its kind.
"""

from typing import Any, Final

from hub.store.entries import ENTRANCES, CallEntry, Entry, HealthEntry, RequestEntry
from topology.events import EventType
from topology.providers.outcomes import FailureKind

Row = dict[str, Any]

RUNNING: Final = "running"
SETTLED: Final = "settled"
DOUBTFUL: Final = "doubtful"
ANSWER: Final = "answer"
ERROR: Final = "error"
UNKNOWN: Final = "unknown"

_STATES: Final = (RUNNING, DOUBTFUL, SETTLED)
"""A known end wins over a doubt, whichever came first."""
_OUTCOMES: Final = (None, UNKNOWN, ERROR, ANSWER)
_STATE_AFTER: Final = {UNKNOWN: DOUBTFUL, ERROR: SETTLED, ANSWER: SETTLED}
_NO_KNOWN_END: Final = frozenset({FailureKind.AMBIGUOUS.value, "cancelled"})

_ANSWERED: Final = "answered"
"""Why a call was cut beside which another one had brought the answer."""

_OF_THE_CALL: Final = (
    "flight", "request_id", "agent", "agent_type", "provider", "model", "account", "task", "priority",
    "attempt", "worker",
)  # fmt: skip
_OF_ITS_END: Final = (
    "latency_s", "status", "error", "kind", "code", "prompt_tokens", "completion_tokens", "cost_usd",
)  # fmt: skip
_OF_THE_ENTRANCE: Final = {name: name for name in ("agent_type", "task", "flight")} | {"asked_for": "model"}
_OF_THE_ANSWER: Final = {
    name: name for name in ("priority", "status", "source", "provider", "model", "cost_usd", "total_s")
}


def merge_call(row: Row | None, entry: CallEntry) -> Row:
    """The ledger's row of a call, with what one more event says."""
    row = dict(row) if row else {"call": entry.call, "state": RUNNING, "duplicate": False, "at": entry.at}
    row["at"] = max(row["at"], entry.at)
    for name in _OF_THE_CALL:
        if row.get(name) is None:
            row[name] = getattr(entry, name)
    match entry.type:
        case EventType.CALL_STARTED:
            _lower(row, "started_at", entry.at)
            row["until"] = max(row.get("until") or 0.0, entry.until or entry.at)
        case EventType.SPEND_DOUBTFUL:
            row["state"] = max(row["state"], DOUBTFUL, key=_STATES.index)
            row["duplicate"] |= entry.reason == _ANSWERED
        case EventType.SPEND_DUPLICATE:
            row["duplicate"] = True
            _end(row, entry, ANSWER)
        case EventType.CALL_FAILED:
            _end(row, entry, UNKNOWN if entry.kind in _NO_KNOWN_END else ERROR)
        case _:
            _end(row, entry, ANSWER)
    return row


def _end(row: Row, entry: CallEntry, outcome: str) -> None:
    """An answer counts more than an error, and the event that says most of it more than the others."""
    ended = {"outcome": outcome, "ended_at": entry.at, **{n: getattr(entry, n) for n in _OF_ITS_END}}
    if row.get("outcome") is None or _weight(ended) > _weight(row):
        row.update(ended)
    row["state"] = max(row["state"], _STATE_AFTER[outcome], key=_STATES.index)


def _weight(row: Row) -> tuple[Any, ...]:
    said = [row[name] for name in _OF_ITS_END]
    return (_OUTCOMES.index(row["outcome"]), row["status"] is not None, -row["ended_at"], repr(said))


def merge_request(row: Row | None, entry: RequestEntry) -> Row:
    """The row of a request, with what one more event says; of several answers the first counts."""
    key = {"agent": entry.agent, "request_id": entry.request_id}
    row = dict(row) if row else {**key, "at": entry.at}
    row["at"] = max(row["at"], entry.at)
    if entry.type in ENTRANCES:
        _first(row, "entered_at", entry, _OF_THE_ENTRANCE)
    elif entry.type == EventType.ERROR:
        _first(row, "failed_at", entry, {"error": "error"})
    else:
        _first(row, "answered_at", entry, _OF_THE_ANSWER)
    return row


def merge_agent(row: Row | None, entry: Entry) -> Row:
    """The row of an agent of whom an event speaks."""
    row = dict(row) if row else {"agent": entry.agent, "first_seen": entry.at, "at": entry.at}
    row["at"] = max(row["at"], entry.at)
    _lower(row, "first_seen", entry.at)
    kind = getattr(entry, "agent_type", None)
    if kind is not None:
        latest = max((row.get("typed_at") or 0.0, row.get("agent_type") or ""), (entry.at, kind))
        row["typed_at"], row["agent_type"] = latest
    return row


def merge_worker(row: Row | None, entry: HealthEntry) -> Row:
    """The row of a worker that lives."""
    row = dict(row) if row else {"worker": entry.worker, "first_seen": entry.at, "at": entry.at}
    said = {"roles": " ".join(entry.roles), "host": entry.host, "pid": entry.pid}
    if "roles" not in row or (entry.at, repr(said)) >= (row["at"], repr({name: row[name] for name in said})):
        row |= said
    row["at"] = max(row["at"], entry.at)
    _lower(row, "first_seen", entry.at)
    return row


def _lower(row: Row, name: str, value: float) -> None:
    row[name] = value if row.get(name) is None else min(row[name], value)


def _first(row: Row, stamp: str, entry: RequestEntry, columns: dict[str, str]) -> None:
    """The columns are those of the earliest event of its kind; `stamp` holds when that was."""
    said: Row = {stamp: entry.at} | {column: getattr(entry, name) for column, name in columns.items()}

    def order(one: Row) -> tuple[float, str]:
        return one[stamp], repr([one[name] for name in said])

    if row.get(stamp) is None or order(said) < order(row):
        row.update(said)
