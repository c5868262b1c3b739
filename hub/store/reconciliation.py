"""An invoice against the ledger, call by call, in SQL.

The ledger keeps both figures: `cost_usd`, what a call should cost by our prices, and `billed_usd`, what the
invoice says. Where there is the second, it is what was paid.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    MetaData,
    Table,
    Text,
    and_,
    case,
    false,
    func,
    insert,
    literal,
    null,
    select,
    tuple_,
    update,
)

from hub.invoice import Invoice
from hub.store.database import Database
from hub.store.findings import Compared, Finding, Part, Reconciliation, Scope
from hub.store.merging import ANSWER, RUNNING, SETTLED, UNKNOWN
from hub.store.tables import calls

_NOISE_USD: Final = 1e-9


_WRITTEN: Final = (Finding.EQUAL, Finding.PRICED, Finding.BILLED, Finding.NOT_BILLED, Finding.DIFFERENT)
"""The invoice's amount becomes what was paid."""

_own: Final = MetaData()
"""Tables of one transaction."""
_invoice: Final = Table(
    "invoice",
    _own,
    Column("call", Text, primary_key=True),
    Column("amount_usd", Double, nullable=False),
    Column("within_usd", Double, nullable=False),
    prefixes=["TEMPORARY"],
)
_found: Final = Table(
    "found",
    _own,
    Column("call", Text, primary_key=True),
    Column("finding", Text, nullable=False),
    Column("cost_usd", Double),
    Column("paid_usd", Double),  # as the ledger had it
    Column("invoice_usd", Double),
    Column("changes", Boolean, nullable=False),
    prefixes=["TEMPORARY"],
)


def reconcile(database: Database, invoice: Invoice, scope: Scope, *, dry_run: bool = False) -> Reconciliation:
    """Compares, and writes what the invoice says into the ledger, in one transaction.

    What is on the invoice becomes what was paid, also where it differs. Doubtful calls are settled either
    way. What was answered and is not on it keeps its figure. Doing it again changes nothing.

    Raises:
        NothingYet: No recorder ever wrote there.
        StoreAway: It cannot be read or written now.
    """
    with database.reading() if dry_run else database.writing() as connection, _tables(connection):
        _load(connection, invoice)
        covered = _covered(connection, scope)
        _compare(connection, covered)
        before, after = _sums(connection)
        return Reconciliation(
            accounts=[f"{provider}/{account}" for provider, account in covered.accounts],
            since=covered.since,
            until=covered.until,
            ledger_before_usd=before,
            ledger_after_usd=after,
            written=0 if dry_run else _write(connection, invoice.name),
            parts=_parts(connection),
            listed=_listed(connection),
        )


@contextmanager
def _tables(connection: Connection) -> Iterator[None]:
    """The invoice and what is found, beside the ledger's tables."""
    _own.create_all(connection, checkfirst=False)
    yield
    _own.drop_all(connection, checkfirst=False)


def _load(connection: Connection, invoice: Invoice) -> None:
    rows = [
        {"call": call, "amount_usd": float(charge.amount_usd), "within_usd": float(charge.within_usd)}
        for call, charge in invoice.charges.items()
    ]
    if rows:
        connection.execute(insert(_invoice), rows)


@dataclass(frozen=True)
class _Covered:
    accounts: Sequence[tuple[str, str]]
    since: float | None
    until: float | None

    @property
    def calls(self) -> ColumnElement[bool]:
        """Which of the ledger's calls these are."""
        whose = tuple_(calls.c.provider, calls.c.account).in_(self.accounts)
        return and_(whose, _began >= (self.since or 0.0), _began < (self.until or 0.0))


_began: Final = func.coalesce(calls.c.started_at, calls.c.ended_at, calls.c.at)
_with_lines: Final = calls.outerjoin(_invoice, _invoice.c.call == calls.c.call)


def _covered(connection: Connection, scope: Scope) -> _Covered:
    on_it = _invoice.c.call.is_not(None)
    owners = (
        select(calls.c.provider, calls.c.account)
        .select_from(_with_lines)
        .where(on_it | calls.c.provider.in_(scope.providers), calls.c.account.is_not(None))
        .distinct()
    )
    accounts = sorted((row.provider, row.account) for row in connection.execute(owners))
    span = select(func.min(_began), func.max(_began)).select_from(_with_lines).where(on_it)
    first, last = connection.execute(span).one()
    since = _midnight(first, 0) if scope.since is None else scope.since
    until = _midnight(last, 1) if scope.until is None else scope.until
    return _Covered(accounts, since, until)


