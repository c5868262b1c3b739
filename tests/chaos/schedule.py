"""The schedule of a run: who is killed where, in which order, and what else goes wrong meanwhile.

The same seed gives the same schedule. How the strikes interleave with the load is up to the machine.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random
from typing import Final, Literal, get_args

IN_CALL: Final = "backend.in_call"
"""The point at which a backend has a call in flight: it gets 300 of each 1000 kills."""

Fault = Literal["rabbitmq", "redis", "cut", "halfopen", "freeze", "flush", "provider"]
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)

PROVOKED: Final = frozenset({"front.parked", "front.after_settle", "backend.parked"})
"""Points that the ordinary load seldom passes; so are the undertaker's. See `provoking.py`."""

_PER_POINT: Final = 0.02
_OF_CALLS: Final = 0.3
_AT_RANDOM: Final = {"front": 5, "backend": 6, "undertaker": 1, "recorder": 1}
"""Shares of the kills from outside, at no point in particular."""


@dataclass(frozen=True)
class Strike:
    """One SIGKILL.

    Attributes:
        role: Whose process it is.
        point: Where it happens; None: from outside, `after_s` seconds after the process was ready.
        nth: At which passage of the point.
    """

    role: str
    point: str | None
    nth: int = 1
    after_s: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """All of a run.

    Attributes:
        strikes: By role, in order.
        quotas: How many kills each named point must get.
        faults: In order, spread evenly over the strikes.
    """

    strikes: Mapping[str, Sequence[Strike]]
    quotas: Mapping[str, int]
    faults: Sequence[Fault]

    @property
    def kills(self) -> int:
        """How many there are."""
        return sum(len(strikes) for strikes in self.strikes.values())


def make_schedule(
    seed: int, kills: int, points: Sequence[str], faults: Sequence[Fault] = (), *, named: bool = False
) -> Schedule:
    """Draws a schedule.

    Args:
        seed: The same gives the same.
        kills: How many in all.
        points: The names of all points; the first word is the role.
        faults: What else goes wrong; shuffled.
        named: Every kill is at a point. False: what the quotas leave comes from outside.
    """
    random = Random(seed)
    quotas = _quotas(random, kills, points, named=named)
    strikes = [
        Strike(_role(point), point, nth=1 if is_provoked(point) else random.randint(1, 3))
        for point, quota in quotas.items()
        for _ in range(quota)
    ]
    outside = random.choices(list(_AT_RANDOM), list(_AT_RANDOM.values()), k=kills - len(strikes))
    strikes += [Strike(role, None, after_s=random.uniform(0.0, 1.5)) for role in outside]
    random.shuffle(strikes)
    by_role = {role: [s for s in strikes if s.role == role] for role in sorted({s.role for s in strikes})}
    return Schedule(by_role, quotas, random.sample(faults, len(faults)))


def is_provoked(point: str) -> bool:
    """Whether traffic of its own is sent when a kill waits there."""
    return point in PROVOKED or _role(point) == "undertaker"


def _role(point: str) -> str:
    return point.partition(".")[0]


def _quotas(random: Random, kills: int, points: Sequence[str], *, named: bool) -> dict[str, int]:
    """At least a kill for each point; where there are fewer kills than points, some of the points."""
    if kills < len(points):
        return dict.fromkeys(random.sample(points, kills), 1)
    quotas = dict.fromkeys(points, max(1, int(kills * _PER_POINT)))
    if IN_CALL in quotas:
        spare = kills - sum(quotas.values()) + quotas[IN_CALL]
        quotas[IN_CALL] = max(quotas[IN_CALL], min(int(kills * _OF_CALLS), spare))
    if sum(quotas.values()) > kills:  # rounded up, or more points than quotas fit in
        quotas = dict(Counter(islice(cycle(points), kills)))
    if named:
        for point in islice(cycle(points), kills - sum(quotas.values())):
            quotas[point] += 1
    return quotas
