"""What the ledger comes to: sums over a time, whole and by provider, model, agent or account."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, case, cast, func, literal, null, select

from hub.store.database import Database
from hub.store.grouping import By
from hub.store.merging import ANSWER, DOUBTFUL, RUNNING, SETTLED
from hub.store.tables import agents, calls, requests, workers

_TOTAL: Final = ""
_paid: Final = func.coalesce(calls.c.billed_usd, calls.c.cost_usd)


@dataclass(frozen=True)
class Sums:
    """Figures of a time.

    Attributes:
        requests: Requests that were answered, in a result or an error.
        hits: Those answered from a stored answer.
        joins: Those answered by a call that another request led.
        errors: Those that ended in an error.
        saved_usd: What hits and joins would have cost, each at the mean price of its flight's calls, else of
            its model's; None: nothing is known of their prices.
        calls: Calls to providers that were begun: settled, doubtful and running ones.
        settled: Calls with a known end.
        doubtful: Calls of which nobody knows whether they were billed.
        running: Calls under way.
        duplicates: Calls whose flight had an answer already: answered in vain, or cut for that.
        cost_usd: Of all calls: what their invoice says, else by our prices.
        unpriced: Calls that were answered at a price nobody knows; they are not in `cost_usd`.
        latency_p50_s: Of the calls that were answered; None: there are none.
        total_p50_s: Of the requests that were answered, from their entrance to their answer; None likewise.
    """

    requests: int = 0
    hits: int = 0
    joins: int = 0
    errors: int = 0
    saved_usd: float | None = None
    calls: int = 0
    settled: int = 0
    doubtful: int = 0
    running: int = 0
    duplicates: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    total_p50_s: float | None = None
    total_p95_s: float | None = None


@dataclass(frozen=True)
class AgentProfile:
    """What an agent asked for in this time, and when it was seen; instants in epoch seconds."""

    agent: str
    agent_type: str | None
    first_seen: float
    last_seen: float
    tasks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    sums: Sums = Sums()


@dataclass(frozen=True)
class Statistics:
    """All of it.

    Attributes:
        as_of: The latest recorded sign of life of any worker, in epoch seconds; None: there was none.
        total: Over everything.
        groups: By the name of each provider, model, agent or account. By account, requests are not counted:
            a stored answer uses nobody's quota.
        request_errors: How many requests ended in each error.
        call_errors: How many calls ended in each error.
        agents: The agents that were active, the latest first.
    """

    as_of: float | None
    total: Sums
    groups: Mapping[str, Sums] = field(default_factory=dict)
    request_errors: Mapping[str, int] = field(default_factory=dict)
    call_errors: Mapping[str, int] = field(default_factory=dict)
    agents: tuple[AgentProfile, ...] = ()


def gather_statistics(database: Database, since: float, by: By | None = None) -> Statistics:
    """Reads what has been recorded since an instant, in epoch seconds.

    Raises:
        NothingYet: No recorder ever wrote there.
        StoreAway: It cannot be read now.
    """
    with database.reading() as connection:
        total = _sums(connection, since, literal(_TOTAL), literal(_TOTAL))
        of_calls, of_requests = _labels(by)
        return Statistics(
            as_of=connection.execute(select(func.max(workers.c.at))).scalar_one(),
            total=total.get(_TOTAL, Sums()),
            groups=_sums(connection, since, of_calls, of_requests) if by else {},
            request_errors=_errors(
                connection, _requests_since(since) & (requests.c.status == "error"), requests
            ),
            call_errors=_errors(connection, (calls.c.at >= since) & (calls.c.outcome != ANSWER), calls),
            agents=_agents(connection, since),
        )


def _labels(by: By | None) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    match by:
        case By.MODEL:
            return calls.c.provider + "/" + calls.c.model, requests.c.provider + "/" + requests.c.model
        case By.ACCOUNT:
            return calls.c.provider + "/" + calls.c.account, null()
        case By.AGENT:
            return calls.c.agent, requests.c.agent
        case _:
            return calls.c.provider, requests.c.provider


def _sums(
    connection: Connection, since: float, of_calls: ColumnElement[Any], of_requests: ColumnElement[Any]
) -> dict[str, Sums]:
    facts: dict[str, dict[str, Any]] = {}
    for query in (
        _request_sums(since, of_requests),
        _savings(since, of_requests),
        _call_sums(since, of_calls),
        _percentiles(
            "latency", calls.c.latency_s, of_calls, (calls.c.at >= since) & (calls.c.outcome == ANSWER)
        ),
        _percentiles("total", requests.c.total_s, of_requests, _requests_since(since)),
    ):
        for row in connection.execute(query).mappings():
            sums = dict(row)
            name = sums.pop("label")
            if name is not None:
                facts.setdefault(name, {}).update(sums)
    return {label: Sums(**facts[label]) for label in sorted(facts)}


def _requests_since(since: float) -> ColumnElement[bool]:
    return (requests.c.at >= since) & requests.c.answered_at.is_not(None)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count(case((condition, 1)))


def _request_sums(since: float, label: ColumnElement[Any]) -> Select[Any]:
    is_ok = requests.c.status == "ok"
    return (
        select(
            label.label("label"),
            func.count().label("requests"),
            _count(is_ok & (requests.c.source == "cache")).label("hits"),
            _count(is_ok & (requests.c.source == "dedupe")).label("joins"),
            _count(requests.c.status == "error").label("errors"),
        )
        .where(_requests_since(since))
        .group_by("label")
    )


def _savings(since: float, label: ColumnElement[Any]) -> Select[Any]:
    priced = (calls.c.outcome == ANSWER) & _paid.is_not(None)
    mean = func.avg(_paid).label("price")
    of_flight = select(calls.c.flight, mean).where(priced).group_by(calls.c.flight).subquery()
    of_model = (
        select(calls.c.provider, calls.c.model, mean)
        .where(priced)
        .group_by(calls.c.provider, calls.c.model)
        .subquery()
    )
    same_model = (of_model.c.provider == requests.c.provider) & (of_model.c.model == requests.c.model)
    joined = requests.outerjoin(of_flight, of_flight.c.flight == requests.c.flight)
    return (
        select(
            label.label("label"),
            func.sum(func.coalesce(of_flight.c.price, of_model.c.price)).label("saved_usd"),
        )
        .select_from(joined.outerjoin(of_model, same_model))
        .where(_requests_since(since), requests.c.status == "ok", requests.c.source.in_(("cache", "dedupe")))
        .group_by("label")
    )


def _call_sums(since: float, label: ColumnElement[Any]) -> Select[Any]:
    c = calls.c
    return (
        select(
            label.label("label"),
            func.count().label("calls"),
            _count(c.state == SETTLED).label("settled"),
            _count(c.state == DOUBTFUL).label("doubtful"),
            _count(c.state == RUNNING).label("running"),
            _count(c.duplicate).label("duplicates"),
            _sum(c.prompt_tokens).label("prompt_tokens"),
            _sum(c.completion_tokens).label("completion_tokens"),
            func.coalesce(func.sum(_paid), 0.0).label("cost_usd"),
            _count((c.outcome == ANSWER) & _paid.is_(None)).label("unpriced"),
        )
        .where(c.at >= since)
        .group_by("label")
    )


def _sum(column: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.coalesce(func.sum(column), 0), BigInteger)  # PostgreSQL's is a decimal


def _percentiles(
    what: str, value: ColumnElement[Any], label: ColumnElement[Any], where: ColumnElement[bool]
) -> Select[Any]:
    """By rank: SQLite has no function for them."""
    ranked = (
        select(
            label.label("label"),
            value.label("value"),
            func.row_number().over(partition_by=label, order_by=value).label("rank"),
            func.count().over(partition_by=label).label("among"),
        )
        .where(where, value.is_not(None))
        .subquery()
    )

    def percentile(share: float) -> ColumnElement[Any]:
        reached = ranked.c.rank >= share * ranked.c.among
        return func.min(case((reached, ranked.c.value)))

    return select(
        ranked.c.label,
        percentile(0.5).label(f"{what}_p50_s"),
        percentile(0.95).label(f"{what}_p95_s"),
    ).group_by(ranked.c.label)


def _errors(connection: Connection, where: ColumnElement[bool], table: Any) -> dict[str, int]:
    found = connection.execute(select(table.c.error, func.count()).where(where).group_by(table.c.error))
    counts = {error or "unknown": count for error, count in found}
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _agents(connection: Connection, since: float) -> tuple[AgentProfile, ...]:
    c = agents.c
    tasks = _used(connection, since, requests.c.task)
    models = _used(connection, since, requests.c.provider + "/" + requests.c.model)
    sums = _sums(connection, since, calls.c.agent, requests.c.agent)
    found = connection.execute(
        select(c.agent, c.agent_type, c.first_seen, c.at).where(c.at >= since).order_by(c.at.desc(), c.agent)
    )
    return tuple(
        AgentProfile(
            *row,
            tasks=tasks.get(row.agent, ()),
            models=models.get(row.agent, ()),
            sums=sums.get(row.agent, Sums()),
        )
        for row in found
    )


def _used(connection: Connection, since: float, what: ColumnElement[Any]) -> dict[str, tuple[str, ...]]:
    used: dict[str, tuple[str, ...]] = {}
    query = select(requests.c.agent, what).where(requests.c.at >= since, what.is_not(None)).distinct()
    for agent, name in sorted(tuple(row) for row in connection.execute(query)):
        used[agent] = (*used.get(agent, ()), name)
    return used
