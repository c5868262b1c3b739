"""The one flight: `broker.flights` itself on the real scripts, every run remembered by what it was asked.

Redis's whole content is a number here, its place in the book of all that was ever seen.
"""

from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, TypeVar

from broker.answers import Admitted, Cancelled, Claimed, Committed, Doubts, NotHedged, Released, Run
from broker.flights import BACKOFF_S, LONGEST_BACKOFF_S, Admission, ClaimTerms, Flights, Renewed, Result
from tests.model.lua import PREFIX, LuaScripts, sources
from tests.model.standin import Frozen, Store
from topology.errors import ErrorType
from topology.messages import ErrorReport, Outcome, Waiter
from topology.names import Priority

T = TypeVar("T")

FLIGHT: Final = "f"
EMPTY: Final = 0
"""The number of a Redis that holds nothing."""
_LEASES: Final = (f"{PREFIX}lease:provider",)


class Who(NamedTuple):
    """A request as the house knows it: its id, and the instant of its deadline."""

    id: str
    deadline: float


@dataclass(frozen=True)
class Ask:
    """What a request wants.

    Attributes:
        max_age_s: How old an answer may be; 0, as for `refresh` and `off`, takes none.
        keep_s: For how long its answer is fresh for others.
        timeout_s: From its publish to its deadline.
        buried_s: Its jobs lie so deep in their queue that they come out only after this.
    """

    id: str
    max_age_s: float = 600.0
    keep_s: float = 600.0
    timeout_s: float = 4000.0
    priority: Priority = Priority.NORMAL
    durable: bool = False
    buried_s: float = 0.0


