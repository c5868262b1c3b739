"""What is wrong, by what is left of quotas and by how calls went: pure, and each with what to do."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from pydantic import BaseModel, ConfigDict

from broker.remaining import Remaining
from topology.alerts import About, AlertName, Severity, Trouble
from topology.sections import AlertsSection
from workers.alerts.counts import CallCounts, Calls, Place
from workers.alerts.firing import Firing

_SLOW: Final = 0.95
_LEAST_SLOW_S: Final = 1.0
"""Three times nothing is still nothing."""
_NEW_NORMAL_AFTER_S: Final = 3600.0
_DAY_S: Final = 86400.0
_WINDOWS: Final = {3600.0: "an hour", 86400.0: "a day"} | {n * _DAY_S: "a month" for n in range(28, 32)}
_QUOTA_REMEDY: Final = "raise the plan, add a provider that offers the model, or send less"
_BUDGET_REMEDY: Final = "raise it in [budgets], or send less"


def of_limits(
    found: Iterable[Remaining], section: AlertsSection, firing: Mapping[str, Firing]
) -> Iterator[Trouble]:
    """Quotas and budgets of which little or nothing is left.

    What is gone at once was never low; what was told to be low stays so when it is gone.
    """
    for limit in found:
        if limit.kind == "budget":
            if limit.is_gone or limit.share <= section.quota_low:
                yield _of_limit(limit, AlertName.BUDGET, section)
            continue
        if limit.is_gone:
            yield _of_limit(limit, AlertName.QUOTA_GONE, section)
        if limit.is_gone or limit.share <= section.quota_low:
            low = _of_limit(limit, AlertName.QUOTA_LOW, section)
            if not limit.is_gone or low.id in firing:
                yield low


class Day(BaseModel):
    """A provider's day.

    Attributes:
        ends_at: When its quotas are whole again, epoch seconds.
        used: Of how many of them something was used.
        gone: How many were spent.
    """

    model_config = ConfigDict(frozen=True)

    ends_at: float
    used: int
    gone: int


def of_days(
    found: Iterable[Remaining], days: Mapping[str, Day], now: float
) -> tuple[dict[str, Day], list[Trouble]]:
    """The providers' days, and a notice for each of which something was used and that is over."""
    daily: defaultdict[str, list[Remaining]] = defaultdict(list)
    for limit in found:
        if limit.kind == "quota" and limit.window_s == _DAY_S and limit.opens_at and limit.about.provider:
            daily[limit.about.provider].append(limit)
    after = {
        provider: Day(
            ends_at=max(limit.opens_at or 0.0 for limit in limits),
            used=sum(limit.left < limit.amount for limit in limits),
            gone=sum(limit.is_gone for limit in limits),
        )
        for provider, limits in daily.items()
    }
    over = {name: day for name, day in days.items() if name in after and now >= day.ends_at and day.used}
    return after, [_new_day(name, day) for name, day in over.items()]


def of_calls(
    counts: CallCounts, section: AlertsSection, firing: Mapping[str, Firing], now: float
) -> Iterator[Trouble]:
    """Models whose calls fail too often, or take too long.

    It takes `calls_at_least` calls to say so; after that it lasts while what calls there are go no better.
    """
    window_s = section.window_s
    normal = counts.before(now, window_s)
    for place, calls in counts.within(now, window_s).items():
        failing = _failing(place, calls, section)
        if calls.error_rate > section.error_rate and _is_told_by(calls.count, section, failing, firing):
            yield failing
        slow = _slow(place, calls, normal.get(place, Calls()), section, firing, now)
        if slow is not None and _is_told_by(calls.answered.total(), section, slow, firing):
            yield slow


def _is_told_by(count: int, section: AlertsSection, trouble: Trouble, firing: Mapping[str, Firing]) -> bool:
    return count >= section.calls_at_least or trouble.id in firing


def _of_limit(limit: Remaining, name: AlertName, section: AlertsSection) -> Trouble:
    budget = limit.kind == "budget"
    window = _WINDOWS.get(limit.window_s, f"in {limit.window_s:g} s")
    left = f"{limit.left:.4g} of {limit.amount:.10g} {limit.unit} {window}"
    opens = f"it is whole again at {clock(limit.opens_at)}" if limit.opens_at else "it opens little by little"
    remedy = _BUDGET_REMEDY if budget else _QUOTA_REMEDY
    what = "budget" if budget else "quota"
    if limit.is_gone:
        text = f"{limit.about}: the {what} is spent ({left}); {opens}, and until then requests wait or go "
        text += f"elsewhere. To go on sooner: {remedy}."
    else:
        text = f"{limit.about}: {left} are left ({limit.share:.0%}); {opens}. To make it last: {remedy}."
    return Trouble(
        name=name,
        about=limit.about,
        severity=Severity.CRITICAL if limit.is_gone and name is not AlertName.QUOTA_LOW else Severity.WARNING,
        text=text,
        value=limit.left,
        threshold=section.quota_low * limit.amount,
    )


def _new_day(provider: str, day: Day) -> Trouble:
    quotas = "quota" if day.used == 1 else "quotas"
    return Trouble(
        name=AlertName.DAILY_RESET,
        about=About(provider=provider),
        severity=Severity.INFO,
        text=f"{provider}: its day ended at {clock(day.ends_at)}; of the {day.used} {quotas} in use "
        f"{day.gone} had been spent, and all are whole again. Nothing is to be done.",
    )


def _failing(place: Place, calls: Calls, section: AlertsSection) -> Trouble:
    about = About(provider=place[0], model=place[1])
    return Trouble(
        name=AlertName.ERROR_RATE,
        about=about,
        severity=Severity.CRITICAL,
        text=f"{about}: {calls.failed} of {calls.count} calls failed in the last {section.window_s:g} s "
        f"({calls.error_rate:.0%}). Look at them with: event_monitor optimizer.call.failed; to leave the "
        f"provider alone: optimizer drain {place[0]}.",
        value=calls.error_rate,
        threshold=section.error_rate,
    )


def _slow(
    place: Place,
    calls: Calls,
    normal: Calls,
    section: AlertsSection,
    firing: Mapping[str, Firing],
    now: float,
) -> Trouble | None:
    took_s = calls.percentile(_SLOW)
    normal_s = normal.percentile(_SLOW) if normal.answered.total() >= section.calls_at_least else None
    bounds = [] if section.latency_s is None else [section.latency_s]
    if normal_s is not None:
        bounds.append(max(_LEAST_SLOW_S, section.latency_factor * normal_s))
    about = About(provider=place[0], model=place[1])
    trouble = Trouble(name=AlertName.LATENCY, about=about, severity=Severity.WARNING, text="")
    told = firing.get(trouble.id)
    if told and told.trouble.threshold and now - told.since < _NEW_NORMAL_AFTER_S:
        bounds = [told.trouble.threshold]  # or slow calls would soon be normal
    if took_s is None or not bounds or took_s <= min(bounds):
        return None
    text = (
        f"{about}: 95 % of the answers took up to {took_s:.2g} s in the last {section.window_s:g} s, more "
        f"than {min(bounds):.2g} s. Where others offer the model, optimizer drain {place[0]} sends requests "
        "there; else lower the provider's concurrency, or ask for shorter answers."
    )
    return trouble.model_copy(update={"text": text, "value": took_s, "threshold": min(bounds)})


def clock(instant: float) -> str:
    """An instant as people write it."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M UTC")
