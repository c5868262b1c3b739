"""The workload `fleet`: ten minutes in the life of 28 agents, as an audit of such a fleet would show them.

Made from a seed, not recorded. Each kind of agent is one generator below; its docstring says how it
works in life: its rhythm, its priority, its model, and how much of what it asks has been asked before.
Ten minutes are the default lifetime of an answer, so what is a repeat in the demo, compressed to some
seconds, would be one in life.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from sandbox.demo import prompts
from sandbox.demo.workload import Agent, Ask, Cache, Workload, in_order

LIFE_S: Final = 600.0
"""How much of the fleet's life is played."""

_Asks = Iterator[Ask]
_EXACT: Final = (("max_tokens", 40), ("temperature", 0))


def fleet_workload(seed: int, seconds: float, run: str) -> Workload:
    """The fleet's requests, the same for the same arguments.

    Args:
        seed: What the agents ask, and when.
        seconds: How long it lasts; ten minutes are compressed into it.
        run: A name that ends every prompt, so that no answer of an earlier run is met.
    """
    members = fleet_agents()
    asks: list[Ask] = []
    for kind, (_, ask_of) in _KINDS.items():
        own = tuple(agent for agent in members if agent.kind == kind)
        asks += ask_of(Random(f"{seed}:{kind}"), own)
    asks += _incidents(Random(f"{seed}:incident"), members)
    factor = seconds / LIFE_S
    placed = [
        replace(ask, at_s=min(ask.at_s, LIFE_S) * factor, prompt=f"{ask.prompt}\n[run {run}]") for ask in asks
    ]
    return Workload(
        title=f"fleet: ten minutes of {len(members)} agents of {len(_KINDS)} kinds, seeded, not recorded",
        agents=members,
        asks=in_order(placed),
        notes=(f"played in {seconds:g} s, {LIFE_S / seconds:.0f} times as fast as life (seed {seed})",),
    )


def fleet_agents() -> tuple[Agent, ...]:
    """The 28 agents, `monitor-1` and so on."""
    return tuple(
        Agent(f"{kind}-{number}", kind)
        for kind, (count, _) in _KINDS.items()
        for number in range(1, count + 1)
    )


