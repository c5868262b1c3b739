"""What there is: messages, fronts, workers, clients, and what has happened. All of it can be hashed."""

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tests.model.flight import Ask, Flight, Who

START: Final = 1_000_000.0
"""Epoch seconds on the one clock at which everything begins."""
INSTANT_S: Final = 0.001
"""What follows a claim comes after it: which of two calls began first is never in doubt."""
PROBE: Final = "probe"
"""The request that comes when all is at rest: it finds out whether the fingerprint still works."""

Action = tuple[Any, ...]


class Message(NamedTuple):
    """In `requests`: `what` is ask or cancel."""

    what: str
    who: Who


class FrontTask(NamedTuple):
    """A message in a front's hands. `todo` is what it still does with it, one step each; see `fronts`."""

    message: Message
    held: bool
    todo: tuple[Action, ...]


class Task(NamedTuple):
    """A job in a worker's hands. `running` is the token of the call that it began; see `workers`.

    `hedges`: it is a copy, for a call beside another one; see `hedges`.
    """

    job: Who
    held: bool
    todo: tuple[Action, ...]
    running: str = ""
    hedges: bool = False


class Worker(NamedTuple):
    """A backend process; a killed one comes back under another name. `frozen`: since when, 0 for not."""

    name: str
    frozen: float = 0.0
    tasks: tuple[Task, ...] = ()


class Client(NamedTuple):
    """One request of an SDK: unsent, pending, answered, late (its own timer ended it) or gone.

    `old` are results that it must not be given: those stored before it asked, and of all calls that began
    before it opened the flight anew.
    """

    id: str
    phase: str = "unsent"
    deadline: float = 0.0
    send_again_at: float = 0.0
    silence_s: float = 0.0
    old: tuple[str, ...] = ()

    @property
    def who(self) -> Who:
        return Who(self.id, self.deadline)


class Budget(NamedTuple):
    """How much may still go wrong.

    `kills` and `freezes` are of workers, `front_kills` of fronts, `cuts` of either's connection. `lost` are
    answers of Redis, `resends` of clients that reconnect. `failures` of a provider are known and not billed,
    `timeouts` may be billed, `faults` are the request's. `delays`: everybody is slow until some instant.
    `hedges` are no faults: so many calls may be offered to a second provider.
    """

    kills: int = 0
    front_kills: int = 0
    freezes: int = 0
    cuts: int = 0
    flushes: int = 0
    lost: int = 0
    resends: int = 0
    cancels: int = 0
    failures: int = 0
    timeouts: int = 0
    faults: int = 0
    delays: int = 0
    hedges: int = 0


class Ledger(NamedTuple):
    """What has happened.

    Attributes:
        claims: Tokens given out.
        bought: Calls begun, but for those whose known end is a failure.
        doubts: Calls that a later claim found doubtful, or their own worker.
        entered: Those of them that are in the books.
        openers: Requests that opened the flight with good reason.
        ended: Calls that ended in a result.
        stored: Those whose result was stored.
        untold: Results whose event is still to be published.
        fresh_until: Until when a result must be found by those who take one.
    """

    claims: int = 0
    bought: int = 0
    doubts: tuple[str, ...] = ()
    entered: tuple[str, ...] = ()
    openers: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    fresh_until: float = 0.0


class State(NamedTuple):
    """Everything at one instant. Bags of equals are kept in order, so that equal worlds are equal values.

    `copies` are jobs on their way to a second provider, with the token of the call that takes long.
    """

    now: float
    redis: int
    requests: tuple[Message, ...]
    jobs: tuple[Who, ...]
    parked: tuple[tuple[float, Who], ...]
    fronts: tuple[FrontTask, ...]
    workers: tuple[Worker, ...]
    clients: tuple[Client, ...]
    ledger: Ledger
    left: Budget
    copies: tuple[tuple[Who, str], ...] = ()


@dataclass(frozen=True)
class Rules:
    """The workers' rules that a hole opens again; as they stand, they are those of `workers/`.

    Attributes:
        front_acks_first: A front acknowledges before its publish is confirmed.
        worker_acks_first: A worker acknowledges before the result is stored.
        settles_first: Waiters are settled before their replies are out.
        name_survives: A worker that was killed comes back under its old name.
        cut_at_deadline: A running call is cut at the deadline of the request that led.
        own_is_dealt_with: Another request's job that waited for its own worker's call is done with when
            that has ended.
        left_is_dealt_with: A copy of the job that waited for its own worker's call is done with, although
            that could not move the one that it had, for its connection was lost.
        stale_is_dealt_with: A job whose error came too late is done with.
        answered_is_dealt_with: A job is done with whose call was cut since another had brought the answer.
    """

    front_acks_first: bool = False
    worker_acks_first: bool = False
    settles_first: bool = False
    name_survives: bool = False
    cut_at_deadline: bool = False
    own_is_dealt_with: bool = False
    left_is_dealt_with: bool = False
    stale_is_dealt_with: bool = False
    answered_is_dealt_with: bool = False


@dataclass(frozen=True)
class Scenario:
    """One search.

    Attributes:
        must: Requests that have all the time there is: nothing may keep them from an answer.
        fronts: How many messages fronts work on at once.
    """

    name: str
    asks: tuple[Ask, ...]
    budget: Budget = field(default_factory=Budget)
    must: tuple[str, ...] = ()
    max_spends: int = 2
    workers: int = 2
    fronts: int = 2


@dataclass(frozen=True)
class Model:
    """A scenario with the scripts and the rules it is played by."""

    scenario: Scenario
    flight: Flight
    rules: Rules = field(default_factory=Rules)


class Violation(Exception):
    """A promise is broken."""


def beginning(model: Model) -> State:
    """Nobody has asked yet."""
    ids = [*model.scenario.asks, Ask(PROBE)]
    return State(
        now=START, redis=0, requests=(), jobs=(), parked=(), fronts=(),
        workers=tuple(Worker(f"w{n + 1}") for n in range(model.scenario.workers)),
        clients=tuple(Client(ask.id) for ask in ids),
        ledger=Ledger(), left=model.scenario.budget,
    )  # fmt: skip


def spend(state: State, what: str) -> State:
    """One fault less to come."""
    return state._replace(left=state.left._replace(**{what: getattr(state.left, what) - 1}))


def note(state: State, **changes: Any) -> State:
    return state._replace(ledger=state.ledger._replace(**changes))


def added(bag: tuple[Any, ...], *things: Any) -> tuple[Any, ...]:
    return tuple(sorted((*bag, *things)))


def without(bag: tuple[Any, ...], thing: Any) -> tuple[Any, ...]:
    at = bag.index(thing)
    return bag[:at] + bag[at + 1 :]


def publish_job(model: Model, state: State, who: Who) -> State:
    """Into the pool's queue; where it is deep, that is as good as into a retry tier."""
    if buried_s := model.flight.asks[who.id].buried_s:
        return park(state, who, buried_s)
    return state._replace(jobs=added(state.jobs, who))


def park(state: State, who: Who, seconds: float) -> State:
    """Into a retry tier."""
    return state._replace(parked=added(state.parked, (state.now + seconds, who)))


def with_worker(state: State, index: int, worker: Worker) -> State:
    return state._replace(workers=(*state.workers[:index], worker, *state.workers[index + 1 :]))


def client_of(state: State, id_: str) -> tuple[int, Client]:
    return next((i, client) for i, client in enumerate(state.clients) if client.id == id_)


def with_client(state: State, index: int, client: Client) -> State:
    return state._replace(clients=(*state.clients[:index], client, *state.clients[index + 1 :]))
