"""What follows from an error answer beyond its label: waits, scopes, and what must not leak."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import ErrorType
from topology.providers.buckets import BUCKETS
from topology.providers.openai import read_answer
from topology.providers.outcomes import Completion, Failure, FailureKind, Scope

DATE = {"date": "Fri, 20 Nov 2026 12:00:00 GMT"}


def failed(provider: str | None, status: int, body: Any = None, **headers: str) -> Failure:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = read_answer("chat", status, named, content, provider=provider)
    assert isinstance(answer, Failure)
    return answer


def router(code: int, message: str = "No.", **metadata: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "metadata": metadata}}


def test_the_reset_of_what_is_exhausted_is_the_wait_and_no_other() -> None:
    failure = failed(
        "groq",
        429,
        x_ratelimit_remaining_requests="14370",
        x_ratelimit_reset_requests="2m59.56s",
        x_ratelimit_remaining_tokens="0",
        x_ratelimit_reset_tokens="7.66s",
    )

    assert (failure.kind, failure.scope, failure.retry_after_s) == (FailureKind.THROTTLED, Scope.MODEL, 7.66)


def test_a_spent_day_is_a_quota_that_is_gone() -> None:
    failure = failed("groq", 429, x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="1h2m")

    assert (failure.kind, failure.retry_after_s) == (FailureKind.QUOTA_GONE, 3720)
    assert not failure.is_fatal


def test_what_the_header_asks_goes_before_what_the_sentence_says() -> None:
    body = {"error": {"message": "Please try again in 5.289s."}}

    assert failed("groq", 429, body, retry_after="7").retry_after_s == 7
    assert failed("groq", 429, body).retry_after_s == pytest.approx(5.289)


def test_no_wait_is_told_where_none_helps() -> None:
    body = {"error": {"message": "* Quota exceeded, limit: 0\nPlease retry in 45.5s.", "code": 429}}

    failure = failed("gemini", 429, body)

    assert (failure.needs_operator, failure.retry_after_s) == (True, None)


def test_a_payment_that_passes_by_itself_is_a_throttle_of_the_account() -> None:
    assert failed("openrouter", 402, router(402)).needs_operator

    for failure in (
        failed("openrouter", 402, router(402, limit_source="openrouter_in_flight_budget"), retry_after="3"),
        failed(None, 402, {}, retry_after="3"),
    ):
        assert (failure.kind, failure.scope) == (FailureKind.THROTTLED, Scope.ACCOUNT)
        assert failure.retry_after_s == 3


def test_a_budget_of_a_key_is_the_keys_and_opens_when_it_says() -> None:
    body = router(403, limit_source="openrouter_key_limit", resets_at="2026-11-21T00:00:00Z")

    failure = failed("openrouter", 403, body, **DATE)

    assert (failure.kind, failure.scope) == (FailureKind.QUOTA_GONE, Scope.KEY)
    assert failure.retry_after_s == 12 * 3600


def test_moderation_punishes_no_key() -> None:
    """The shape that OpenRouter documents: openrouter.ai/docs/api/reference/errors-and-debugging."""
    flagged = router(403, reasons=["violence"], flagged_input="...", provider_name="OpenAI", model_slug="x")

    failure = failed("openrouter", 403, flagged)

    assert failure.error_type is ErrorType.CONTENT_FILTERED
    assert failure.scope is Scope.REQUEST


def test_a_spend_limit_opens_at_the_instant_that_the_sentence_names() -> None:
    message = (
        "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
    )
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}

    failure = failed("anthropic", 400, body, **DATE)

    assert (failure.kind, failure.scope) == (FailureKind.QUOTA_GONE, Scope.ACCOUNT)
    assert failure.retry_after_s == 10.5 * 86400


def test_cloudflares_own_limit_is_of_the_address() -> None:
    failure = failed("groq", 429, b"error code: 1015")

    assert (failure.kind, failure.scope) == (FailureKind.THROTTLED, Scope.ADDRESS)
    assert failure.message == "HTTP status 429"


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 529])
def test_trouble_of_the_provider_passes(status: int) -> None:
    failure = failed("together", status, b"<html>")

    assert (failure.kind, failure.scope) == (FailureKind.CAPACITY, Scope.PROVIDER)
    assert not failure.is_fatal


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Incorrect API key provided: sk-abc***", "code": "invalid_api_key"}},
        {"error": {"message": "Incorrect API key provided: sk-abc123def456", "code": None, "type": None}},
        {"error": {"message": "No.", "code": "sk-abc123def456ghi789"}},
        {"error": {"message": "No.", "code": "gsk_abcdefgh", "type": "AIzaSyAhTarnL1PaQn0123"}},
        {"error": "Incorrect API key provided: xai-abc123", "code": "Client specified an invalid argument"},
        {"code": "0123456789abcdef0123456789abcdef", "error": "No."},
    ],
)
def test_no_part_of_a_key_is_in_the_code(body: dict[str, Any]) -> None:
    assert failed("xai", 401, body).code in {None, "invalid_api_key"}


@given(
    st.sampled_from(["sk-", "sk-proj-", "gsk_", "csk-", "xai-"]),
    st.from_regex(r"[A-Za-z0-9]{8,40}", fullmatch=True),
)
def test_whatever_quotes_a_key_does_not_carry_it_into_the_code(prefix: str, secret: str) -> None:
    key = prefix + secret
    for body in ({"error": {"message": f"Bad key {key}", "code": key, "type": key}}, {"detail": key}):
        assert secret not in (failed("openai", 401, body).code or "")


def test_the_code_is_the_word_rather_than_the_number() -> None:
    assert (
        failed("gemini", 429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}).code
        == "RESOURCE_EXHAUSTED"
    )
    assert failed("openrouter", 429, router(429)).code == "429"


KNOWN = st.sampled_from(
    [
        "error",
        "message",
        "code",
        "type",
        "status",
        "details",
        "violations",
        "quotaId",
        "quotaValue",
        "retryDelay",
        "metadata",
        "headers",
        "raw",
        "X-RateLimit-Reset",
        "X-RateLimit-Remaining",
        "resets_at",
        "reasons",
        "detail",
    ]
)
ODD = st.sampled_from(
    ["NaN", "-1", "1e999", "Please retry in 5s", "limit: 0", "PerDay", "9" * 400, "2026-13-01T00:00:00Z"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | ODD
BODIES = st.recursive(
    LEAVES, lambda part: st.lists(part, max_size=3) | st.dictionaries(KNOWN, part, max_size=4)
)


@given(st.sampled_from([None, *BUCKETS]), st.sampled_from([200, 400, 402, 403, 429, 503]), BODIES)
def test_whatever_body_comes_it_is_read(provider: str | None, status: int, body: Any) -> None:
    answer = read_answer("chat", status, DATE, json.dumps(body).encode(), provider=provider)

    assert isinstance(answer, Completion | Failure)
    if isinstance(answer, Failure) and answer.retry_after_s is not None:
        assert 0 <= answer.retry_after_s <= 32 * 86400
