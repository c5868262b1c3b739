"""What a limit is, and which limits apply to a call."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Unit = Literal["requests", "tokens", "usd"]
Counting = Literal["sliding", "fixed", "bucket"]
Charge = Literal["reserved", "used"]

_WINDOWS_S: Final = {
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
    "month": 30 * 86400.0,
}
_LEAST_SLACK_S: Final = 0.2
_MOST_SLACK_S: Final = 1.0
_SLACK: Final = 0.01
_SLACK_OF_A_BURST: Final = 0.5
_LONG_WINDOW_S: Final = 3600.0
_BORDER_S: Final = 5.0
_SHORT_FORM: Final = re.compile(r"(requests|tokens|usd)_per_(second|minute|hour|day|month)")


class Limit(BaseModel):
    """How much may be spent within a window.

    Exactly one of `requests`, `tokens` and `usd` is set.

    Attributes:
        window_s: The window's length in seconds.
        counting: How the provider counts. `sliding` (default): no window of that length, wherever it
            starts, holds more. `fixed`: calendar windows, days ending at the provider's
            `day_resets_at`. `bucket`: it starts full and refills evenly.
        burst: For `bucket`: how much may be spent at once. None means the whole amount.
        charge: Which tokens count. `reserved` (default): the prompt and the bound on the answer, as the
            request states it, from its arrival. `used`: the prompt and what was generated.
        source: Where a limit of the catalogue was read.
        as_of: When, as an ISO date.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: float | None = Field(default=None, gt=0)
    tokens: float | None = Field(default=None, gt=0)
    usd: float | None = Field(default=None, gt=0)
    window_s: float = Field(gt=0)
    counting: Counting = "sliding"
    burst: float | None = Field(default=None, gt=0)
    charge: Charge = "reserved"
    source: str | None = None
    as_of: str | None = None

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        given = [unit for unit in ("requests", "tokens", "usd") if getattr(self, unit) is not None]
        if len(given) != 1:
            raise ValueError("a limit names exactly one of requests, tokens and usd")
        return self

    @property
    def unit(self) -> Unit:
        """What is counted."""
        if self.requests is not None:
            return "requests"
        return "tokens" if self.tokens is not None else "usd"

    @property
    def amount(self) -> float:
        """How much of the unit fits into a window."""
        return self.requests or self.tokens or self.usd or 0.0

    @property
    def is_long(self) -> bool:
        """Whether it is a quota: for a day, an hour at least, that opens as a whole."""
        return self.counting == "fixed" and self.window_s >= _LONG_WINDOW_S

    @property
    def slack_s(self) -> float:
        """How long after its permit a call may reach the provider, in seconds.

        A hundredth of the window, between 0.2 s and 1 s, since the limit cannot be used up by more than that.
        Near the end of an hour or a longer fixed window 5 s: clocks differ, and hardly any permit is lost.
        A bucket may be taken for full for so long that half of what it holds would have flowed in meanwhile,
        up to 1 s: once it has been emptied, nothing is lost by that.
        """
        if self.is_long:
            return _BORDER_S
        if self.counting == "bucket":
            fills_in_s = (self.burst or self.amount) / self.amount * self.window_s
            return min(_MOST_SLACK_S, max(_LEAST_SLACK_S, _SLACK_OF_A_BURST * fills_in_s))
        return min(_MOST_SLACK_S, max(_LEAST_SLACK_S, _SLACK * self.window_s))

    @property
    def name(self) -> str:
        """A short name that tells limits of one scope apart, such as `requests-60s`."""
        return f"{self.unit}-{self.window_s:g}s"


def collect_short_forms(values: dict[str, Any]) -> dict[str, Any]:
    """Turns keys like `requests_per_minute = 30` into entries of `limits`.

    Days and months are calendar windows, as providers count them; shorter ones slide.
    """
    rest: dict[str, Any] = {}
    short: list[dict[str, Any]] = []
    for key, value in values.items():
        match = _SHORT_FORM.fullmatch(key)
        if match is None:
            rest[key] = value
            continue
        unit, window = match.groups()
        counting = "fixed" if window in {"day", "month"} else "sliding"
        short.append({unit: value, "window_s": _WINDOWS_S[window], "counting": counting})
    long = rest.get("limits", [])
    if short and isinstance(long, list | tuple):  # anything else is for the validation to refuse
        rest["limits"] = [*short, *long]
    return rest


def day_offset_s(resets_at: str) -> float:
    """Seconds after midnight UTC at which a provider's day ends, from `HH:MM UTC`.

    Raises:
        ValueError: The text has another form.
    """
    try:
        clock = datetime.strptime(resets_at, "%H:%M UTC").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"day_resets_at: {resets_at!r} is not of the form '00:00 UTC'") from None
    return timedelta(hours=clock.hour, minutes=clock.minute).total_seconds()
