"""What an invoice and the ledger come to, as values; the command line loads no SQL for these."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Finding(StrEnum):
    """What the invoice and the ledger together say of a call."""

    EQUAL = "equal"
    """Both say the same."""
    PRICED = "priced"
    """It was answered at a price that we did not know; the invoice says it."""
    BILLED = "billed"
    """Nobody knew whether it was billed. It was."""
    NOT_BILLED = "not billed"
    """Nobody knew whether it was billed. It was not."""
    DIFFERENT = "different"
    """The amounts differ."""
    MISSING = "missing"
    """It was answered, and the invoice, which covers its time, does not have it."""
    RUNNING = "running"
    """The invoice has it, and the ledger takes it for under way."""
    UNKNOWN = "unknown"
    """The ledger has no such call."""


_UNEXPLAINED: Final = (Finding.DIFFERENT, Finding.MISSING, Finding.RUNNING, Finding.UNKNOWN)


@dataclass(frozen=True)
class Scope:
    """The calls that an invoice covers: one that it does not have was not billed.

    Attributes:
        since: The instant from which they began, in epoch seconds; None: midnight UTC before the first call
            that is on it.
        until: The instant before which they began; None: midnight UTC after the last.
        providers: All calls to these, besides those to the accounts whose calls are on it.
    """

    since: float | None = None
    until: float | None = None
    providers: Collection[str] = ()


@dataclass(frozen=True)
class Part:
    """The calls of one finding.

    Attributes:
        ledger_usd: What the ledger had for them before.
        invoice_usd: What the invoice says.
    """

    calls: int = 0
    ledger_usd: float = 0.0
    invoice_usd: float = 0.0


@dataclass(frozen=True)
class Compared:
    """One call; None where that side says nothing."""

    call: str
    ledger_usd: float | None
    invoice_usd: float | None


@dataclass(frozen=True)
class Reconciliation:
    """What came of it.

    Attributes:
        accounts: Those whose calls it covers, as `provider/account`.
        since: From when, in epoch seconds; None: no call of the ledger is on it, and no time was told.
        until: Until when.
        ledger_before_usd: What the ledger's calls that it covers came to before.
        ledger_after_usd: And after; in a dry run, what they would come to.
        written: Rows of the ledger that were changed.
        parts: Figures by finding.
        listed: The calls of each finding but `equal`.
    """

    accounts: Sequence[str]
    since: float | None
    until: float | None
    ledger_before_usd: float
    ledger_after_usd: float
    written: int
    parts: Mapping[Finding, Part]
    listed: Mapping[Finding, Sequence[Compared]] = field(default_factory=dict)

    @property
    def unexplained(self) -> Sequence[Finding]:
        """The findings that somebody has to look into, as far as there are any."""
        return [finding for finding in _UNEXPLAINED if self.part(finding).calls]

    def part(self, finding: Finding) -> Part:
        """The figures of one finding; zeros where there is no such call."""
        return self.parts.get(finding, Part())
