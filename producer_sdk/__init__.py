"""What an agent imports: the client, its errors, and what a reply looks like."""

from producer_sdk import _neighbours  # noqa: F401 - first: it names the file in the way
from producer_sdk.blocking import Optimizer
from producer_sdk.client import AsyncOptimizer
from producer_sdk.durable import Submitted
from producer_sdk.errors import (
    AuthenticationFailed,
    BudgetExhausted,
    Cancelled,
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NoModelAvailable,
    OptimizerError,
    Overloaded,
    Permanent,
    ProviderError,
    RateLimited,
    Retryable,
    UnknownJob,
)
from topology.messages import Constraints, Reply, Waiting

__all__ = [
    "AsyncOptimizer",
    "AuthenticationFailed",
    "BudgetExhausted",
    "Cancelled",
    "Constraints",
    "ContentFiltered",
    "ContextTooLong",
    "DeadlineExceeded",
    "InternalError",
    "InvalidRequest",
    "NoModelAvailable",
    "Optimizer",
    "OptimizerError",
    "Overloaded",
    "Permanent",
    "ProviderError",
    "RateLimited",
    "Reply",
    "Retryable",
    "Submitted",
    "UnknownJob",
    "Waiting",
]
