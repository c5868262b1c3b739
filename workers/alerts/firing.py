"""Which alerts fire, which are over, and what of that is news: pure, without clocks and brokers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from topology.alerts import Severity, State, Trouble


class Firing(BaseModel):
    """An alert that somebody was told of.

    Attributes:
        trouble: As it was seen last.
        since: When it began, epoch seconds.
        told_at: When it was told last.
        well_since: Since when nothing is wrong any more; None while something is.
    """

    model_config = ConfigDict(frozen=True)

    trouble: Trouble
    since: float
    told_at: float
    well_since: float | None = None


@dataclass(frozen=True)
class News:
    """Something to tell.

    Attributes:
        repeated: It was told before, and still fires.
    """

    state: State
    trouble: Trouble
    since: float
    repeated: bool = False


def follow(
    firing: Mapping[str, Firing],
    troubles: Iterable[Trouble],
    now: float,
    *,
    resolve_after_s: float,
    repeat_after_s: float,
) -> tuple[dict[str, Firing], list[News]]:
    """What fires now, and what is news of it.

    A trouble is told when it begins, when it becomes graver, and each `repeat_after_s` (0: not again). It is
    over when it was away for `resolve_after_s`; one that comes back sooner was never away.
    """
    present = {trouble.id: trouble for trouble in troubles}
    after: dict[str, Firing] = {}
    news: list[News] = []
    for id_ in firing.keys() | present.keys():
        before, trouble = firing.get(id_), present.get(id_)
        if trouble is not None:
            after[id_], told = _still(before, trouble, now, repeat_after_s)
        else:
            kept, told = _away(firing[id_], now, resolve_after_s)
            after |= {id_: kept} if kept else {}
        news += told
    return after, sorted(news, key=lambda one: one.trouble.id)


def _still(
    before: Firing | None, trouble: Trouble, now: float, repeat_after_s: float
) -> tuple[Firing, list[News]]:
    if before is None:
        return Firing(trouble=trouble, since=now, told_at=now), [News(State.FIRING, trouble, now)]
    gravest = max(before.trouble.severity, trouble.severity, key=lambda severity: severity.rank)
    trouble = trouble.model_copy(update={"severity": gravest})
    graver = gravest is not before.trouble.severity
    if graver or (repeat_after_s and now - before.told_at >= repeat_after_s):
        told = News(State.FIRING, trouble, before.since, repeated=not graver)
        return Firing(trouble=trouble, since=before.since, told_at=now), [told]
    return Firing(trouble=trouble, since=before.since, told_at=before.told_at), []


def _away(before: Firing, now: float, resolve_after_s: float) -> tuple[Firing | None, list[News]]:
    well_since = now if before.well_since is None else before.well_since
    if now - well_since < resolve_after_s:
        return before.model_copy(update={"well_since": well_since}), []
    return None, [News(State.RESOLVED, _over(before.trouble), before.since)]


def _over(trouble: Trouble) -> Trouble:
    text = f"{trouble.about}: {_OVER[trouble.name]}."
    return trouble.model_copy(update={"text": text, "severity": Severity.INFO})


_OVER: Mapping[str, str] = {
    "quota_low": "more of its quota is left again",
    "quota_gone": "its quota is open again",
    "key_lost": "the key is let in again, or was taken out of use",
    "error_rate": "its calls do not fail more than they may any more",
    "latency": "it answers as fast as it should again",
    "circuit_open": "it answers again",
    "budget": "more of the budget is left again",
}
