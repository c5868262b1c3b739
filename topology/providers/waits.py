"""How long an answer asks to wait: in its headers, its fields and its sentences.

All of it is seconds from the answer's own instant. Whatever is negative, absurd or unreadable is
unknown, never an error.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_RETRY_AFTER_S: Final = 7 * 86400.0
LONGEST_RESET_S: Final = 32 * 86400.0
"""A calendar month, and a day for the zones: quotas by the month exist."""

_EPOCH_MS: Final = 1e12
_EPOCH_S: Final = 1e9
_LONGEST_TEXT: Final = 4000
_UNITS_S: Final = {
    "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0,
    "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9,
}  # fmt: skip

# As Go prints durations, which OpenAI and Groq use: `2m59.56s`, `120ms`, `6m0s`, `1h2m`.
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(d|h|ms|m|us|µs|ns|s)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")

_SPOKEN: Final = re.compile(
    r"(\d+(?:\.\d+)?)\s*(milliseconds?|seconds?|minutes?|hours?|days?|ms|s|m|h|d)\s*", re.IGNORECASE
)
# "Please try again in 5.289s", "try again after 1 seconds", "Please retry in 10h17m5.72s", "resets in ~30s".
_SENTENCE: Final = re.compile(
    rf"\b(?:try again|retry|resets?|wait)\s+(?:in|after|for)\s+~?((?:{_SPOKEN.pattern})+)", re.IGNORECASE
)
_SPOKEN_S: Final = {"millisecond": 1e-3, "second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
# Anthropic's spend limits: "You will regain access on 2025-07-01 at 00:00 UTC."
_REGAINED: Final = re.compile(
    r"\b(?:access on|resets? (?:on|at)|until)\s+(\d{4}-\d\d-\d\d)(?: at |[T ])"
    r"(\d\d:\d\d(?::\d\d)?)\s*(?:UTC|Z)",
    re.IGNORECASE,
)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What `retry-after-ms` or `retry-after` asks for, in seconds; None when absent or absurd.

    The header holds seconds or an HTTP date (RFC 9110, section 10.2.3); a date is taken relative to the
    response's own `date` header, since our clock may differ, and to ours where there is none. Azure
    writes `x-ms-retry-after-ms`.
    """
    named = {name.lower(): value for name, value in headers.items()}
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        waiting_s = wait_s(named.get(name, ""), None, unit_s=1e-3, longest_s=LONGEST_RETRY_AFTER_S)
        if waiting_s is not None:
            return waiting_s
    since = answered_at(headers) if "date" in named else datetime.now(UTC)
    return wait_s(named.get("retry-after", ""), since, longest_s=LONGEST_RETRY_AFTER_S)


def answered_at(headers: Mapping[str, str]) -> datetime | None:
    """The answer's own clock: its `date` header."""
    date = next((value for name, value in headers.items() if name.lower() == "date"), "")
    return _http_date(date.strip())


def wait_s(
    text: str, since: datetime | None, *, unit_s: float = 1.0, longest_s: float = LONGEST_RESET_S
) -> float | None:
    """Reads a header or field that says when something is over.

    A plain number beyond 10^12 is an epoch in milliseconds, beyond 10^9 one in seconds, else a number of
    `unit_s`. Otherwise a duration (`6m0s`), an RFC 3339 instant or an HTTP date.

    Args:
        text: The value as it was sent.
        since: The answer's own instant; without it, instants are unknown.
        unit_s: What a plain number counts, in seconds.
        longest_s: What exceeds it is absurd, hence unknown.
    """
    text = text.strip()[:64]
    try:
        number = float(text)
    except ValueError:
        duration_s = _duration_s(text)
        return _sane(_until(_instant(text), since) if duration_s is None else duration_s, longest_s)
    if number > _EPOCH_S:
        epoch_s = number * 1e-3 if number > _EPOCH_MS else number
        return _sane(None if since is None else epoch_s - since.timestamp(), longest_s)
    return _sane(number * unit_s, longest_s)


def wait_told_s(message: str, since: datetime | None) -> float | None:
    """The wait that a sentence names, as "Please try again in 9m38.016s"; the first one counts."""
    message = message[:_LONGEST_TEXT]
    found = _SENTENCE.search(message)
    if found:
        parts = _SPOKEN.findall(found[1])
        return _sane(sum(float(amount) * _spoken_unit_s(unit) for amount, unit in parts), LONGEST_RESET_S)
    regained = _REGAINED.search(message)
    if regained:
        return _sane(_until(_instant(f"{regained[1]}T{regained[2]}Z"), since), LONGEST_RESET_S)
    return None


def _spoken_unit_s(unit: str) -> float:
    unit = unit.lower()
    return _UNITS_S.get(unit) or _SPOKEN_S[unit.removesuffix("s")]


def _duration_s(text: str) -> float | None:
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(amount) * _UNITS_S[unit] for amount, unit in _PART.findall(text))


def _instant(text: str) -> datetime | None:
    if not _INSTANT.match(text):
        return _http_date(text)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo is not None else None


def _http_date(text: str) -> datetime | None:
    try:
        instant = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return instant if instant.tzinfo is not None else None


def _until(instant: datetime | None, since: datetime | None) -> float | None:
    if instant is None or since is None:
        return None
    return (instant - since).total_seconds()


def _sane(seconds: float | None, longest_s: float) -> float | None:
    return seconds if seconds is not None and 0 <= seconds <= longest_s else None
