"""The backends' rules, step by step: `workers/execution.py`, `claimed_calls.py`, `answering.py`,
`failing.py`, `telling.py` and `moving.py`."""

from collections.abc import Iterator
from typing import assert_never

from broker.answers import (
    Busy,
    Claimed,
    Done,
    Doubts,
    Expired,
    Late,
    Later,
    Living,
    Over,
    Own,
    Run,
    Spared,
    Spent,
    Stale,
    Stored,
)
from broker.flights import RENEW_EVERY_S
from tests.model import clients
from tests.model.flight import Who, calls_of, events_of, text_of
from tests.model.promises import check_bought, check_stored
from tests.model.world import (
    INSTANT_S,
    Action,
    Model,
    State,
    Task,
    Worker,
    added,
    note,
    park,
    spend,
    with_worker,
    without,
)
from topology.names import RetryTier, largest_tier_within
from workers.failing import _BACKOFF

Steps = Iterator[tuple[str, State]]

ROOM = 2
"""Jobs that one worker has in hand at once: one that runs, and a copy of it."""


def steps(model: Model, state: State) -> Steps:
    """What workers may do now."""
    fresh_one_takes = False
    for index, worker in enumerate(state.workers):
        if worker.frozen:
            continue
        if len(worker.tasks) < ROOM and not (fresh_one_takes and _is_fresh(model, state, worker)):
            fresh_one_takes |= _is_fresh(model, state, worker)
            for job in dict.fromkeys(state.jobs):
                taken = state._replace(jobs=without(state.jobs, job))
                yield from _claim(model, taken, index, Task(job, True, ()))
        for task in dict.fromkeys(worker.tasks):
            rest = with_worker(state, index, worker._replace(tasks=without(worker.tasks, task)))
            yield from _go_on(model, rest, index, task)


def hasten(model: Model, state: State) -> tuple[str, State] | None:
    """A step that nothing can come between any more, and that changes nothing for others; if there is one."""
    if state.left.kills or state.left.freezes or state.left.cuts or state.left.delays:
        return None
    for index, worker in enumerate(state.workers):
        for task in worker.tasks:
            if task.todo[0][0] in {"ack", "ack first", "events", "reply", "park"} and not worker.frozen:
                rest = with_worker(state, index, worker._replace(tasks=without(worker.tasks, task)))
                return next(_go_on(model, rest, index, task))
    return None


def _is_fresh(model: Model, state: State, worker: Worker) -> bool:
    """Such workers are as good as each other."""
    return not worker.tasks and model.flight.held(state.redis).worker != worker.name


def _busy(state: State, index: int, task: Task) -> State:
    worker = state.workers[index]
    return with_worker(state, index, worker._replace(tasks=added(worker.tasks, task)))


def _claim(model: Model, state: State, index: int, task: Task) -> Steps:
    """Takes a job and claims it, in one step: a buffered delivery is forgotten with its channel."""
    worker, token = state.workers[index], f"t{state.ledger.claims + 1}"
    claimed, redis = model.flight.claim(state.redis, state.now, task.job, worker.name, token)
    told = f"{worker.name} claims {task.job.id}'s job: {type(claimed).__name__.lower()}"
    known = state._replace(redis=redis)
    if isinstance(claimed, Run | Spent):
        known = note(known, claims=known.ledger.claims + 1)
        if state.left.lost:
            deaf = _busy(known, index, task._replace(todo=(("later", state.now + RENEW_EVERY_S),)))
            yield f"{told}, which it never hears", spend(deaf, "lost")
        if doubts := [call for call in calls_of(claimed.doubts) if call not in known.ledger.doubts]:
            known = note(known, doubts=added(known.ledger.doubts, *doubts))
            told += f", {', '.join(doubts)} is doubtful"
    if isinstance(claimed, Run):
        known = note(known, bought=known.ledger.bought + 1)._replace(now=known.now + INSTANT_S)
        check_bought(model, known, told)
    own = next((other.job for other in worker.tasks if other.running and not other.hedges), None)
    todo = _after_claim(model, claimed, task.job, token, state.now, own)
    running = token if isinstance(claimed, Run) else ""
    yield told, _busy(known, index, task._replace(todo=todo, running=running))


