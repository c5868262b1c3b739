"""What an alert says: which there are, how grave they are, and what each is about."""

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from topology.events import EventType


class AlertName(StrEnum):
    """The last word of an alert's event; `docs/events.md` says when each is told."""

    QUOTA_LOW = "quota_low"
    QUOTA_GONE = "quota_gone"
    DAILY_RESET = "daily_reset"
    KEY_LOST = "key_lost"
    ERROR_RATE = "error_rate"
    LATENCY = "latency"
    CIRCUIT_OPEN = "circuit_open"
    BUDGET = "budget"

    @property
    def event(self) -> EventType:
        """The type of its event."""
        return EventType(f"optimizer.alert.{self}")


class State(StrEnum):
    """Whether somebody should look."""

    FIRING = "firing"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """How soon. An alert that becomes graver is told again."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Growing with the severity."""
        return _GRAVEST_LAST.index(self)


_GRAVEST_LAST: Final = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)
_LONGEST_NAME: Final = 512


class About(BaseModel):
    """What an alert is about; None where it is more than that.

    Attributes:
        limit: Such as `requests-86400s`.
        key: Where the key is kept, such as `env:GROQ_API_KEY`; never the key itself.
        agent: Whose budget it is.
    """

    model_config = ConfigDict(frozen=True)

    provider: str | None = Field(default=None, max_length=_LONGEST_NAME)
    account: str | None = Field(default=None, max_length=_LONGEST_NAME)
    model: str | None = Field(default=None, max_length=_LONGEST_NAME)
    limit: str | None = Field(default=None, max_length=_LONGEST_NAME)
    key: str | None = Field(default=None, max_length=_LONGEST_NAME)
    agent: str | None = Field(default=None, max_length=_LONGEST_NAME)

    def __str__(self) -> str:
        """As a sentence begins: `groq, account main, model llama-3`."""
        place = f"{self.provider}/{self.model}" if self.provider and self.model else self.provider
        named = [place, self.account and f"account {self.account}", self.agent and f"agent {self.agent}"]
        return ", ".join(part for part in named if part) or "the fleet"


class Trouble(BaseModel):
    """Something that is wrong now.

    Attributes:
        text: A plain sentence or two: what it is, and what to do.
        value: What was measured, in the unit of `threshold`; None where there is nothing to measure.
        threshold: What it is held against.
    """

    model_config = ConfigDict(frozen=True)

    name: AlertName
    about: About
    severity: Severity
    text: str
    value: float | None = None
    threshold: float | None = None

    @property
    def id(self) -> str:
        """The same as long as it is the same trouble."""
        a = self.about
        return "|".join(
            (self.name, *(part or "" for part in (a.provider, a.account, a.model, a.limit, a.key, a.agent)))
        )
