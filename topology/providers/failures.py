"""An error answer, as a `Failure`: what it means, of whom it speaks, and how long to wait."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from topology.providers.blame import blamed
from topology.providers.bodies import ErrorBody
from topology.providers.buckets import owner_of
from topology.providers.outcomes import Failure, FailureKind, Said
from topology.providers.rules import (
    COMMON_RULES,
    PERIOD_SPENT,
    PROVIDER_RULES,
    THROTTLED,
    THROTTLED_ACCOUNT,
    Verdict,
    verdict_of_status,
)
from topology.providers.said import asked_wait_s, limits_in_body, limits_in_headers, spent
from topology.providers.waits import answered_at, retry_after_s

_LONGEST_MESSAGE: Final = 500
_LONG_S: Final = 3600.0
"""A limit over more than an hour is a quota: once it is spent, nothing comes for long."""


def failure_of(provider: str | None, status: int, headers: Mapping[str, str], body: ErrorBody) -> Failure:
    """What an error means.

    Args:
        provider: The catalogue's name; None applies only the rules that hold for all.
        status: The HTTP status, or the one that the body names under a status of 200.
        headers: Those of the answer.
        body: The error as it was read.
    """
    since = answered_at(headers)
    limits = [*limits_in_headers(provider, headers), *limits_in_body(provider, body, since)]
    wait_s = retry_after_s(headers)
    if wait_s is None:
        wait_s = asked_wait_s(body, since)
    exhausted = spent(limits)
    if wait_s is None and status == 429 and exhausted is not None:
        wait_s = exhausted.resets_in_s
    verdict = _verdict(provider, status, body, wait_s, limits)
    at_fault = verdict.kind is FailureKind.REQUEST_AT_FAULT
    failure = Failure(
        kind=verdict.kind,
        error_type=verdict.error_type,
        message=(body.message or f"HTTP status {status}")[:_LONGEST_MESSAGE],
        status=status,
        retry_after_s=wait_s,
        code=body.code,
        scope=verdict.scope or owner_of(provider),
        needs_operator=verdict.needs_operator,
        features=blamed(verdict.error_type, body) if at_fault else frozenset(),
    )
    # Where waiting never helps, a wait can be named all the same, as Gemini does beside "limit: 0".
    return replace(failure, retry_after_s=None) if failure.is_fatal else failure


def _verdict(
    provider: str | None, status: int, body: ErrorBody, wait_s: float | None, limits: list[Said]
) -> Verdict:
    rules = (*PROVIDER_RULES.get(provider or "", ()), *COMMON_RULES)
    for rule in rules:
        if rule.holds(status, body):
            return rule.verdict
    if status == 402 and wait_s is not None:
        return THROTTLED_ACCOUNT  # what passes by itself is no lack of money
    verdict = verdict_of_status(status)
    if verdict is THROTTLED:
        return _of_limits(limits)
    return verdict


def _of_limits(limits: list[Said]) -> Verdict:
    """A 429 whose words say nothing more: the limits that are spent decide."""
    exhausted = spent(limits)
    if exhausted is None:
        return THROTTLED
    verdict = PERIOD_SPENT if (exhausted.window_s or 0.0) > _LONG_S else THROTTLED
    return replace(verdict, scope=exhausted.scope)