def _after_claim(
    model: Model, claimed: Claimed, job: Who, token: str, now: float, own: Who | None
) -> tuple[Action, ...]:
    match claimed:
        case Run(started=started, attempt=attempt, doubts=doubts):
            return (*_events(_doubted(doubts)), ("call", token, started, attempt))
        case Done():
            return tell(model, claimed)
        case Own(token=held):
            if own is None:
                return (("release own", held), ("later", now))
            return (("wait for own", own.id == job.id),)
        case Busy(until=until):
            return (("park", largest_tier_within(until - now)), ("ack",))
        case Later():
            return (("later", now + RENEW_EVERY_S),)
        case Late() | Over() | Spared():
            raise AssertionError("no limit of the model opens as late as that, and nothing has a budget")
        case Spent(started=started, doubts=doubts):
            return (("commit", "spent", token, started, 0, _doubted(doubts)),)
        case Expired(events=events, doubts=doubts):
            settle: tuple[Action, ...] = (("settle", (), events),) if events else ()
            return (*_events((*_doubted(doubts), *events_of(events))), *settle, ("ack",))
        case _:
            assert_never(claimed)


def tell(model: Model, ended: Done | Stored) -> tuple[Action, ...]:
    """`Telling.tell`."""
    told = text_of(ended.outcome)
    whos = tuple(sorted(Who(w.id, w.deadline) for w in ended.waiters))
    events = _events(events_of(ended.events))
    replies = tuple(("reply", who, told) for who in whos)
    settle: Action = ("settle", whos, ended.events)
    if model.rules.settles_first:
        return (*events, settle, *replies, ("ack",))
    return (*events, *replies, settle, ("ack",))


def _doubted(doubts: Doubts) -> tuple[str, ...]:
    """The events that tell of them."""
    return tuple(f"?{call}" for call in calls_of(doubts))


def _events(events: tuple[str, ...]) -> tuple[Action, ...]:
    return (("events", events),) if events else ()


def _go_on(  # noqa: C901, PLR0912, PLR0915 - one case for each step there is
    model: Model, state: State, index: int, task: Task
) -> Steps:
    """The next thing on the task's list; `state` is without the task."""
    name, action, later = state.workers[index].name, task.todo[0], task.todo[1:]

    def then(after: State, *todo: Action) -> State:
        return _busy(after, index, task._replace(todo=todo or later))

    match action:
        case ("ack",):
            yield f"{name} acknowledges {task.job.id}'s job", state
        case ("ack first", *_):
            yield (
                f"{name} acknowledges {task.job.id}'s job",
                _busy(state, index, task._replace(held=False, todo=later)),
            )
        case ("call", token, started, attempt):
            yield from _end_call(model, state, index, task, token, started, attempt)
        case ("commit", told, token, started, attempt, events):
            yield from _commit(model, state, index, task, told, token, started, attempt, events)
        case ("release", token, billed, tier):
            back_at = state.now + tier.delay_s if tier else 0.0
            _, redis = model.flight.release(
                state.redis, state.now, token, parked_until=back_at, billed=billed, sent=True
            )
            yield f"{name} releases {token}", then(state._replace(redis=redis))
        case ("release own", token):
            _, redis = model.flight.release(
                state.redis, state.now, token, parked_until=0.0, billed=False, sent=False
            )
            yield f"{name} releases {token}, of which it never heard", then(state._replace(redis=redis))
        case ("park", tier):
            if task.hedges:
                yield f"{name} drops the copy of {task.job.id}'s job", state
            elif task.held:
                yield (
                    f"{name} parks {task.job.id}'s job in {tier.queue}",
                    then(park(state, task.job, tier.delay_s)),
                )
            else:
                left = state if model.rules.left_is_dealt_with else _look_again(state, index)
                yield f"{name} leaves {task.job.id}'s job to the next", left
        case ("later", until):
            if state.now >= until:
                yield from _claim(model, state, index, task)
        case ("wait for own", same):
            if not any(t.running and not t.hedges for t in state.workers[index].tasks):
                done_with = same or model.rules.own_is_dealt_with
                again: tuple[Action, ...] = () if done_with else (("park", RetryTier.ONE_SECOND),)
                yield f"{name}'s own call has ended", then(state, *again, ("ack",))
        case ("events", events):
            yield f"{name} publishes the events of {', '.join(events)}", then(_published(state, events))
        case ("reply", who, told):
            yield f"{name} replies to {who.id}: {told}", then(clients.receive(model, state, who, told))
        case ("settle", whos, events):
            redis = model.flight.settle(state.redis, state.now, whos, events=events)
            settled = state._replace(redis=redis)
            who = ", ".join(w.id for w in whos) or "nobody"
            yield f"{name} settles {who}", then(settled)
            if state.left.lost:
                todo = ("park", RetryTier.ONE_SECOND), ("ack",)
                yield f"{name} settles {who}, and never hears of it", spend(then(settled, *todo), "lost")
        case _:
            raise AssertionError(action)


