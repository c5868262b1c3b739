"""Every world that can be reached, the nearest first: what it finds is found by the shortest way."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.model import clients, clock, faults, fronts, hedges, workers
from tests.model.flight import Ask, Flight
from tests.model.holes import Hole
from tests.model.world import PROBE, Model, Rules, Scenario, State, Violation, beginning


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        states: How many worlds it saw.
        violation: What was broken first; None: nothing.
        trace: The steps that led there.
        whole: False when it stopped at its bound.
    """

    states: int
    seconds: float
    violation: str | None = None
    trace: tuple[str, ...] = ()
    whole: bool = True

    def __str__(self) -> str:
        if self.violation is None:
            rate = self.states / max(self.seconds, 1e-9)
            told = "no violation" if self.whole else "no violation so far; it stopped at its bound"
            return f"{self.states} states in {self.seconds:.1f} s ({rate:.0f}/s), {told}"
        steps = "\n".join(f"  {number:2} {text}" for number, text in enumerate(self.trace, 1))
        return f"{self.violation}\n{steps}"


def search(model: Model, *, most: int = 10_000_000, say: Callable[[str], object] = lambda _: None) -> Found:
    """Searches breadth first.

    Worlds are remembered by a hash of 64 bits, as model checkers do: with a million of them the chance
    that two are mistaken for one is below one in ten million.
    """
    began = time.monotonic()
    first = beginning(model)
    parents: dict[int, tuple[int, str]] = {hash(first): (0, "")}
    waiting = deque([(hash(first), first)])
    while waiting:
        number, state = waiting.popleft()
        steps = _steps(model, state)
        while True:
            try:
                text, following = _hastened(model, *next(steps))
            except StopIteration:
                break
            except Violation as violation:
                took = time.monotonic() - began
                return Found(len(parents), took, str(violation), _trace(parents, number))
            known = hash(following)
            if known not in parents:
                parents[known] = (number, text)
                waiting.append((known, following))
                if len(parents) % 100_000 == 0:
                    say(f"{len(parents)} states, {len(waiting)} still to follow")
        if len(parents) >= most:
            return Found(len(parents), time.monotonic() - began, whole=False)
    return Found(len(parents), time.monotonic() - began)


def model_of(scenario: Scenario, hole: Hole | None = None) -> Model:
    """A scenario, played by the scripts and rules as they are, or with a hole."""
    flight = Flight(
        [*scenario.asks, Ask(PROBE)],
        max_spends=scenario.max_spends,
        patches=hole.patches if hole else None,
        overrides=hole.overrides if hole else None,
    )
    return Model(scenario, flight, hole.rules if hole else Rules())


def _hastened(model: Model, text: str, state: State) -> tuple[str, State]:
    """Goes on while there is only one thing to be done that matters to nobody else: fewer worlds to see."""
    while step := fronts.hasten(model, state) or workers.hasten(model, state):
        text, state = f"{text}; {step[0]}", step[1]
    return text, state


def _steps(model: Model, state: State) -> Iterator[tuple[str, State]]:
    idle = True
    for part in (fronts.steps, workers.steps, hedges.steps):
        for step in part(model, state):
            idle = False
            yield step
    yield from clients.steps(model, state)  # time does not wait for them
    yield from faults.steps(model, state)
    yield from clock.steps(model, state, idle=idle)


def _trace(parents: dict[int, tuple[int, str]], number: int) -> tuple[str, ...]:
    steps = []
    while number:
        number, text = parents[number]
        steps.append(text)
    return tuple(reversed([text for text in steps if text]))
