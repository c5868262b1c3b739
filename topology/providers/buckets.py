"""Which header of which provider is which limit.

Declared, one entry for each bucket, since the same name means different things: Groq's `-requests`
counts a day, OpenAI's does not say. A window of None is not told. Where a provider counts for each
model of an account, the scope is the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from topology.limits import Unit
from topology.providers.outcomes import Scope

_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3600.0
_DAY_S: Final = 86400.0
_MONTH_S: Final = 30 * 86400.0


@dataclass(frozen=True)
class Bucket:
    """The headers that tell of one limit.

    Attributes:
        window_s: The span it counts over, in seconds; None when that is not told.
        limit: The header with the whole amount; likewise `remaining` and `reset`.
        reset: None for a bucket whose reset is not told.
    """

    scope: Scope
    unit: Unit
    window_s: float | None
    limit: str
    remaining: str
    reset: str | None


def _bucket(scope: Scope, unit: Unit, window_s: float | None, pattern: str, *, reset: bool = True) -> Bucket:
    names = [pattern.replace("*", part) for part in ("limit", "remaining", "reset")]
    return Bucket(scope, unit, window_s, names[0], names[1], names[2] if reset else None)


# https://developers.openai.com/api/docs/guides/rate-limits: the window is not told, and differs by tier.
_OPENAI: Final = (
    _bucket(Scope.MODEL, "requests", None, "x-ratelimit-*-requests"),
    _bucket(Scope.MODEL, "tokens", None, "x-ratelimit-*-tokens"),
    _bucket(Scope.MODEL, "tokens", None, "x-ratelimit-*-tokens_usage_based"),
)

BUCKETS: Final[Mapping[str, tuple[Bucket, ...]]] = {
    # https://platform.claude.com/docs/en/api/rate-limits: per minute, refilled continuously. Its
    # OpenAI-compatible endpoint translates them to OpenAI's names.
    "anthropic": (
        _bucket(Scope.MODEL, "requests", _MINUTE_S, "anthropic-ratelimit-requests-*"),
        _bucket(Scope.MODEL, "tokens", _MINUTE_S, "anthropic-ratelimit-tokens-*"),
        _bucket(Scope.MODEL, "tokens", _MINUTE_S, "anthropic-ratelimit-input-tokens-*"),
        _bucket(Scope.MODEL, "tokens", _MINUTE_S, "anthropic-ratelimit-output-tokens-*"),
        _bucket(Scope.MODEL, "requests", _MINUTE_S, "x-ratelimit-*-requests"),
        _bucket(Scope.MODEL, "tokens", _MINUTE_S, "x-ratelimit-*-tokens"),
    ),
    # https://inference-docs.cerebras.ai/support/rate-limits; a day and a minute are documented, the
    # other spans are limits of it too and have been seen.
    "cerebras": tuple(
        _bucket(Scope.MODEL, unit, window_s, f"x-ratelimit-*-{unit}-{span}")
        for unit in ("requests", "tokens")
        for span, window_s in (("minute", _MINUTE_S), ("hour", _HOUR_S), ("day", _DAY_S))
    ),
    "deepinfra": (),
    "deepseek": (),
    "gemini": (),  # in the body only
    # https://console.groq.com/docs/rate-limits: "Always refers to Requests Per Day", "Tokens Per Minute".
    "groq": (
        _bucket(Scope.MODEL, "requests", _DAY_S, "x-ratelimit-*-requests"),
        _bucket(Scope.MODEL, "tokens", _MINUTE_S, "x-ratelimit-*-tokens"),
    ),
    # mistralai/client-ts#169, and CRAN tidyllm `R/api_mistral.R` for the older names.
    "mistral": (
        _bucket(Scope.ACCOUNT, "requests", _MINUTE_S, "x-ratelimit-*-req-minute", reset=False),
        _bucket(Scope.ACCOUNT, "tokens", _MINUTE_S, "x-ratelimit-*-tokens-minute", reset=False),
        _bucket(Scope.ACCOUNT, "tokens", _MONTH_S, "x-ratelimit-*-tokens-month", reset=False),
        _bucket(Scope.ACCOUNT, "tokens", _MINUTE_S, "x-ratelimitbysize-*-minute", reset=False),
        _bucket(Scope.ACCOUNT, "tokens", _MONTH_S, "x-ratelimitbysize-*-month", reset=False),
        _bucket(Scope.ACCOUNT, "tokens", None, "ratelimitbysize-*"),
    ),
    "moonshot": (_bucket(Scope.ACCOUNT, "requests", None, "x-ratelimit-*"),),
    "ollama": (),
    "openai": _OPENAI,
    # https://openrouter.ai/docs/api/reference/limits: of the account, on its own 429s; a minute or a day.
    "openrouter": (_bucket(Scope.ACCOUNT, "requests", None, "x-ratelimit-*"),),
    # https://support.together.ai/en/articles/8988956-rate-limits. The rate is dynamic: no fixed window.
    "together": (
        _bucket(Scope.MODEL, "requests", None, "x-ratelimit-*"),
        _bucket(Scope.MODEL, "tokens", None, "x-tokenlimit-*", reset=False),
    ),
    "vllm": (),
    "xai": _OPENAI[:2],  # none is documented; these names where they come
}

OWNER: Final[Mapping[str, Scope]] = {
    "mistral": Scope.ACCOUNT,
    "moonshot": Scope.ACCOUNT,
    "ollama": Scope.ACCOUNT,
    "openrouter": Scope.ACCOUNT,
}
"""Whose a limit is that an answer does not name; a model's of an account where nothing stands here."""


def owner_of(provider: str | None) -> Scope:
    """Whose the limits of this provider are, as a rule."""
    return OWNER.get(provider or "", Scope.MODEL)
