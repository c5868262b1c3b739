"""What a call to a provider came to, in words that hold for all providers."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from topology.errors import ErrorType
from topology.limits import Unit
from topology.messages import Usage


class Scope(StrEnum):
    """Which part of a provider an answer speaks of, so that nothing else is punished for it."""

    KEY = "key"
    ACCOUNT = "account"
    """All keys that share one quota: an organisation, a project, a team."""
    MODEL = "model"
    """One model of that account."""
    PROVIDER = "provider"
    ADDRESS = "address"
    """Where we call from: a blocked country or IP address. Other keys fare no better."""
    REQUEST = "request"
    """Nothing of the provider's: the request itself."""


class FailureKind(StrEnum):
    """What to do about a failure."""

    THROTTLED = "throttled"
    """A limit, for a short while: wait, or go elsewhere."""
    QUOTA_GONE = "quota_gone"
    """Nothing is left for hours: a day's quota is spent, or the money. Until the reset, where one is
    told; until somebody pays or raises the limit, where `needs_operator` says so."""
    KEY_REFUSED = "key_refused"
    """Who asks is turned away: the key, or what `scope` names instead. Others may be let in."""
    CAPACITY = "capacity"
    """The provider is in trouble: try elsewhere, or later."""
    UNSENT = "unsent"
    """Nothing left this machine: as `capacity`, and nothing was spent."""
    AMBIGUOUS = "ambiguous"
    """Cut off after it began: it may have been billed."""
    REQUEST_AT_FAULT = "request_at_fault"
    """The same request fails again; other models may differ, the same one will not."""


@dataclass(frozen=True)
class Said:
    """One limit, as an answer told of it.

    Attributes:
        scope: Whose limit it is.
        window_s: The span it counts over, in seconds; None when that is not known.
        limit: The whole amount, in `unit`; None when it was not told.
        remaining: What is left of it, in `unit`; None when it was not told.
        resets_in_s: When it is whole again, or, in an error, when the call would pass; in seconds from
            the answer's own instant. None when it was not told.
    """

    scope: Scope
    unit: Unit
    window_s: float | None
    limit: float | None
    remaining: float | None
    resets_in_s: float | None

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is left of it. Only then does its reset say when to come back."""
        return self.remaining is not None and self.remaining < 1


@dataclass(frozen=True)
class Completion:
    """An answer that ended well.

    Attributes:
        body: The response in OpenAI's form.
        model: The model that the provider says it used.
        limits: What the answer says of the provider's limits.
    """

    body: dict[str, Any]
    usage: Usage
    model: str | None
    limits: tuple[Said, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A call that did not.

    Attributes:
        error_type: What the caller is told when nothing else helps.
        message: What the provider said; for the caller alone, since it can quote the request.
        status: The HTTP status; None when there was no answer.
        retry_after_s: What the provider asked to wait, in seconds; None when it did not say.
        code: The provider's own word for it, fit for events and logs.
        scope: Which part of the provider it speaks of.
        needs_operator: No waiting mends it: somebody has to pay, to raise a limit, to replace a key, or
            to call from elsewhere.
        features: What of the request the model does not have, where the error says so plainly; as
            `topology.features` names them.
    """

    kind: FailureKind
    error_type: ErrorType
    message: str
    status: int | None = None
    retry_after_s: float | None = None
    code: str | None = None
    scope: Scope = Scope.PROVIDER
    needs_operator: bool = False
    features: frozenset[str] = frozenset()

    @property
    def is_fatal(self) -> bool:
        """Whether the same call, on the same account, fails however long one waits."""
        return self.needs_operator or self.kind is FailureKind.REQUEST_AT_FAULT

    @property
    def may_be_billed(self) -> bool:
        """Whether the provider may have charged for it."""
        return self.kind is FailureKind.AMBIGUOUS
