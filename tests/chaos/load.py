"""The load: what the agents ask. The same seed gives the same requests in the same order, without end."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final

from producer_sdk.asking import CacheName, PriorityName, ask_chat
from topology.fingerprint import fingerprint

DRIVERS: Final = ("asyncio", "pika", "asyncio")
"""The client processes."""

AGENT_REQUESTS_PER_MINUTE: Final = 60
"""What the fleet allows each agent; the ordinary ones stay below."""

FLAKY: Final = "sim-far"
"""A model whose cheapest provider cannot be reached: its jobs are handed on to the next candidate."""
CUTTING: Final = "cutting/sim-cut"
"""A model whose provider hangs up in the middle of each answer: its flights reach `max_spends`."""
MORTAL: Final = "mortal/sim-mortal"
"""A model whose jobs are made to die, as if they had been handed out too often."""
SOUND: Final = "simulated/sim-small"

_AGENTS: Final = 8
"""In each process."""
_LATELY: Final = 12
_REMEMBERED: Final = 2000
_FAMILIES: Final = {"use": 60, "join": 15, "off": 15, "refresh": 10}
_PRIORITIES: Final[dict[PriorityName, int]] = {"high": 3, "normal": 5, "batch": 2}
_DURABLE: Final = 0.04
_FLAKY: Final = 0.05


@dataclass(frozen=True)
class _Prompt:
    """What is asked again and again; `family` decides the cache modes."""

    family: str
    text: str
    model: str


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        process: Which client process sends it.
        durable: By `submit`, and fetched by `result`.
    """

    id: str
    process: int
    agent: str
    prompt: str
    cache: CacheName
    priority: PriorityName
    timeout_s: float
    durable: bool = False
    model: str = SOUND

    @property
    def flight(self) -> str:
        """The fingerprint of the flight that it belongs to."""
        asked = ask_chat(
            self.agent, None, self.prompt, model=self.model, cache=self.cache, request_id=self.id
        )
        return fingerprint(asked.request)


def burst(strike: int, timeout_s: float) -> list[Ask]:
    """More from one agent at once than its rate allows: the last ones wait in retry tiers."""
    agent = f"hasty-{strike}"
    return [
        Ask(f"{agent}.{n}", 0, agent, f"Prompt of {agent} {n}", "use", "normal", timeout_s)
        for n in range(AGENT_REQUESTS_PER_MINUTE + 5)
    ]


def single(number: int, model: str, timeout_s: float) -> Ask:
    """One request to a model that the ordinary load does not ask."""
    id_ = f"single-{number}"
    return Ask(id_, 0, "single", f"Prompt of {id_}", "use", "normal", timeout_s, model=model)


def make_load(seed: int, timeout_s: float, *, durable: bool = True) -> Iterator[Ask]:
    """New prompts, the same again at the same time, and the same again later, in all cache modes."""
    random = Random(seed)
    lately: deque[_Prompt] = deque(maxlen=_LATELY)
    earlier: deque[_Prompt] = deque(maxlen=_REMEMBERED)
    for number in count(1):
        chosen = _choose(random, number, lately, earlier)
        lately.append(chosen)
        earlier.append(chosen)
        process = random.randrange(len(DRIVERS))
        yield Ask(
            id=f"c{seed}.{number}",
            process=process,
            agent=f"agent-{process}-{random.randrange(_AGENTS)}",
            prompt=chosen.text,
            cache=_mode(random, chosen.family),
            priority=random.choices(list(_PRIORITIES), list(_PRIORITIES.values()))[0],
            timeout_s=timeout_s,
            durable=durable and random.random() < _DURABLE,
            model=chosen.model,
        )


def _choose(random: Random, number: int, lately: deque[_Prompt], earlier: deque[_Prompt]) -> _Prompt:
    """Half of them new, three in ten at the same time as another, two in ten later."""
    drawn = random.random()
    if drawn < 0.3 and lately:
        return random.choice(lately)
    if drawn < 0.5 and earlier:
        return random.choice(earlier)
    family = random.choices(list(_FAMILIES), list(_FAMILIES.values()))[0]
    return _Prompt(family, f"Prompt {number}", FLAKY if random.random() < _FLAKY else SOUND)


def _mode(random: Random, family: str) -> CacheName:
    match family:
        case "use" | "join" | "off":
            return family
        case _:
            return random.choice(("refresh", "use"))
