"""What a provider's answer says about its limits, read with that provider's table."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from topology.providers.bodies import ErrorBody, error_in, parsed
from topology.providers.buckets import BUCKETS, Bucket, owner_of
from topology.providers.outcomes import Said, Scope
from topology.providers.waits import answered_at, wait_s, wait_told_s

if TYPE_CHECKING:
    from topology.limits import Unit

_LARGEST: Final = 1e15
_SPANS_S: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "month": 30 * 86400.0}
_SPAN: Final = re.compile(r"per[-_ ]?(second|minute|min|hour|day|month)", re.IGNORECASE)
_LETTERS: Final = {"S": "second", "M": "minute", "H": "hour", "D": "day"}

# OpenAI and Groq: "... on tokens per minute (TPM): Limit 15000, Used 11972, Requested 4351. Please ..."
_LIMIT_USED: Final = re.compile(r"\(([RT])P([MHD])\): Limit (\d+)(?:, Used (\d+))?")
# Moonshot: "request reached organization max RPM: 3", "... TPM rate limit, current: 1410, limit: 100".
_REACHED: Final = re.compile(r"\b([RT])P([MD])(?::| rate limit,.{0,40}?limit:) (\d+)")
# Anthropic, either way round: "the rate limit for your organization (id) of 20,000 input tokens per minute"
# and "your organization's rate limit of 80,000 input tokens per minute".
_OF_MANY: Final = re.compile(
    r"rate limit\b.{0,120}?\bof ([\d,]+) (?:\w+ )?(requests|tokens) per (minute|day)"
)


def limits_said(
    provider: str | None, status: int, headers: Mapping[str, str], content: bytes
) -> tuple[Said, ...]:
    """All limits that an answer of this provider tells of; none for a provider without a table.

    Args:
        provider: The catalogue's name.
        status: The HTTP status; below 400 only the headers are read.
        headers: Those of the answer, in any case. Its `date` is what instants are relative to.
        content: The body as it came.
    """
    found = limits_in_headers(provider, headers)
    if status >= 400:
        found += limits_in_body(provider, error_in(parsed(content)), answered_at(headers))
    return tuple(found)


def limits_in_headers(provider: str | None, headers: Mapping[str, str]) -> list[Said]:
    """What the headers tell of."""
    return list(_of_headers(provider, headers, answered_at(headers)))


def limits_in_body(provider: str | None, body: ErrorBody, since: datetime | None) -> list[Said]:
    """What an error body tells of, beside the headers; `since` is the answer's own instant."""
    match provider:
        case "gemini":
            return list(_violations(body, since))
        case "openrouter":
            return list(_quoted_headers(body, since))
        case "openai" | "groq":
            return list(_in_words(_LIMIT_USED, provider, body, since))
        case "moonshot":
            return list(_in_words(_REACHED, provider, body, since))
        case "anthropic":
            return list(_of_many(body))
        case _:
            return []


def spent(limits: Iterable[Said]) -> Said | None:
    """Of the exhausted ones, the one that opens last; of several, that of the longest window."""
    exhausted = [said for said in limits if said.is_exhausted]
    return max(exhausted, key=lambda s: (s.resets_in_s or 0.0, s.window_s or 0.0), default=None)


def asked_wait_s(body: ErrorBody, since: datetime | None) -> float | None:
    """The wait that the body itself asks for, in seconds.

    The later one of Google's `retryDelay` and the sentence, since the former is cut to whole seconds;
    OpenRouter's budgets say `resets_at`.
    """
    told = [wait_told_s(body.text, since), _retry_delay_s(body)]
    resets_at = body.metadata.get("resets_at")
    if isinstance(resets_at, str | int | float):
        told.append(wait_s(str(resets_at), since))
    return max((s for s in told if s is not None), default=None)


def _of_headers(provider: str | None, headers: Mapping[str, str], since: datetime | None) -> Iterator[Said]:
    named = {name.lower(): value for name, value in headers.items()}
    for bucket in BUCKETS.get(provider or "", ()):
        said = _read(bucket, named, since)
        if said is not None:
            yield said


def _read(bucket: Bucket, headers: Mapping[str, str], since: datetime | None) -> Said | None:
    limit, remaining = _amount(headers.get(bucket.limit)), _amount(headers.get(bucket.remaining))
    if limit is None and remaining is None:
        return None  # as Azure's -1: a reset alone says nothing
    reset = headers.get(bucket.reset or "", "")
    return Said(bucket.scope, bucket.unit, bucket.window_s, limit, remaining, wait_s(reset, since))


def _violations(body: ErrorBody, since: datetime | None) -> Iterator[Said]:
    """Google's QuotaFailure: the quota's id names its unit and window, RetryInfo when to come back."""
    resets_in_s = asked_wait_s(body, since)
    for detail in body.details:
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else []:
            quota = str(violation.get("quotaId") if isinstance(violation, dict) else "")
            span = _SPAN.search(quota)
            if span:
                scope = Scope.MODEL if "PerModel" in quota else Scope.ACCOUNT
                unit: Unit = "tokens" if "Tokens" in quota else "requests"
                limit = _amount(str(violation.get("quotaValue")))
                yield Said(scope, unit, _SPANS_S[span[1].lower()], limit, 0.0, resets_in_s)


def _quoted_headers(body: ErrorBody, since: datetime | None) -> Iterator[Said]:
    """OpenRouter quotes its headers in the body, and names the window in the message."""
    quoted = body.metadata.get("headers")
    if isinstance(quoted, dict):
        span = _SPAN.search(body.message)
        name = "minute" if span and span[1].lower() == "min" else span[1].lower() if span else ""
        for said in _of_headers("openrouter", {str(k): str(v) for k, v in quoted.items()}, since):
            yield replace(said, window_s=_SPANS_S.get(name))


def _in_words(
    pattern: re.Pattern[str], provider: str, body: ErrorBody, since: datetime | None
) -> Iterator[Said]:
    found = pattern.search(body.text)
    if found:
        unit: Unit = "requests" if found[1] == "R" else "tokens"
        limit = _amount(found[3])
        used = _amount(found[4]) if pattern is _LIMIT_USED else limit
        left = None if limit is None or used is None else max(0.0, limit - used)
        window_s = _SPANS_S[_LETTERS[found[2]]]
        yield Said(owner_of(provider), unit, window_s, limit, left, asked_wait_s(body, since))


def _of_many(body: ErrorBody) -> Iterator[Said]:
    found = _OF_MANY.search(body.text)
    if found:
        unit: Unit = "requests" if found[2] == "requests" else "tokens"
        limit = _amount(found[1].replace(",", ""))
        yield Said(owner_of("anthropic"), unit, _SPANS_S[found[3]], limit, None, None)


def _retry_delay_s(body: ErrorBody) -> float | None:
    delays = (detail.get("retryDelay") for detail in body.details)
    return next((wait_s(delay, None) for delay in delays if isinstance(delay, str)), None)


def _amount(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number <= _LARGEST else None