def _midnight(instant: float | None, days_later: int) -> float | None:
    if instant is None:
        return None
    day = datetime.fromtimestamp(instant, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day + timedelta(days=days_later)).timestamp()


def _compare(connection: Connection, covered: _Covered) -> None:
    c, line = calls.c, _invoice.c
    finding = _finding()
    paid = func.coalesce(c.billed_usd, c.cost_usd)
    amount = func.coalesce(line.amount_usd, 0.0)
    is_told = finding.in_(_WRITTEN) & (line.call.is_not(None) | (finding == Finding.NOT_BILLED))
    is_new = c.billed_usd.is_(None) | (c.billed_usd != amount) | (c.state != SETTLED)
    told_before = c.billed_usd > 0.0  # by another invoice
    known = (
        select(c.call, finding, c.cost_usd, paid, line.amount_usd, is_told & is_new)
        .select_from(_with_lines)
        .where(
            line.call.is_not(None)
            | (covered.calls & (c.state != RUNNING) & ~func.coalesce(told_before, false()))
        )
    )
    unknown = (
        select(line.call, literal(Finding.UNKNOWN), null(), null(), line.amount_usd, false())
        .select_from(_invoice.outerjoin(calls, c.call == line.call))
        .where(c.call.is_(None))
    )
    for query in (known, unknown):
        connection.execute(insert(_found).from_select(list(_found.c), query))


def _finding() -> ColumnElement[str]:
    """Each call's, where its line, if it has one, is beside it."""
    c, line = calls.c, _invoice.c
    has_line = line.call.is_not(None)
    within = func.coalesce(line.within_usd, _NOISE_USD)
    is_equal = func.abs(func.coalesce(c.cost_usd, 0.0) - func.coalesce(line.amount_usd, 0.0)) <= within
    return case(
        (c.state == RUNNING, Finding.RUNNING.value),
        (
            c.outcome.is_(None) | (c.outcome == UNKNOWN),
            case((has_line, Finding.BILLED.value), else_=Finding.NOT_BILLED.value),
        ),
        (
            (c.outcome == ANSWER) & c.cost_usd.is_(None),
            case((has_line, Finding.PRICED.value), else_=Finding.MISSING.value),
        ),
        (is_equal, Finding.EQUAL.value),
        (has_line, Finding.DIFFERENT.value),
        else_=Finding.MISSING.value,
    )


def _sums(connection: Connection) -> tuple[float, float]:
    """What the ledger's calls came to, and what they come to with what the invoice says."""
    f = _found.c
    paid, amount = func.coalesce(f.paid_usd, 0.0), func.coalesce(f.invoice_usd, 0.0)
    after = case((f.finding.in_(_WRITTEN), amount), (f.finding == Finding.UNKNOWN, 0.0), else_=paid)
    sums = select(func.coalesce(func.sum(paid), 0.0), func.coalesce(func.sum(after), 0.0))
    before_usd, after_usd = connection.execute(sums).one()
    return float(before_usd), float(after_usd)


def _parts(connection: Connection) -> dict[Finding, Part]:
    f = _found.c
    sums = (func.coalesce(func.sum(column), 0.0) for column in (f.cost_usd, f.invoice_usd))
    found = connection.execute(select(f.finding, func.count(), *sums).group_by(f.finding))
    return {Finding(name): Part(count, float(ours), float(theirs)) for name, count, ours, theirs in found}


def _listed(connection: Connection) -> dict[Finding, list[Compared]]:
    f = _found.c
    listed: dict[Finding, list[Compared]] = {}
    query = (
        select(f.finding, f.call, f.cost_usd, f.invoice_usd)
        .where(f.finding != Finding.EQUAL)
        .order_by(f.call)
    )
    for finding, *facts in connection.execute(query):
        listed.setdefault(Finding(finding), []).append(Compared(*facts))
    return listed


def _write(connection: Connection, name: str) -> int:
    changing = select(_found.c.call).where(_found.c.changes)
    amount = select(_found.c.invoice_usd).where(_found.c.call == calls.c.call).scalar_subquery()
    changed = connection.execute(
        update(calls)
        .where(calls.c.call.in_(changing))
        .values(billed_usd=func.coalesce(amount, 0.0), state=SETTLED, invoice=name)
    )
    return changed.rowcount
