"""The account: what a run must come to, figure by figure; the rules are those of `docs/protocol.md`."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tests.chaos.books import Asked, Books, Record

_CLOCKS_S: Final = 2.0
"""How much earlier than its deadline, by the clock of another process, a request may have failed of it."""

_COPIES_S: Final = 30.0
"""For how long copies of what was answered may wait, behind what was not or in a retry tier."""
_ACKNOWLEDGED_S: Final = 1.0
"""What was answered is acknowledged soon after: a worker that dies in between leaves a copy."""

_SPENDING: Final = "backend"


@dataclass(frozen=True)
class Terms:
    """What the run was to be.

    Attributes:
        requests: At least so many.
        quotas: Kills for each named point, at least.
        kills: In all.
        max_spends: As in the fleet's configuration.
        cutting: A provider whose answers all break off: its calls are doubtful by themselves.
        provider_fails: The provider was told to fail now and then; its known failures may be called again.
        least_served: The share of requests that must end in a result.
    """

    requests: int
    quotas: Mapping[str, int]
    kills: int
    max_spends: int
    cutting: str = "cutting"
    provider_fails: bool = False
    least_served: float = 0.99


@dataclass(frozen=True)
class Figure:
    """One line of the account; `wrongs` is empty when it is right."""

    name: str
    found: str
    must: str
    wrongs: tuple[str, ...] = ()


def account(books: Books, terms: Terms) -> list[Figure]:
    """Judges a run."""
    return [
        _requests(books, terms),
        _kills(books, terms),
        _points(books, terms),
        _served(books, terms),
        _answered_once(books),
        _right_texts(books),
        _errors(books, terms),
        _recorded(books),
        _settled(books),
        _doubtful(books, terms),
        _bought(books, terms),
        _listed("left at rest", books.left),
        _listed("else", books.wrongs),
    ]


def _requests(books: Books, terms: Terms) -> Figure:
    confirmed = sum(any(seen.confirmed for seen in asked.ends) for asked in books.asked.values())
    found = len(books.asked)
    wrongs = () if found >= terms.requests else (f"only {found} requests were asked",)
    return Figure("requests", f"{found} ({confirmed} confirmed)", f">= {terms.requests}", wrongs)


def _kills(books: Books, terms: Terms) -> Figure:
    found = len(books.kills)
    wrongs = () if found >= terms.kills else (f"only {found} workers were killed",)
    return Figure("kills", str(found), f">= {terms.kills}", wrongs)


def _points(books: Books, terms: Terms) -> Figure:
    hits = Counter(kill.point for kill in books.kills if kill.point)
    wrongs = tuple(
        f"{point} had {hits[point]} of its {quota} kills"
        for point, quota in terms.quotas.items()
        if hits[point] < quota
    )
    met = sum(hits[point] >= quota for point, quota in terms.quotas.items())
    return Figure("points with their kills", str(met), f"= {len(terms.quotas)}", wrongs)


def _served(books: Books, terms: Terms) -> Figure:
    served = sum(any(seen.error is None for seen in asked.ends) for asked in books.asked.values())
    share = served / max(1, len(books.asked))
    wrongs = () if share >= terms.least_served else (f"only {share:.2%} ended in a result",)
    return Figure("ended in a result", f"{share:.3%}", f">= {terms.least_served:.0%}", wrongs)


def _answered_once(books: Books) -> Figure:
    counts = {id_: sum(seen.told for seen in asked.ends) for id_, asked in books.asked.items()}
    wrongs = tuple(f"request {id_} was answered {n} times" for id_, n in counts.items() if n != 1)
    return Figure("answered exactly once", str(sum(n == 1 for n in counts.values())), "all", wrongs)


def _right_texts(books: Books) -> Figure:
    results = [seen for asked in books.asked.values() for seen in asked.ends if seen.error is None]
    wrongs = tuple(
        f"request {seen.id} got the answer to something else" for seen in results if not seen.right
    )
    return Figure("the right answer", str(len(results) - len(wrongs)), f"= {len(results)}", wrongs)


def _errors(books: Books, terms: Terms) -> Figure:
    """Each error is the end of a flight that was bought as often as it may be, or of the request's time."""
    doubts = Counter(record.flight for record in books.records if record.doubted)
    kinds: Counter[str] = Counter()
    wrongs = []
    for asked in books.asked.values():
        for seen in asked.ends:
            if seen.error is None:
                continue
            kind = _kind(asked, seen.error, seen.ended_at, doubts[asked.flight] >= terms.max_spends)
            kinds[kind] += 1
            if kind == "unexplained":
                wrongs.append(f"request {seen.id} of flight {asked.flight}: {seen.error}")
    found = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "none"
    return Figure("errors", found, "max_spends or deadline", tuple(wrongs))


def _kind(asked: Asked, error: str, ended_at: float, spent: bool) -> str:
    if "max_spends" in error and spent:
        return "max_spends"
    in_time = ended_at < asked.asked_at + asked.ask.timeout_s - _CLOCKS_S
    if error.startswith("deadline_exceeded") and not in_time:
        return "deadline"
    return "unexplained"


