"""The requests: a stretch of a recorded trace, thinned at random to a part of what the quotas allow."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from benchmarks.goodput.asks import Ask, Priority
from sandbox.demo.errors import Unusable
from sandbox.demo.trace import Row, Trace, phrases

AGENTS: Final = 12
MAX_TOKENS: Final = 64
_BLOCK_CHARACTERS: Final = 256
"""An eighth of the 512 tokens that a block of a trace stands for, at four characters to a token."""


@dataclass(frozen=True)
class Class:
    """A priority: its part of the requests, and the real seconds in which they must be answered."""

    name: Priority
    part: float
    within_s: float


CLASSES: Final = (Class("high", 0.2, 30.0), Class("normal", 0.5, 60.0), Class("batch", 0.3, 120.0))


@dataclass(frozen=True)
class Stretch:
    """What is taken of a trace, in its own time.

    Attributes:
        from_s: Where it begins, in seconds from the trace's first request.
        seconds: How long it is.
        faster: How many times as fast it is asked; deadlines are as much shorter.
        per_minute: Requests in a real minute; the trace must have as many.
        seed: Who asks, how urgently, and which requests are left out.
    """

    from_s: float
    seconds: float
    faster: float
    per_minute: float
    seed: int


def asks_of(trace: Trace, stretch: Stretch) -> list[Ask]:
    """The requests of that stretch, in order, none equal to another.

    Raises:
        Unusable: The trace has too few.
    """
    rows = _rows_of(trace, stretch)
    count = round(stretch.per_minute * stretch.seconds / 60.0)
    if count > len(rows):
        raise Unusable(
            f"{trace.name} has {len(rows)} requests in the {stretch.seconds:g} s from {stretch.from_s:g} s "
            f"on, and the load needs {count}: take a busier part with --begin, or a lower load with --loads"
        )
    draws = Random(f"{stretch.seed}:goodput")
    kept = sorted(draws.sample(rows, count), key=lambda row: row.at_s)
    first_s = trace.rows[0].at_s + stretch.from_s
    return [_ask(number, row, first_s, stretch, draws) for number, row in enumerate(kept)]


def _rows_of(trace: Trace, stretch: Stretch) -> Sequence[Row]:
    first_s = trace.rows[0].at_s + stretch.from_s
    return [row for row in trace.rows if first_s <= row.at_s < first_s + stretch.seconds]


def _ask(number: int, row: Row, first_s: float, stretch: Stretch, draws: Random) -> Ask:
    kind = draws.choices(CLASSES, [one.part for one in CLASSES])[0]
    prompt = "".join(f"{phrases((block,))} ".ljust(_BLOCK_CHARACTERS, ".") for block in row.blocks)
    return Ask(
        name=f"goodput-{number}",
        at_s=(row.at_s - first_s) / stretch.faster,
        within_s=kind.within_s / stretch.faster,
        agent=f"agent-{draws.randrange(AGENTS)}",
        priority=kind.name,
        prompt=f"{number} {stretch.seed}: {prompt}",
        max_tokens=MAX_TOKENS,
    )