def _look_again(state: State, index: int) -> State:
    """Copies of the job that waited for what their own worker would make of it claim it anew."""
    worker = state.workers[index]
    again: tuple[Action, ...] = (("later", state.now),)
    tasks = (t._replace(todo=again) if t.todo[0] == ("wait for own", True) else t for t in worker.tasks)
    return with_worker(state, index, worker._replace(tasks=tuple(sorted(tasks))))


def _end_call(
    model: Model, state: State, index: int, task: Task, token: str, started: float, attempt: int
) -> Steps:
    """What a provider may make of a call; with it come the copies of the job that came meanwhile."""
    worker = state.workers[index]
    copy = next((t for t in worker.tasks if t.held and t.todo == (("wait for own", True),)), None)
    if not task.held and not task.hedges and copy is not None:
        swapped = added(without(worker.tasks, copy), copy._replace(held=False))
        state, task = with_worker(state, index, worker._replace(tasks=swapped)), task._replace(held=True)

    def ended(after: State, told: str) -> State:
        first: tuple[Action, ...] = (("ack first",),) if model.rules.worker_acks_first else ()
        events = (token,) if told == token else ()
        if task.hedges and told != token:
            todo = ("release", token, told == "ambiguous", None), ("ack",)
            return _busy(after, index, task._replace(todo=todo))
        commit = ("commit", told, token, started, attempt, events)
        return _busy(after, index, task._replace(todo=(*first, commit)))

    ledger = state.ledger
    yield f"{token} ends in a result", ended(note(state, ended=added(ledger.ended, token)), token)
    unpaid = note(state, bought=ledger.bought - 1)
    if state.left.failures:
        yield f"{token} fails, known not to be billed", ended(spend(unpaid, "failures"), "transient")
    if state.left.faults:
        yield f"{token} is refused for what it asks", ended(spend(unpaid, "faults"), "fault")
    if state.left.timeouts:
        doubted = note(state, doubts=added(ledger.doubts, token), entered=added(ledger.entered, token))
        yield f"{token} breaks off, and may be billed", ended(spend(doubted, "timeouts"), "ambiguous")


def _commit(
    model: Model,
    state: State,
    index: int,
    task: Task,
    told: str,
    token: str,
    started: float,
    attempt: int,
    events: tuple[str, ...],
) -> Steps:
    name, tier = state.workers[index].name, _BACKOFF[max(0, min(attempt, len(_BACKOFF)) - 1)]
    retried = told in {"transient", "ambiguous"}
    retry_at = state.now + tier.delay_s if retried else 0.0
    committed, redis = model.flight.commit(
        state.redis, state.now, task.job, token, started, told, retry_at, events
    )
    known = state._replace(redis=redis)
    what = f"{name} commits {told}"
    if isinstance(committed, Stored):
        check_stored(model, state, known, told, committed)
        if told == token and not committed.duplicate and token not in known.ledger.stored:
            known = _entered(model, known, task.job, token)
    if state.left.lost and redis != state.redis:
        yield f"{what}, and never hears of it", spend(_busy(known, index, task), "lost")
    match committed:
        case Stored(duplicate=duplicate):
            todo = tell(model, committed)
            yield (
                f"{what}: {'duplicate' if duplicate else 'stored'}",
                _busy(known, index, task._replace(todo=todo)),
            )
        case Stale():
            todo = ("park", RetryTier.ONE_SECOND), ("ack",)
            if model.rules.stale_is_dealt_with:
                todo = (("ack",),)
            yield f"{what}: stale", _busy(known, index, task._replace(todo=todo))
        case Living():
            todo = ("release", token, told == "ambiguous", tier), ("park", tier), ("ack",)
            yield f"{what}: living", _busy(known, index, task._replace(todo=todo))
        case _:
            assert_never(committed)


def _published(state: State, events: tuple[str, ...]) -> State:
    ledger = state.ledger
    doubted = {event[1:] for event in events if event.startswith("?")}
    return note(
        state,
        untold=tuple(token for token in ledger.untold if token not in events),
        entered=tuple(sorted({*ledger.entered, *doubted})),
    )


def _entered(model: Model, state: State, job: Who, token: str) -> State:
    """A result has been stored: its event is to be published, and who takes stored answers must find it."""
    ledger = state.ledger
    fresh_until = max(ledger.fresh_until, state.now + model.flight.asks[job.id].keep_s)
    return note(
        state,
        stored=added(ledger.stored, token),
        untold=added(ledger.untold, token),
        fresh_until=fresh_until,
    )
