import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.providers import buckets
from topology.providers.buckets import BUCKETS
from topology.providers.outcomes import Said, Scope
from topology.providers.said import limits_said, spent

DATE = {"Date": "Fri, 20 Nov 2026 12:00:00 GMT"}
MINUTE, DAY, MONTH = 60.0, 86400.0, 30 * 86400.0
ACCOUNT, MODEL = Scope.ACCOUNT, Scope.MODEL


def said(provider: str, headers: dict[str, str], body: Any = None, status: int = 429) -> tuple[Said, ...]:
    return limits_said(provider, status, DATE | headers, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("provider", "headers", "expected"),
    [
        (
            "openai",
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "120ms",
                "X-RateLimit-Limit-Tokens": "150000",
                "X-RateLimit-Remaining-Tokens": "149984",
                "X-RateLimit-Reset-Tokens": "6m0s",
            },
            [(MODEL, "requests", None, 60, 59, 0.12), (MODEL, "tokens", None, 150_000, 149_984, 360)],
        ),
        (
            "groq",
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": "14370",
                "x-ratelimit-reset-requests": "2m59.56s",
                "x-ratelimit-limit-tokens": "18000",
                "x-ratelimit-remaining-tokens": "17997",
                "x-ratelimit-reset-tokens": "7.66s",
            },
            [(MODEL, "requests", DAY, 14400, 14370, 179.56), (MODEL, "tokens", MINUTE, 18000, 17997, 7.66)],
        ),
        (
            "cerebras",
            {
                "x-ratelimit-limit-requests-day": "1000000000",
                "x-ratelimit-remaining-requests-day": "999997455",
                "x-ratelimit-reset-requests-day": "33011.382867",
                "x-ratelimit-limit-requests-minute": "5",
            },
            [
                (MODEL, "requests", MINUTE, 5, None, None),
                (MODEL, "requests", DAY, 1_000_000_000, 999_997_455, 33011.382867),
            ],
        ),
        (
            "anthropic",
            {
                "anthropic-ratelimit-input-tokens-limit": "20000",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-11-20T12:00:30Z",
            },
            [(MODEL, "tokens", MINUTE, 20000, 0, 30)],
        ),
        (
            "mistral",
            {
                "x-ratelimit-limit-tokens-minute": "5000000",
                "x-ratelimit-remaining-tokens-minute": "4999911",
                "x-ratelimit-tokens-query-cost": "52",
                "x-ratelimit-limit-req-minute": "720",
                "x-ratelimit-remaining-req-minute": "717",
                "x-ratelimitbysize-limit-month": "10000000000",
                "x-ratelimitbysize-remaining-month": "9999",
                "ratelimitbysize-limit": "500000",
                "ratelimitbysize-remaining": "499000",
                "ratelimitbysize-reset": "41",
            },
            [
                (ACCOUNT, "requests", MINUTE, 720, 717, None),
                (ACCOUNT, "tokens", MINUTE, 5_000_000, 4_999_911, None),
                (ACCOUNT, "tokens", MONTH, 10_000_000_000, 9999, None),
                (ACCOUNT, "tokens", None, 500_000, 499_000, 41),
            ],
        ),
        (
            "together",
            {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "9", "x-ratelimit-reset": "0.5"},
            [(MODEL, "requests", None, 10, 9, 0.5)],
        ),
        (
            "openrouter",
            {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795176060000"},
            [(ACCOUNT, "requests", None, 20, 0, 60)],
        ),
        ("deepseek", {"x-ratelimit-limit-requests": "60"}, []),
        ("unheard-of", {"x-ratelimit-limit-requests": "60"}, []),
    ],
)
def test_each_providers_headers_are_read_with_its_own_table(
    provider: str, headers: dict[str, str], expected: list[tuple[Any, ...]]
) -> None:
    assert list(said(provider, headers, status=200)) == [Said(*one) for one in expected]


def test_azures_minus_one_is_unknown() -> None:
    headers = {
        "x-ratelimit-limit-tokens": "-1",
        "x-ratelimit-remaining-tokens": "-1",
        "x-ratelimit-reset-tokens": "0",
    }

    assert said("openai", headers) == ()


