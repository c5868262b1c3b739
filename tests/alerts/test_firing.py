"""What is news: once when it begins, once when it is over, and nothing of what flaps between."""

from topology.alerts import About, AlertName, Severity, Trouble
from workers.alerts.firing import Firing, follow


def trouble(severity: Severity = Severity.WARNING, model: str = "m", **values: float) -> Trouble:
    about = About(provider="groq", model=model)
    return Trouble(name=AlertName.BUDGET, about=about, severity=severity, text="Something.", **values)


class Told:
    """Follows troubles as time passes; `at` returns what is told at that instant."""

    def __init__(self, resolve_after_s: float = 60.0, repeat_after_s: float = 0.0) -> None:
        self.firing: dict[str, Firing] = {}
        self.resolve_after_s = resolve_after_s
        self.repeat_after_s = repeat_after_s

    def at(self, now: float, *troubles: Trouble) -> list[tuple[str, bool]]:
        self.firing, news = follow(
            self.firing, troubles, now,
            resolve_after_s=self.resolve_after_s, repeat_after_s=self.repeat_after_s,
        )  # fmt: skip
        return [(one.state.value, one.repeated) for one in news]


def test_it_is_told_once_and_once_when_it_is_over() -> None:
    told = Told()

    assert told.at(0, trouble(value=1.0)) == [("firing", False)]
    assert told.at(1, trouble(value=2.0)) == []
    assert told.at(2) == []
    assert told.at(61) == []
    assert told.at(62) == [("resolved", False)]
    assert told.at(63) == []
    assert told.firing == {}


def test_what_comes_back_within_the_hold_was_never_away() -> None:
    told = Told()
    told.at(0, trouble())

    assert [told.at(now) for now in (10, 69)] == [[], []]
    assert told.at(69.5, trouble()) == []
    assert [told.at(now) for now in (70, 129)] == [[], []]
    assert told.at(130) == [("resolved", False)]


def test_one_that_goes_on_is_repeated_when_that_is_wanted() -> None:
    told = Told(repeat_after_s=100)
    told.at(0, trouble())

    assert told.at(99, trouble()) == []
    assert told.at(100, trouble()) == [("firing", True)]
    assert told.at(101, trouble()) == []
    assert next(iter(told.firing.values())).since == 0


def test_what_becomes_graver_is_told_again_and_only_once() -> None:
    told = Told()
    told.at(0, trouble())

    assert told.at(1, trouble(Severity.CRITICAL)) == [("firing", False)]
    assert told.at(2, trouble(Severity.WARNING)) == []
    assert told.at(3, trouble(Severity.CRITICAL)) == []


def test_troubles_are_told_apart_by_what_they_are_about() -> None:
    told = Told()

    assert len(told.at(0, trouble(model="a"), trouble(model="b"))) == 2
    assert told.at(1, trouble(model="b")) == []
    assert told.at(61, trouble(model="b")) == [("resolved", False)]
