from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.providers.waits import LONGEST_RETRY_AFTER_S, retry_after_s

NOON = datetime(2001, 2, 3, 12, tzinfo=UTC)


def http_date(instant: datetime) -> str:
    return format_datetime(instant, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"RETRY-AFTER-MS": "250"}, 0.25),
    ],
)
def test_seconds_and_milliseconds_are_read(headers: dict[str, str], seconds: float) -> None:
    assert retry_after_s(headers) == pytest.approx(seconds)


def test_a_date_is_taken_relative_to_the_answers_own_clock() -> None:
    headers = {"date": http_date(NOON), "retry-after": http_date(NOON + timedelta(minutes=2))}

    assert retry_after_s(headers) == 120


def test_a_date_without_the_answers_clock_is_taken_relative_to_ours() -> None:
    found = retry_after_s({"retry-after": http_date(datetime.now(UTC) + timedelta(hours=1))})

    assert found is not None
    assert 0 < found <= 3600


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"date": http_date(NOON)},
        {"retry-after": ""},
        {"retry-after": "soon"},
        {"retry-after": "-1"},
        {"retry-after-ms": "-1"},
        {"retry-after": "nan"},
        {"retry-after": "inf"},
        {"retry-after": "1e9"},
        {"retry-after": "99999999999999999999"},
        {"retry-after": http_date(NOON), "date": http_date(NOON + timedelta(seconds=1))},
        {"retry-after": http_date(NOON + timedelta(days=30)), "date": http_date(NOON)},
        {"retry-after": "Sat, 03 Feb 2001 12:00:00", "date": http_date(NOON)},
        {"retry-after": http_date(NOON), "date": "yesterday"},
        {"retry-after": "Sat, 99 Feb 2001 12:00:00 GMT", "date": http_date(NOON)},
    ],
)
def test_what_is_absent_absurd_or_past_asks_for_nothing(headers: dict[str, str]) -> None:
    assert retry_after_s(headers) is None


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_whatever_the_headers_hold_it_is_a_sane_wait_or_none(after: str, after_ms: str, date: str) -> None:
    found = retry_after_s({"retry-after": after, "retry-after-ms": after_ms, "date": date})

    assert found is None or 0 <= found <= LONGEST_RETRY_AFTER_S
