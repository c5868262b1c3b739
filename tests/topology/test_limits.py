from typing import Any

import pytest
from pydantic import ValidationError

from topology.limits import Limit, collect_short_forms, day_offset_s


@pytest.mark.parametrize(
    ("key", "limit"),
    [
        ("requests_per_second", Limit(requests=30, window_s=1)),
        ("requests_per_minute", Limit(requests=30, window_s=60)),
        ("tokens_per_hour", Limit(tokens=30, window_s=3600)),
        ("requests_per_day", Limit(requests=30, window_s=86400, counting="fixed")),
        ("usd_per_month", Limit(usd=30, window_s=30 * 86400, counting="fixed")),
    ],
)
def test_a_short_form_is_a_limit_over_its_window(key: str, limit: Limit) -> None:
    collected = collect_short_forms({key: 30, "name": "groq"})

    assert collected["name"] == "groq"
    assert [Limit.model_validate(entry) for entry in collected["limits"]] == [limit]


def test_short_forms_join_the_long_form() -> None:
    long = {"requests": 20, "window_s": 10, "counting": "fixed"}

    collected = collect_short_forms({"tokens_per_minute": 6000, "limits": [long]})

    assert [Limit.model_validate(e).name for e in collected["limits"]] == ["tokens-60s", "requests-10s"]


def test_a_table_without_short_forms_stays_as_it_is() -> None:
    table = {"name": "groq", "requests_per_fortnight": 1}

    assert collect_short_forms(table) == table


@pytest.mark.parametrize(
    "values",
    [
        {"window_s": 60},
        {"requests": 1, "tokens": 1, "window_s": 60},
        {"requests": 0, "window_s": 60},
        {"requests": -1, "window_s": 60},
        {"requests": 1},
        {"requests": 1, "window_s": 0},
        {"requests": 1, "window_s": 60, "counting": "roughly"},
        {"requests": 1, "window_s": 60, "window": 1},
    ],
)
def test_an_impossible_limit_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Limit.model_validate(values)


@pytest.mark.parametrize("unit", ["requests", "tokens", "usd"])
def test_a_limit_knows_its_unit_and_amount(unit: str) -> None:
    limit = Limit.model_validate({unit: 2.5, "window_s": 60})

    assert (limit.unit, limit.amount, limit.name) == (unit, 2.5, f"{unit}-60s")


@pytest.mark.parametrize(
    ("text", "offset_s"), [("00:00 UTC", 0), ("07:00 UTC", 7 * 3600), ("23:59 UTC", 86340)]
)
def test_a_providers_day_ends_at_its_own_hour(text: str, offset_s: float) -> None:
    assert day_offset_s(text) == offset_s


@pytest.mark.parametrize("text", ["midnight", "24:00 UTC", "07:00", "07:00 PST", ""])
def test_another_form_of_the_hour_is_refused_with_the_right_one(text: str) -> None:
    with pytest.raises(ValueError, match="is not of the form '00:00 UTC'"):
        day_offset_s(text)


@pytest.mark.parametrize(
    ("limit", "slack_s"),
    [
        (Limit(requests=120, window_s=60), 0.6),
        (Limit(requests=120, window_s=20), 0.2),
        (Limit(requests=120, window_s=600), 1.0),
        (Limit(requests=120, window_s=20, counting="fixed"), 0.2),
        (Limit(requests=50, window_s=86400, counting="fixed"), 5.0),
        (Limit(requests=120, window_s=20, counting="bucket"), 1.0),
        (Limit(requests=120, window_s=60, counting="bucket", burst=2), 0.5),
        (Limit(requests=120, window_s=60, counting="bucket", burst=1), 0.25),
    ],
)
def test_a_call_may_be_late_by_what_costs_little_of_its_limit(limit: Limit, slack_s: float) -> None:
    assert limit.slack_s == pytest.approx(slack_s)
