"""What can go wrong for a caller, split first by what to do about it.

::

    OptimizerError
    ├── Retryable               the same call may succeed later
    │   ├── RateLimited         a limit, and waiting within the deadline could not help
    │   ├── Overloaded          the optimizer itself: a broker away, no topology, too deep a queue
    │   ├── ProviderError       what the provider said
    │   ├── DeadlineExceeded    no answer within the timeout; names what it waited for
    │   └── InternalError       a fault of ours
    └── Permanent               the same call will fail again
        ├── InvalidRequest      the request itself is at fault
        │   ├── ContextTooLong
        │   ├── ContentFiltered
        │   └── UnknownJob      a submitted request of which no reply is kept
        ├── AuthenticationFailed
        ├── BudgetExhausted
        ├── NoModelAvailable
        └── Cancelled
"""

from typing import ClassVar, Final

from topology.errors import ErrorType
from topology.messages import ErrorReport, Reply


class OptimizerError(Exception):
    """A call that was not answered.

    Attributes:
        type: The kind of error, as on the wire.
        message: One sentence, with the remedy where there is one.
        retryable: Whether the same call may succeed later.
        provider_status: The HTTP status of the provider, where one answered.
        reply: The whole reply, where there was one.
    """

    type: ClassVar[ErrorType] = ErrorType.INTERNAL
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        provider_status: int | None = None,
        reply: Reply | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider_status = provider_status
        self.reply = reply
        if retryable is not None:
            self.retryable = retryable


class Retryable(OptimizerError):
    """The same call may succeed later."""

    retryable = True


class RateLimited(Retryable):
    """A limit refused the call, and waiting within its deadline could not help."""

    type = ErrorType.RATE_LIMITED


class Overloaded(Retryable):
    """The optimizer itself cannot take the call now."""

    type = ErrorType.OVERLOADED


class ProviderError(Retryable):
    """The provider failed; `provider_status` and the message say how."""

    type = ErrorType.PROVIDER_ERROR


class DeadlineExceeded(Retryable):
    """No answer came within the timeout."""

    type = ErrorType.DEADLINE_EXCEEDED


class InternalError(Retryable):
    """A fault of the optimizer's own."""

    type = ErrorType.INTERNAL


class Permanent(OptimizerError):
    """The same call will fail again."""


class InvalidRequest(Permanent):
    """The request itself is at fault; the message names the field."""

    type = ErrorType.INVALID_REQUEST


class ContextTooLong(InvalidRequest):
    """The prompt does not fit into the model's context."""

    type = ErrorType.CONTEXT_TOO_LONG


class ContentFiltered(InvalidRequest):
    """The provider refuses this content."""

    type = ErrorType.CONTENT_FILTERED


class UnknownJob(InvalidRequest):
    """No reply is kept for this submitted request: never submitted, taken already, or too old."""


class AuthenticationFailed(Permanent):
    """The provider refuses the key."""

    type = ErrorType.AUTHENTICATION


class BudgetExhausted(Permanent):
    """The money set aside is spent."""

    type = ErrorType.BUDGET_EXHAUSTED


class NoModelAvailable(Permanent):
    """No enabled provider offers what was asked for."""

    type = ErrorType.NO_MODEL_AVAILABLE


class Cancelled(Permanent):
    """The caller, or an operator, called the request off."""

    type = ErrorType.CANCELLED


_BY_TYPE: Final[dict[ErrorType, type[OptimizerError]]] = {
    error.type: error
    for error in (
        RateLimited, Overloaded, ProviderError, DeadlineExceeded, InternalError, InvalidRequest,
        ContextTooLong, ContentFiltered, AuthenticationFailed, BudgetExhausted, NoModelAvailable,
        Cancelled,
    )
}  # fmt: skip


def error_of(report: ErrorReport, reply: Reply | None = None) -> OptimizerError:
    """The exception for an error reported on the wire."""
    return _BY_TYPE[report.type](
        report.message,
        retryable=report.retryable,
        provider_status=report.provider_status,
        reply=reply,
    )