@pytest.mark.parametrize("amount", ["nan", "inf", "-3", "", "many", "1e300", "12, 100;w=60"])
def test_an_absurd_amount_is_unknown(amount: str) -> None:
    assert said("openai", {"x-ratelimit-limit-requests": amount}) == ()


def test_an_instant_without_the_answers_clock_is_unknown() -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795176060000"}

    assert limits_said("openrouter", 429, headers, b"")[0].resets_in_s is None


def test_gemini_names_the_quota_in_its_body() -> None:
    violations = [
        {"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "quotaValue": "5"},
        {"quotaId": "GenerateContentInputTokensPerModelPerDay-FreeTier", "quotaValue": "6000000"},
        {"quotaId": "RequestsPerDayPerProject"},
    ]
    details = [{"violations": violations}, {"retryDelay": "55s"}]

    assert list(said("gemini", {}, [{"error": {"code": 429, "details": details}}])) == [
        Said(MODEL, "requests", MINUTE, 5, 0, 55),
        Said(MODEL, "tokens", DAY, 6_000_000, 0, 55),
        Said(ACCOUNT, "requests", DAY, None, 0, 55),
    ]


def test_openrouter_quotes_its_headers_in_the_body_and_names_the_window_in_words() -> None:
    headers = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795219200000"}
    error = {"message": "Rate limit exceeded: free-models-per-day", "metadata": {"headers": headers}}

    assert said("openrouter", {}, {"error": error}) == (Said(ACCOUNT, "requests", DAY, 50, 0, 12 * 3600),)


@pytest.mark.parametrize(
    ("provider", "message", "expected"),
    [
        (
            "groq",
            "on tokens per minute (TPM): Limit 15000, Used 11972, Requested 4351. Please try again in 5.289s",
            Said(MODEL, "tokens", MINUTE, 15000, 3028, 5.289),
        ),
        (
            "openai",
            "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 36278.",
            Said(MODEL, "tokens", MINUTE, 30000, None, None),
        ),
        (
            "moonshot",
            "request reached organization max RPM: 3, please try again after 1 seconds",
            Said(ACCOUNT, "requests", MINUTE, 3, 0, 1),
        ),
        (
            "moonshot",
            "request reached organization TPD rate limit, current: 1526210, limit: 1500000",
            Said(ACCOUNT, "tokens", DAY, 1_500_000, 0, None),
        ),
        (
            "anthropic",
            "This request would exceed your organization's rate limit of 80,000 input tokens per minute.",
            Said(MODEL, "tokens", MINUTE, 80_000, None, None),
        ),
    ],
)
def test_a_sentence_names_the_limit_too(provider: str, message: str, expected: Said) -> None:
    assert said(provider, {}, {"error": {"message": message}}) == (expected,)


def test_only_what_is_exhausted_says_when_to_come_back() -> None:
    full = Said(MODEL, "requests", DAY, 100, 40, 5000.0)
    spent_minute = Said(MODEL, "tokens", MINUTE, 100, 0, 7.0)
    spent_day = Said(MODEL, "requests", DAY, 100, 0, 900.0)

    assert spent([full]) is None
    assert spent([full, spent_minute]) == spent_minute
    assert spent([spent_day, full, spent_minute]) == spent_day


def test_every_provider_of_the_catalogue_has_its_table() -> None:
    catalogue = Path(buckets.__file__).parent / "catalogue"

    assert set(BUCKETS) == {path.stem for path in catalogue.glob("*.toml")}


NAMES = sorted(
    {name for table in BUCKETS.values() for b in table for name in (b.limit, b.remaining, b.reset) if name}
)
VALUES = st.text(max_size=40) | st.sampled_from(
    ["-1", "nan", "1e999", "6m0s", "0", "1795176060000", "9" * 500]
)


@given(
    st.sampled_from([*BUCKETS, "unheard-of"]),
    st.integers(100, 599),
    st.dictionaries(st.sampled_from([*NAMES, "date", "DATE"]), VALUES, max_size=8),
    st.binary(max_size=60),
)
def test_whatever_comes_is_sane_or_unknown(
    provider: str, status: int, headers: dict[str, str], content: bytes
) -> None:
    for one in limits_said(provider, status, headers, content):
        for number in (one.limit, one.remaining, one.resets_in_s):
            assert number is None or 0 <= number <= 1e15
