"""What the scripts answer, as values; what follows from one is decided by whoever asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from topology.messages import Outcome, Waiter


@dataclass(frozen=True)
class Hit:
    """Nothing is left to ask a provider for: the answer is there, or the request was `called_off`.

    `outcome` is None when nothing is kept.
    """

    why: Literal["served", "known", "fresh", "called_off"]
    outcome: Outcome | None
    payer: str


@dataclass(frozen=True)
class Joined:
    """Another request's call will answer it."""


class Spot(NamedTuple):
    """Where a job waits in its line.

    Attributes:
        side: The queue beside the common one that it goes to; 0: the common one.
        turn: Whoever has the smallest goes first.
    """

    side: int
    turn: float


FIRST: Final = Spot(0, 0.0)
"""In the common queue, before all who have a turn."""


@dataclass(frozen=True)
class Lead:
    """It must publish a job, which has this spot; `leads` counts those of this flight."""

    leads: int
    spot: Spot = FIRST


@dataclass(frozen=True)
class Wait:
    """A limit lets it pass at an instant (epoch seconds); `booked` unless that is past its deadline."""

    until: float
    booked: bool
    limit: str


Doubts = tuple[Mapping[str, Any], ...]
"""Calls of which nobody knows the end, by what their claimants have left to report them."""

Admitted = Hit | Joined | Lead | Wait


@dataclass(frozen=True)
class Use:
    """What is used of one limit.

    Attributes:
        used: In the limit's own unit.
        most: What may be used at once; of calls in flight fewer than configured while their provider is
            overloaded.
        back_at: The instant at which some of it comes back, epoch seconds; None: nothing is used, or only the
            end of a call can tell.
    """

    used: float
    most: float
    back_at: float | None

    @property
    def left(self) -> float:
        """What may still be used now."""
        return max(0.0, self.most - self.used)


class Released(NamedTuple):
    """A claim was given up.

    Attributes:
        ours: Whether it was still ours.
        attempts: So far.
        broke: Whether the circuit of what failed opened by that.
    """

    ours: bool
    attempts: int
    broke: bool = False


@dataclass(frozen=True)
class Expired:
    """Nobody waits any more. `events` are still to be published; `doubts` as of `Spent`."""

    events: bytes = b""
    doubts: Doubts = ()


@dataclass(frozen=True)
class Done:
    """There is an outcome, and `waiters` have not got it.

    `events` is what is still to be published, one packed after the other.
    """

    outcome: Outcome
    payer: str
    events: bytes
    waiters: tuple[Waiter, ...]


@dataclass(frozen=True)
class Own:
    """This process runs it already, under this token."""

    token: str


@dataclass(frozen=True)
class Busy:
    """Another worker runs it; his lease ends at `until`."""

    until: float


@dataclass(frozen=True)
class Spent:
    """It was bought `spends` times without a known end; the claim is only for committing an error."""

    spends: int
    started: float
    doubts: Doubts


@dataclass(frozen=True)
class Late:
    """`limit` refuses a permit until then, and nobody waits for so long; the claim is for committing that."""

    until: float
    limit: str
    started: float
    doubts: Doubts


@dataclass(frozen=True)
class Later:
    """`limit` refuses a permit until then (epoch seconds); `waiters` are those who want to know."""

    until: float
    limit: str
    waiters: tuple[Waiter, ...] = ()


@dataclass(frozen=True)
class Run:
    """Call the provider now, once the `doubts` of earlier claims are in the books."""

    account: str
    key_index: int
    started: float
    attempt: int
    latest_deadline: float
    doubts: Doubts
    tried: tuple[str, ...] = ()
    """Keys of what was closed and is tried by this call."""
    broken: tuple[str, ...] = ()
    """Those of them that were closed because calls failed there."""


@dataclass(frozen=True)
class Over:
    """The agent's own `limit`, a budget, is spent until then (epoch seconds); it holds up nobody else."""

    until: float
    limit: str


@dataclass(frozen=True)
class Spared:
    """The provider has failed this flight, as all in `failed` have, and its retry budget is used up.

    The job is to be parked until then (epoch seconds), unless another candidate may be asked; if it is told
    so `again`, that was tried in this pause, and has led back here.
    """

    until: float
    failed: frozenset[str]
    again: bool


@dataclass(frozen=True)
class NotHedged:
    """No second call is made; `why` as `hedge.lua` says it."""

    why: str


Claimed = Expired | Done | Own | Busy | Spent | Late | Over | Spared | Later | Run


@dataclass(frozen=True)
class Idle:
    """Nobody runs it, it was bought `spends` times, and it has time to be parked for `park_s` seconds."""

    spends: int
    park_s: float


Attended = Expired | Done | Own | Busy | Spent | Idle
"""What a worker that never calls is told."""


@dataclass(frozen=True)
class Stored:
    """The outcome stands; these waiters have not got it.

    A `duplicate` came second; `broke`: the circuit of what failed opened by this end.
    """

    outcome: Outcome
    payer: str
    events: bytes
    waiters: tuple[Waiter, ...]
    duplicate: bool = False
    broke: bool = False


@dataclass(frozen=True)
class Stale:
    """The claim has passed to another worker; his outcome will count."""


@dataclass(frozen=True)
class Living:
    """Somebody has time for another try."""


Committed = Stored | Stale | Living


@dataclass(frozen=True)
class CalledOff:
    """The waiter is settled. `worker` calls a provider for nobody else; None: none does."""

    fingerprint: str
    waiter: Waiter
    worker: str | None


@dataclass(frozen=True)
class Remembered:
    """Nobody waits under this id; should the request come soon, it is called off then."""


Cancelled = CalledOff | Remembered
