"""What the scripts are asked with, beside the flight and the waiter."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.scripting import pack
from topology.messages import Outcome, Waiter


@dataclass(frozen=True)
class Admission:
    """What `admit` needs to know of a request.

    Attributes:
        max_age_s: How old an answer may be, in seconds; 0 takes none.
        keep_s: For how long its own answer is fresh for others, in seconds.
        limits: Of the agent, then of the fleet, as `admit.lua` describes them.
        queue: Where its job goes; the agents are counted who have something waiting there. '': in no line.
        earliest: The instant at which a provider's limit lets it start, and that limit; None: at any time.
        budgets: Those that its call would spend, as `admit.lua` describes them.
    """

    fingerprint: str
    waiter: Waiter
    max_age_s: float
    keep_s: float
    limits: tuple[Mapping[str, Any], ...] = ()
    queue: str = ""
    earliest: tuple[float, str] | None = None
    budgets: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a job stands among those of its line that workers have in hand, as `rounds.lua` describes it.

    Attributes:
        queue: The common one of its line.
        turn: Its own; 0: it has none.
        ahead: By no more rounds may it be ahead of another agent's job that waits at another worker.
        next: Turn and agent of what can start at this worker next.
    """

    queue: str
    turn: float
    agent: str
    ahead: int
    next: tuple[float, str] | None = None


@dataclass(frozen=True)
class ClaimTerms:
    """What `claim` needs beside the waiter; built by `broker.permits`.

    Attributes:
        token: Random, new for each claim.
        call: What a later claimant needs to report this call as doubtful.
        closed: Keys whose value is an instant until which everything behind them is closed.
        accounts: The candidates, each with the index-ordered keys, as `claim.lua` describes them.
        used_key: Where the calls of each account are counted for a day.
        paused: The hash of what operators have paused, and the field that would stop this call.
        rotation: How one of the accounts that grant is chosen.
        notes_key: Where other rotations than `least_used` remember how accounts did.
        rank: The request's class, 0 the most urgent.
        shares: The classes' shares of a limit for which several wait, by rank.
        seat: Where requests of this class wait together: a lane at one worker.
        more: Whether others wait there beside this one.
        place: In its line; None: agents need not go round across workers.
        lines: The orders of all that waits for the same lane, whichever its class and worker.
        budgets: Of all agents together.
        own_budgets: Of the agent that asks.
        retries: The provider's retry budget, as `claim.lua` describes it; None: it has none.
    """

    worker: str
    token: str
    max_spends: int
    call: Mapping[str, Any]
    limits: tuple[Mapping[str, Any], ...]
    closed: tuple[str, ...]
    accounts: tuple[Mapping[str, Any], ...]
    used_key: str
    paused: tuple[str, str] | None = None
    rotation: str = "least_used"
    notes_key: str = ""
    rank: int = 0
    shares: tuple[float, ...] = (1.0,)
    seat: str = ""
    more: bool = False
    place: Place | None = None
    lines: tuple[str, ...] = ()
    budgets: tuple[Mapping[str, Any], ...] = ()
    own_budgets: tuple[Mapping[str, Any], ...] = ()
    retries: Mapping[str, Any] | None = None

    def arguments(self) -> dict[str, Any]:
        """As `claim.lua` takes them, and `hedge.lua`."""
        return {
            "token": self.token,
            "call": pack(self.call),
            "limits": self.limits,
            "closed": self.closed,
            "paused": self.paused or (),
            "accounts": self.accounts,
            "used_key": self.used_key,
            "rotation": self.rotation,
            "notes_key": self.notes_key,
            "rank": self.rank,
            "shares": self.shares,
            "budgets": self.budgets,
            "own_budgets": self.own_budgets,
        }

    def limits_of(self, account: str) -> tuple[Mapping[str, Any], ...]:
        """All limits of which a claim that chose this account holds a permit."""
        chosen = next(a for a in self.accounts if a["name"] == account)
        return (*self.limits, *chosen["limits"], *self.budgets, *self.own_budgets)

    def has_rates(self, account: str) -> bool:
        """Whether any limit but concurrency is known for calls with this account."""
        chosen = next(a for a in self.accounts if a["name"] == account)
        return any(limit["kind"] != "lease" for limit in (*self.limits, *chosen["limits"]))

    def is_stale(self, account: str, age_s: float) -> bool:
        """Whether a permit of this age may have become too old to be used.

        Half of the slack is for what comes after this is asked: the way to the provider.
        """
        slacks = (limit["slack_s"] for limit in self.limits_of(account) if "slack_s" in limit)
        return age_s > min(slacks, default=math.inf) / 2


@dataclass(frozen=True)
class Result:
    """What `commit` is to store.

    Attributes:
        events: msgpack, to be published once this is stored.
        keep_s: For how long an answer is fresh, at least, in seconds.
        shared_s: For how long an error is shared with newcomers, in seconds; 0: not at all.
        retry_at: An error gives way while somebody waits beyond this instant; 0: never.
        bill: Units really used, of `requests`, `tokens`, `reserved_tokens`, `usd`; a missing one stays as
            reserved.
        left: What the provider said is left of limits, by their keys.
        parts: The keys that would close parts of the provider; a result shows that they are well.
        failed: The key that closes the part that failed, where this is an error of the provider's.
    """

    outcome: Outcome
    events: bytes = b""
    keep_s: float = 0.0
    shared_s: float = 0.0
    retry_at: float = 0.0
    bill: Mapping[str, float] | None = None
    left: Mapping[str, float] | None = None
    parts: tuple[str, ...] = ()
    failed: str | None = None
