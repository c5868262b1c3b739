"""What a workload is: who asks what, how, and when."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Priority = Literal["high", "normal", "batch"]
Cache = Literal["use", "refresh", "join", "off"]
Content = tuple[str, str, str | None, tuple[tuple[str, float], ...]]


@dataclass(frozen=True)
class Agent:
    """One agent of the fleet.

    Attributes:
        name: As in queues and routing keys.
        kind: What it does, such as `reviewer`; sent as its `agent_type`.
    """

    name: str
    kind: str


@dataclass(frozen=True)
class Ask:
    """One request that an agent will make.

    Attributes:
        at_s: When, in seconds from the start of the workload.
        params: The rest of the OpenAI body, such as `(("max_tokens", 40),)`.
    """

    at_s: float
    agent: Agent
    prompt: str
    model: str = "auto"
    task: str | None = None
    priority: Priority = "normal"
    cache: Cache = "use"
    params: tuple[tuple[str, float], ...] = ()

    @property
    def content(self) -> Content:
        """All that changes the answer: requests with equal content have the same fingerprint."""
        return (self.model, self.prompt, self.task, self.params)

    @property
    def wants_its_own(self) -> bool:
        """Whether it may make a call although an answer is stored: it asked for one, or shares only calls."""
        return self.cache in {"refresh", "join"}


@dataclass(frozen=True)
class Workload:
    """Requests in the order of their instants, and what they are.

    Attributes:
        title: One line for people: what it is, and what it is not.
        notes: What else a reader of the figures has to know.
    """

    title: str
    agents: tuple[Agent, ...]
    asks: tuple[Ask, ...]
    notes: tuple[str, ...] = field(default=())


def in_order(asks: Sequence[Ask]) -> tuple[Ask, ...]:
    """By instant; those of one instant as they came."""
    return tuple(sorted(asks, key=lambda ask: ask.at_s))
