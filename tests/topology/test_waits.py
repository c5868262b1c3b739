from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.providers.waits import LONGEST_RESET_S, wait_s, wait_told_s

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
EPOCH_S = int(NOON.timestamp())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120ms", 0.12),
        ("0s", 0),
        ("6m0s", 360),
        ("2m59.56s", 179.56),
        ("7.66s", 7.66),
        ("1h2m", 3720),
        ("10h17m5.72s", 37025.72),
        ("55s", 55),
        ("33011.382867", 33011.382867),
        (" 41 ", 41),
        ("0", 0),
        (str(EPOCH_S + 90), 90),
        (str((EPOCH_S + 90) * 1000), 90),
        ("2026-11-20T12:01:30Z", 90),
        ("2026-11-20T13:01:30+01:00", 90),
        ("2026-11-20T12:01:30.123456789Z", 90.123456),
        ("Fri, 20 Nov 2026 12:01:30 GMT", 90),
    ],
)
def test_each_form_of_a_reset_is_read(text: str, seconds: float) -> None:
    assert wait_s(text, NOON) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "", "soon", "-1", "-7s", "nan", "inf", "-inf", "1e999", "6m0", "m", "5x", "99999h", "2000000000",
        "2026-11-20T11:59:59Z", "2026-11-20T12:01:30", "2026-13-20T12:01:30Z", "9" * 400, "\x00",
    ],
)  # fmt: skip
def test_what_is_past_absurd_or_unreadable_is_unknown(text: str) -> None:
    assert wait_s(text, NOON) is None


def test_an_instant_needs_the_answers_own_clock() -> None:
    for text in (str(EPOCH_S), str(EPOCH_S * 1000), "2026-11-20T12:01:30Z", "Fri, 20 Nov 2026 12:01:30 GMT"):
        assert wait_s(text, None) is None


def test_milliseconds_are_a_thousandth() -> None:
    assert wait_s("1500", None, unit_s=1e-3) == 1.5


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Limit 15000, Used 11972, Requested 4351. Please try again in 5.289s. Visit", 5.289),
        ("Please try again in 1m0.363142857s. Visit", 60.363142857),
        ("Please try again in 579ms. Visit", 0.579),
        ("Please retry in 10h17m5.72s.", 37025.72),
        ("Request was throttled. Your rate limit resets in ~30s.", 30),
        ("reached organization max RPM: 3, please try again after 1 seconds", 1),
        ("Please retry after 45 seconds. To increase", 45),
        ("Rate limit is exceeded. Try again in 2 seconds.", 2),
        ("(reset after 140h 21m 10s)", 140 * 3600 + 21 * 60 + 10),
        ("You will regain access on 2026-11-21 at 00:00 UTC.", 12 * 3600),
    ],
)
def test_a_sentence_that_names_a_wait_is_read(message: str, seconds: float) -> None:
    assert wait_told_s(message, NOON) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Please try again later.",
        "Try again in 20",
        "retry in 99999999h",
        "access on 2020-01-01 at 00:00 UTC",
    ],
)
def test_a_sentence_that_names_none_is_not(message: str) -> None:
    assert wait_told_s(message, NOON) is None


@given(st.text(max_size=80), st.sampled_from([None, NOON]))
def test_whatever_stands_there_is_a_sane_wait_or_none(text: str, since: datetime | None) -> None:
    for found in (wait_s(text, since), wait_told_s(f"retry in {text}", since)):
        assert found is None or 0 <= found <= LONGEST_RESET_S
