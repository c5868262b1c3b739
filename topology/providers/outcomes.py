"""What a call to a provider came to, in words that hold for all providers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

from topology.errors import ErrorType
from topology.messages import Usage

LONGEST_RETRY_AFTER_S: Final = 7 * 86400.0


class FailureKind(StrEnum):
    """What to do about a failure."""

    THROTTLED = "throttled"
    """A limit, for a short while: wait, or go elsewhere."""
    QUOTA_GONE = "quota_gone"
    """The account has nothing left for long."""
    KEY_REFUSED = "key_refused"
    """This key does not work; others may."""
    CAPACITY = "capacity"
    """The provider is in trouble: try elsewhere, or later."""
    UNSENT = "unsent"
    """Nothing left this machine: as `capacity`, and nothing was spent."""
    AMBIGUOUS = "ambiguous"
    """Cut off after it began: it may have been billed."""
    REQUEST_AT_FAULT = "request_at_fault"
    """The same request fails everywhere; never try again."""


@dataclass(frozen=True)
class Completion:
    """An answer that ended well.

    Attributes:
        body: The response in OpenAI's form.
        model: The model that the provider says it used.
    """

    body: dict[str, Any]
    usage: Usage
    model: str | None


@dataclass(frozen=True)
class Failure:
    """A call that did not.

    Attributes:
        error_type: What the caller is told when nothing else helps.
        message: What the provider said; for the caller alone, since it can quote the request.
        status: The HTTP status; None when there was no answer.
        retry_after_s: What the provider asked to wait, in seconds; None when it did not say.
        code: The provider's own word for it, fit for events and logs.
    """

    kind: FailureKind
    error_type: ErrorType
    message: str
    status: int | None = None
    retry_after_s: float | None = None
    code: str | None = None

    @property
    def may_be_billed(self) -> bool:
        """Whether the provider may have charged for it."""
        return self.kind is FailureKind.AMBIGUOUS


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What `retry-after-ms` or `retry-after` asks for, in seconds; None when absent or absurd.

    The header holds seconds or an HTTP date (RFC 9110, section 10.2.3); a date is taken relative to the
    response's own `date` header, since our clock may differ.
    """
    named = {name.lower(): value.strip() for name, value in headers.items()}
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return _sane(float(named[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    try:
        until = parsedate_to_datetime(named["retry-after"])
        since = parsedate_to_datetime(named["date"]) if "date" in named else datetime.now(UTC)
        return _sane((until - since).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None


def _sane(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= LONGEST_RETRY_AFTER_S else None