def _recorded(books: Books) -> Figure:
    """Call by call, by its id and its request's."""
    records: defaultdict[str, list[Record]] = defaultdict(list)
    for record in books.records:
        records[record.call].append(record)
    entries = Counter(call.id for call in books.calls)
    wrongs = []
    for call in books.calls:
        found = [r for r in records[call.id or ""] if r.request_id == call.request_id]
        if len(found) != 1 or len(records[call.id or ""]) != 1:
            wrongs.append(f"call {call.id} of request {call.request_id} has {len(found)} records")
        elif entries[call.id] != 1:
            wrongs.append(
                f"call {call.id} of request {call.request_id} is {entries[call.id]} times in the ledger"
            )
    right = len(books.calls) - len(wrongs)
    return Figure(
        "calls with exactly one record", str(right), f"= {len(books.calls)} in the ledger", tuple(wrongs)
    )


def _settled(books: Books) -> Figure:
    open_ = [r for r in books.records if r.state not in {"settled", "doubtful"}]
    wrongs = tuple(f"call {r.call} of request {r.request_id} is recorded as {r.state}" for r in open_)
    return Figure("records settled or doubtful", str(len(books.records) - len(open_)), "all", wrongs)


def _doubtful(books: Books, terms: Terms) -> Figure:
    """A doubtful spend needs a spender that died at it, and each makes one call at a time.

    Some of these calls never reached the provider: they are in the books before their first byte.
    """
    doubtful = [r for r in books.records if r.state == "doubtful" and r.provider != terms.cutting]
    spenders = {record.worker for record in doubtful}
    reached = {call.id for call in books.calls}
    spent = sum(record.call in reached for record in doubtful)
    kills = sum(kill.role == _SPENDING for kill in books.kills)
    wrongs = [
        f"call {r.call} is doubtful, and its worker {r.worker} lives"
        for r in doubtful
        if r.worker in books.survivors - books.frozen
    ]
    if len(spenders) > kills + len(books.frozen):
        wrongs.append(f"{len(spenders)} workers left doubtful spends, {kills} were killed")
    if spent > kills + len(books.frozen):
        wrongs.append(
            f"{spent} doubtful calls reached the provider, {kills} workers were killed that call it"
        )
    found = f"{spent} of {len(doubtful)} reached the provider; by {len(spenders)} workers"
    return Figure("doubtful spends", found, f"of workers killed, <= {kills}", tuple(wrongs))


def _bought(books: Books, terms: Terms) -> Figure:
    flight_of = {record.call: record.flight for record in books.records}
    calls = Counter(flight_of.get(call.id or "", "unknown") for call in books.calls)
    allowed = _allowed(books, terms)
    wrongs = tuple(
        f"flight {flight} was bought {n} times, {allowed[flight]} allowed; {_history(books, flight)}"
        for flight, n in calls.items()
        if n > allowed[flight]
    )
    most = max(calls.values(), default=0)
    must = "1 + doubtful each" + (" + flushes" if books.flushes else "")
    return Figure("calls for a flight", f"{len(calls)} flights, at most {most} calls", must, wrongs)


def _history(books: Books, flight: str) -> str:
    """When it was asked for and answered, and when Redis was emptied."""
    members = [asked for asked in books.asked.values() if asked.flight == flight]
    asked = ", ".join(
        f"{a.ask.id} {a.asked_at:.3f} to {' and '.join(f'{seen.ended_at:.3f}' for seen in a.ends)}"
        for a in members
    )
    return f"asked {asked}; flushed {', '.join(f'{at:.3f}' for at in books.flushes) or 'never'}"


def _allowed(books: Books, terms: Terms) -> Counter[str]:
    """How often each flight may be bought."""
    allowed: Counter[str] = Counter()
    flights: defaultdict[str, list[Asked]] = defaultdict(list)
    for asked in books.asked.values():
        flights[asked.flight].append(asked)
    for flight, members in flights.items():
        refreshing = sum(asked.ask.cache == "refresh" for asked in members)
        allowed[flight] = refreshing + (len(members) > refreshing) + sum(_lost_by_flushes(books, members))
    for record in books.records:
        allowed[record.flight] += record.doubted or (terms.provider_fails and record.failed)
    return allowed


def _lost_by_flushes(books: Books, members: list[Asked]) -> Iterator[bool]:
    """Whether a flush cost this flight its call, or its answer that somebody asked for again.

    What a worker had in hand when it was killed, or when RabbitMQ was away, comes again, and after an outage
    everybody asks again. Copies that still wait when Redis forgets that they were answered are taken for new.
    """
    copying = [*books.outages, *((kill.at, kill.at) for kill in books.kills)]
    for flush in books.flushes:
        begun = any(asked.asked_at <= flush for asked in members)
        goes_on = any(seen.ended_at >= flush for asked in members for seen in asked.ends)
        copied = any(
            asked.asked_at <= until
            and seen.ended_at + _ACKNOWLEDGED_S >= since
            and until <= flush <= max(until, seen.ended_at) + _COPIES_S
            for asked in members
            for seen in asked.ends
            for since, until in copying
        )
        yield begun and (goes_on or copied)


def _listed(name: str, wrongs: list[str]) -> Figure:
    return Figure(name, f"{len(wrongs)}" if wrongs else "nothing", "nothing", tuple(wrongs))