def _monitors(random: Random, agents: Sequence[Agent]) -> _Asks:
    """Every 20 s each polls one of six recurring questions about the same dashboards.

    High priority, the small model. What a dashboard shows changes every 200 s, so almost every poll
    repeats a colleague's. One in twenty is a person who presses "again": `refresh`.
    """
    for agent in agents:
        for tick in _timer(random, every_s=20.0, jitter_s=2.0):
            prompt = prompts.dashboard(random.randrange(6), int(tick // 200.0))
            cache: Cache = "refresh" if random.random() < 0.05 else "use"
            yield Ask(tick, agent, prompt, "sim-small", None, "high", cache, _EXACT)


def _reviewers(random: Random, agents: Sequence[Agent]) -> _Asks:
    """A push every 75 s or so; all of them take up the same diff at that moment, each with three questions.

    Normal priority, the large model, task `code`. Their questions are a checklist and therefore identical:
    one call each, which the others join while it runs.
    """
    for push, tick in enumerate(_timer(random, every_s=75.0, jitter_s=10.0)):
        diff = prompts.diff(random, push)
        for agent in agents:
            for question in prompts.CHECKLIST:
                yield Ask(
                    tick, agent, f"{question}\n{diff}", "sim-large", "code", params=(("max_tokens", 60),)
                )


def _researchers(random: Random, agents: Sequence[Agent]) -> _Asks:
    """Each asks, reads for 25 s or so, and asks on.

    Normal priority, the model left to the optimizer. Nearly all is new; one in twelve comes back to what
    a colleague has asked.
    """
    asked: list[str] = []
    for agent in agents:
        for tick in _pauses(random, mean_s=25.0):
            again = asked and random.random() < 1 / 12
            prompt = random.choice(asked) if again else prompts.research(random, len(asked))
            asked.append(prompt)
            yield Ask(tick, agent, prompt)


def _planners(random: Random, agents: Sequence[Agent]) -> _Asks:
    """Every 60 s each plans anew from its list of tasks, which changes every 150 s.

    High priority, task `reasoning`. Between two changes it asks the same; it shares with nobody.
    """
    for agent in agents:
        for tick in _timer(random, every_s=60.0, jitter_s=5.0):
            yield Ask(
                tick, agent, prompts.plan(agent.name, int(tick // 150.0)), task="reasoning", priority="high"
            )


def _watchers(random: Random, agents: Sequence[Agent]) -> _Asks:
    """On the full minute each asks what is new about three topics.

    Normal priority, the small model, `join`: an answer of a minute ago is no news, but the call that
    another watcher is making at this moment is shared.
    """
    offset_s = random.uniform(0.0, 20.0)
    for minute in range(10):
        for agent in agents:
            for topic in prompts.TOPICS:
                at_s = offset_s + minute * 60.0
                yield Ask(at_s, agent, prompts.news(topic), "sim-small", cache="join")


def _evaluators(random: Random, agents: Sequence[Agent]) -> _Asks:
    """Two rounds in ten minutes, in which each grades the same twelve answers by the same rubric.

    Batch priority, the small model, temperature 0; each in an order of its own. All but the first
    grading of an answer repeat it.
    """
    for start_s in (40.0, 340.0):
        for agent in agents:
            order = random.sample(range(12), 12)
            for place, number in enumerate(order):
                at_s = start_s + place * 15.0 + random.uniform(0.0, 5.0)
                yield Ask(at_s, agent, prompts.grading(number), "sim-small", None, "batch", params=_EXACT)


def _summarizers(random: Random, agents: Sequence[Agent]) -> _Asks:
    """A folder of 20 pages for each at once, half a minute in, and 15 pages more over the rest.

    Batch priority, task `long_form`. One page in ten is the same boilerplate everywhere.
    """
    for agent in agents:
        instants = [30.0] * 20 + sorted(random.uniform(60.0, LIFE_S) for _ in range(15))
        for number, at_s in enumerate(instants):
            page = prompts.BOILERPLATE if random.random() < 0.1 else f"page {number} of {agent.name}'s folder"
            yield Ask(at_s, agent, prompts.summary(page), task="long_form", priority="batch")


def _testers(random: Random, agents: Sequence[Agent]) -> _Asks:
    """Twice in ten minutes each asks one prompt three times over, to see how much the answers differ.

    Normal priority, the small model, `off`: equal requests, and every one is to be a call of its own.
    """
    for agent in agents:
        for tick in _timer(random, every_s=300.0, jitter_s=30.0):
            for _ in range(3):
                yield Ask(tick, agent, prompts.SPREAD, "sim-small", cache="off")


def _assistants(random: Random, agents: Sequence[Agent]) -> _Asks:
    """People ask every 12 s or so; few questions are asked often, many seldom.

    High priority, the model left to the optimizer. About two in three have been asked before.
    """
    weights = [1.0 / (rank + 1) for rank in range(25)]
    for agent in agents:
        for tick in _pauses(random, mean_s=12.0):
            [number] = random.choices(range(25), weights)
            yield Ask(tick, agent, prompts.desk(number), priority="high")


def _incidents(random: Random, agents: Sequence[Agent]) -> _Asks:
    """Twice something breaks, and twelve agents of any kind ask the very same at the very same moment."""
    for number, at_s in enumerate((200.0, 450.0)):
        for agent in random.sample(agents, 12):
            yield Ask(at_s, agent, prompts.incident(number), "sim-large", "reasoning", "high")


_KINDS: Final[dict[str, tuple[int, Callable[[Random, Sequence[Agent]], _Asks]]]] = {
    "monitor": (5, _monitors),
    "reviewer": (5, _reviewers),
    "researcher": (4, _researchers),
    "planner": (2, _planners),
    "watcher": (2, _watchers),
    "evaluator": (4, _evaluators),
    "summarizer": (3, _summarizers),
    "tester": (2, _testers),
    "assistant": (1, _assistants),
}


def _timer(random: Random, *, every_s: float, jitter_s: float) -> Iterator[float]:
    """The ticks of a timer that began at some moment before."""
    tick = random.uniform(0.0, every_s)
    while tick < LIFE_S:
        yield min(LIFE_S, max(0.0, tick + random.uniform(-jitter_s, jitter_s)))
        tick += every_s


def _pauses(random: Random, *, mean_s: float) -> Iterator[float]:
    """Instants with exponential pauses between them."""
    at_s = random.expovariate(1.0 / mean_s)
    while at_s < LIFE_S:
        yield at_s
        at_s += random.expovariate(1.0 / mean_s)