class Flight:
    """The scripts as functions: of what Redis held to what it holds then.

    Args:
        asks: All requests there are, by id.
        max_spends: As in the configuration.
        patches: Text of the scripts to be replaced, to see a hole open again.
        overrides: Arguments of the scripts to be replaced, for the same.
    """

    def __init__(
        self,
        asks: Iterable[Ask],
        *,
        max_spends: int = 2,
        patches: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self.asks = {ask.id: ask for ask in asks}
        self.max_spends = max_spends
        self._scripts = LuaScripts(sources(patches), overrides)
        self._flights = Flights(None, "")  # type: ignore[arg-type]
        self._flights._scripts = self._scripts  # type: ignore[assignment]
        self._contents: list[Frozen] = [()]
        self._numbers: dict[Frozen, int] = {(): EMPTY}
        self._known: dict[Hashable, Any] = {}

    def admit(self, redis: int, now: float, who: Who) -> tuple[Admitted, int]:
        ask = self.asks[who.id]
        admission = Admission(FLIGHT, self._waiter(who), ask.max_age_s, ask.keep_s)
        answers, after = self._run(("admit", redis, now, who), lambda: self._flights.admit([admission]))
        return answers[0], after

    def claim(self, redis: int, now: float, who: Who, worker: str, token: str) -> tuple[Claimed, int]:
        return self._run(
            ("claim", redis, now, who, worker, token),
            lambda: self._flights.claim(FLIGHT, self._waiter(who), self._terms(worker, token)),
        )

    def hedge(
        self, redis: int, now: float, hedges: str, worker: str, token: str
    ) -> tuple[Run | NotHedged, int]:
        terms = replace(self._terms(worker, token), call={"call": token, "provider": "another"})
        return self._run(
            ("hedge", redis, now, hedges, worker, token),
            lambda: self._flights.hedge(FLIGHT, hedges, terms),
        )

    def renew(
        self, redis: int, now: float, who: Who, worker: str, token: str, run: Run
    ) -> tuple[Renewed, int]:
        return self._run(
            ("renew", redis, now, who, worker, token, run.started),
            lambda: self._flights.renew(FLIGHT, self._waiter(who), self._terms(worker, token), run, _LEASES),
        )

    def commit(
        self,
        redis: int,
        now: float,
        who: Who,
        token: str,
        started: float,
        outcome: str,
        retry_at: float,
        events: tuple[str, ...] = (),
    ) -> tuple[Committed, int]:
        """`outcome` is a call's token, or the name of an error; see `Worker` for what is told of it."""
        ok = outcome == token
        result = Result(
            outcome_of(outcome, ok=ok),
            events=b"".join(f"{event};".encode() for event in events),
            keep_s=self.asks[who.id].keep_s if ok else 0.0,
            shared_s=5.0 if outcome == "fault" else 0.0,
            retry_at=retry_at,
            bill={"requests": 1.0} if ok else None,
        )
        return self._run(
            ("commit", redis, now, who, token, started, outcome, retry_at, events),
            lambda: self._flights.commit(FLIGHT, self._waiter(who), token, started, result),
        )

    def release(
        self, redis: int, now: float, token: str, *, parked_until: float, billed: bool, sent: bool
    ) -> tuple[Released, int]:
        return self._run(
            ("release", redis, now, token, parked_until, billed, sent),
            lambda: self._flights.release(FLIGHT, token, parked_until=parked_until, billed=billed, sent=sent),
        )

    def settle(self, redis: int, now: float, served: tuple[Who, ...], *, events: bytes = b"") -> int:
        return self._run(
            ("settle", redis, now, served, events),
            lambda: self._flights.settle(FLIGHT, [self._waiter(w) for w in served], events=events),
        )[1]

    def cancel(self, redis: int, now: float, who: Who) -> tuple[Cancelled, int]:
        key = self._waiter(who).key
        answers, after = self._run(("cancel", redis, now, who.id), lambda: self._flights.cancel([key]))
        return answers[0], after

    def purge(self, redis: int, now: float) -> int:
        """What Redis holds when what has come to its end is gone."""
        store = Store(self._contents[redis], now)
        store.purge()
        return self._number(store.frozen())

    def held(self, redis: int) -> "Held":
        """What Redis holds, in a form to look at."""
        held: Held | None = self._known.get(redis)
        if held is None:
            held = self._known[redis] = _held(self._contents[redis])
        return held

    def _run(self, asked: tuple[Any, ...], run: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, int]:
        """Runs what was never asked before; `asked` begins with the script, Redis's content and the time."""
        known: tuple[T, int] | None = self._known.get(asked)
        if known is None:
            self._scripts.frozen, self._scripts.now = self._contents[asked[1]], asked[2]
            answer = _finish(run())
            known = self._known[asked] = answer, self._number(self._scripts.frozen)
        return known

    def _number(self, frozen: Frozen) -> int:
        if (number := self._numbers.get(frozen)) is None:
            number = self._numbers[frozen] = len(self._contents)
            self._contents.append(frozen)
        return number

    def _waiter(self, who: Who) -> Waiter:
        ask = self.asks[who.id]
        return Waiter(
            agent="a", id=who.id, reply_to=f"reply.a.{who.id}", priority=ask.priority,
            deadline=who.deadline, queued_at=0.0, durable=ask.durable,
        )  # fmt: skip

    def _terms(self, worker: str, token: str) -> ClaimTerms:
        limit = {"kind": "lease", "key": _LEASES[0], "amount": 2, "name": "concurrency"}
        account = {"name": "main", "limits": [], "keys": [{"closed": []}], "closed": []}
        return ClaimTerms(
            worker=worker, token=token, max_spends=self.max_spends, call={"call": token},
            limits=(limit,), closed=(), accounts=(account,), used_key=f"{PREFIX}used",
        )  # fmt: skip


class Held(NamedTuple):
    """What the rules and the checks want to see of Redis.

    Attributes:
        instants: At which something in it ends or begins.
        lease_until: Until when the claim is believed.
        hedge_until: The same of a call beside it.
        permits: How many claims have theirs noted.
    """

    state: str
    worker: str
    fresh_until: float
    status: str
    waiters: frozenset[str]
    instants: frozenset[float]
    lease_until: float
    hedge_until: float
    permits: int


def _held(frozen: Frozen) -> Held:
    values = {key.removeprefix(PREFIX): value for key, value, _ in frozen}
    flight = dict(values.get(f"flight:{FLIGHT}", ()))
    waiters = dict(values.get(f"waiters:{FLIGHT}", ()))
    leases = values.get("lease:provider", ())
    names = ("lease_until", "hedge_until", "parked_until", "fresh_until")
    instants = {float(flight[name]) for name in names if name in flight}
    if "published_at" in flight:
        published_at = float(flight["published_at"])
        waited_s = published_at - float(flight.get("opened", published_at))
        instants.add(published_at + min(max(waited_s, BACKOFF_S), LONGEST_BACKOFF_S))
    instants |= {end for _, end in leases}
    instants |= {end for key, _, end in frozen if end is not None and "used" not in key}
    return Held(
        flight.get("state", ""), flight.get("worker", ""), float(flight.get("fresh_until", 0)),
        flight.get("status", ""), frozenset(key.removeprefix("a/") for key in waiters),
        frozenset(instants), float(flight.get("lease_until", 0)),
        float(flight.get("hedge_until", 0)),
        sum(key.startswith("permit:") for key in values),
    )  # fmt: skip


def outcome_of(text: str, *, ok: bool) -> Outcome:
    if ok:
        return Outcome(status="ok", body={"text": text}, provider="p", model="m")
    report = ErrorReport(type=ErrorType.PROVIDER_ERROR, message=text)
    return Outcome(status="error", error=report)


def text_of(outcome: Outcome) -> str:
    """The other way round: the call's token, or the error's name."""
    if outcome.body is not None:
        return str(outcome.body["text"])
    assert outcome.error is not None
    return outcome.error.message


def calls_of(doubts: Doubts) -> tuple[str, ...]:
    """The tokens of calls that somebody left behind."""
    return tuple(str(call["call"]) for call in doubts)


def events_of(events: bytes) -> tuple[str, ...]:
    """What `commit` was given, with what was there before."""
    return tuple(events.decode().split(";")[:-1])


def _finish(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("the scripts' answer was not there at once")
