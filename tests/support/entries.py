"""Events as workers publish them, and rows as the recorder wrote them."""

from typing import Any

from sqlalchemy import Table, select

from hub.store.database import Database
from hub.store.entries import Entry, read_entry
from topology.messages import Event

NOW = 1_800_000_000.0


def event(type_: str, id_: str, *, at: float = NOW, **fields: Any) -> Entry:
    return read_entry(Event(id=id_, type=f"optimizer.{type_}", at=at, **fields).to_bytes())


def call_facts(call: str, **fields: Any) -> dict[str, Any]:
    facts = {
        "call": call,
        "flight": call.partition("-")[0],
        "agent": "quality",
        "request_id": f"request of {call}",
        "agent_type": "reviewer",
        "provider": "groq",
        "model": "small",
        "account": "main",
        "task": "code",
        "priority": "high",
        "attempt": 1,
        "worker": "backend-1",
    }
    return facts | fields


def started(call: str, *, at: float = NOW, until: float | None = None, **fields: Any) -> Entry:
    until = at + 75.0 if until is None else until
    return event("call.started", f"{call}:started", at=at, until=until, **call_facts(call, **fields))


def completed(call: str, *, at: float = NOW + 1, cost_usd: float | None = 0.25, **fields: Any) -> Entry:
    facts = {"latency_s": 1.0, "status": 200, "prompt_tokens": 10, "completion_tokens": 20}
    return event("call.completed", call, at=at, cost_usd=cost_usd, **call_facts(call, **facts | fields))


def failed(call: str, *, kind: str, at: float = NOW + 1, **fields: Any) -> Entry:
    facts = {"latency_s": 1.0, "status": None, "error": "provider_error", "code": None}
    return event("call.failed", f"{call}:failed", at=at, kind=kind, **call_facts(call, **facts | fields))


def doubtful(call: str, *, at: float = NOW + 20, **fields: Any) -> Entry:
    """Told of by another request's worker, which knows less of the call."""
    facts = call_facts(call)
    known = {name: facts[name] for name in ("call", "flight", "provider", "model", "account", "worker")}
    return event(
        "spend.doubtful",
        f"{call}:doubtful",
        at=at,
        **known,
        agent="somebody-else",
        request_id="another request",
        called_for=facts["request_id"],
        **fields,
    )


def duplicate(call: str, *, at: float = NOW + 1.5, cost_usd: float = 0.25) -> Entry:
    return event("spend.duplicate", f"{call}:duplicate", at=at, cost_usd=cost_usd, **call_facts(call))


def answered(request_id: str, *, id_: str | None = None, at: float = NOW + 2, **fields: Any) -> Entry:
    facts = {
        "agent": "quality",
        "priority": "high",
        "status": "ok",
        "source": "provider",
        "provider": "groq",
        "model": "small",
        "cost_usd": 0.25,
        "total_s": 2.0,
    }
    id_ = id_ or f"answer to {request_id}"
    return event("request.completed", id_, at=at, request_id=request_id, **facts | fields)


def entered(
    request_id: str, flight: str, *, how: str = "cache.miss", at: float = NOW, **fields: Any
) -> Entry:
    facts = {
        "agent": "quality",
        "agent_type": "reviewer",
        "priority": "high",
        "model": "auto",
        "task": "code",
    }
    id_ = f"entrance of {request_id} at {at}"
    return event(how, id_, at=at, request_id=request_id, flight=flight, **facts | fields)


def rows(database: Database, table: Table) -> list[dict[str, Any]]:
    key = list(table.primary_key)
    with database.reading() as connection:
        return [dict(row) for row in connection.execute(select(table).order_by(*key)).mappings()]
