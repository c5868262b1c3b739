"""What a run has seen: every request with its ends, every kill, every fault. Nothing is judged here."""

from dataclasses import dataclass, field

from tests.chaos.load import Ask


@dataclass(frozen=True)
class Seen:
    """What one request came to, as its caller saw it.

    Attributes:
        confirmed: RabbitMQ took it.
        told: How often the caller was given an end.
        error: The type and the text, `provider_error: ...`; None for a result.
        right: The result is the answer to this prompt.
        ended_at: Epoch seconds.
    """

    id: str
    confirmed: bool
    told: int
    error: str | None
    right: bool
    ended_at: float


@dataclass
class Asked:
    """A request as it was asked, with every end that came back."""

    ask: Ask
    flight: str
    asked_at: float
    ends: list[Seen] = field(default_factory=list)


@dataclass(frozen=True)
class Kill:
    """A SIGKILL that was carried out.

    Attributes:
        point: None: from outside.
        at: Epoch seconds.
    """

    role: str
    point: str | None
    at: float


@dataclass(frozen=True)
class Call:
    """A call that reached the provider, from its ledger."""

    id: str | None
    request_id: str | None
    outcome: str


@dataclass(frozen=True)
class Record:
    """What the recorder keeps of a call.

    Attributes:
        state: `running`, `settled` or `doubtful`.
        failed: It is settled, and its end was an error.
        doubted: Somebody took it for doubtful, whatever was learnt later.
        worker: Who made it.
    """

    call: str
    flight: str
    request_id: str
    state: str
    failed: bool = False
    doubted: bool = False
    worker: str = ""
    provider: str = ""


@dataclass
class Books:
    """All of a run.

    Attributes:
        ended: How many requests have an end.
        errors: How many of them ended in an error.
        flushes: When Redis was emptied, epoch seconds.
        outages: From when to when RabbitMQ was away, or cut off, epoch seconds.
        survivors: The workers that lived at the end.
        frozen_pids: Processes that were frozen past their lease.
        frozen: Those workers, whether they survived or not.
        left: What is not back to empty at rest, a line for each.
        wrongs: What else went wrong on the way, such as a worker that ended by itself.
        dropped: Replies that reached a client a second time, which it dropped.
    """

    asked: dict[str, Asked] = field(default_factory=dict)
    ended: int = 0
    errors: int = 0
    kills: list[Kill] = field(default_factory=list)
    flushes: list[float] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    survivors: set[str] = field(default_factory=set)
    frozen_pids: set[int] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    dropped: int = 0
