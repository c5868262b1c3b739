"""The error types that a caller can meet, on the wire, as an SDK exception and as an HTTP status."""

from enum import StrEnum
from typing import Final


class ErrorType(StrEnum):
    """What kind of error ended a request. The value is what travels on the wire."""

    INVALID_REQUEST = "invalid_request"
    CONTEXT_TOO_LONG = "context_too_long"
    CONTENT_FILTERED = "content_filtered"
    AUTHENTICATION = "authentication"
    BUDGET_EXHAUSTED = "budget_exhausted"
    NO_MODEL_AVAILABLE = "no_model_available"
    RATE_LIMITED = "rate_limited"
    CANCELLED = "cancelled"
    INTERNAL = "internal"
    PROVIDER_ERROR = "provider_error"
    OVERLOADED = "overloaded"
    DEADLINE_EXCEEDED = "deadline_exceeded"

    @property
    def http_status(self) -> int:
        """The status under which the gateway reports it."""
        return _STATUS[self]


_STATUS: Final = {
    ErrorType.INVALID_REQUEST: 400,
    ErrorType.CONTEXT_TOO_LONG: 400,
    ErrorType.CONTENT_FILTERED: 400,
    ErrorType.AUTHENTICATION: 401,
    ErrorType.BUDGET_EXHAUSTED: 402,
    ErrorType.NO_MODEL_AVAILABLE: 404,
    ErrorType.RATE_LIMITED: 429,
    ErrorType.CANCELLED: 499,
    ErrorType.INTERNAL: 500,
    ErrorType.PROVIDER_ERROR: 502,
    ErrorType.OVERLOADED: 503,
    ErrorType.DEADLINE_EXCEEDED: 504,
}


class Refused(Exception):
    """A request that is turned down with a typed error for its caller.

    Attributes:
        type: The kind of error.
        message: One sentence that names the field and the remedy.
        retryable: Whether the same request may succeed later.
    """

    def __init__(self, type: ErrorType, message: str, *, retryable: bool = False) -> None:  # noqa: A002 - the wire's word
        super().__init__(message)
        self.type = type
        self.message = message
        self.retryable = retryable
