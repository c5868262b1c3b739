"""The fronts' rules: `workers/front.py`, one step for each thing that a kill may come between."""

from collections.abc import Iterator
from typing import assert_never

from broker.answers import Hit, Joined, Lead, Wait
from tests.model import clients
from tests.model.flight import text_of
from tests.model.promises import opened
from tests.model.world import (
    Action,
    FrontTask,
    Message,
    Model,
    State,
    added,
    publish_job,
    spend,
    without,
)

Steps = Iterator[tuple[str, State]]


def steps(model: Model, state: State) -> Steps:
    """What fronts may do now."""
    if len(state.fronts) < model.scenario.fronts:
        for message in dict.fromkeys(state.requests):
            taken = state._replace(requests=without(state.requests, message))
            yield from _decide(model, taken, message)
    for task in dict.fromkeys(state.fronts):
        rest = state._replace(fronts=without(state.fronts, task))
        yield from _go_on(model, rest, task)


def _decide(  # noqa: C901, PLR0912 - one case for each answer there is
    model: Model, state: State, message: Message
) -> Steps:
    """Reads it and asks Redis, in one step: a kill in between is a kill before."""
    who = message.who
    if message.what == "cancel":
        answer, redis = model.flight.cancel(state.redis, state.now, who)
        told = f"a front takes the cancel of {who.id}: {type(answer).__name__}"
        yield told, _busy(state._replace(redis=redis), message, ("ack",))
        return
    if who.deadline <= state.now:
        todo: tuple[Action, ...] = (("reply", who, "too late"), ("ack",))
        yield f"a front takes {who.id}: it is too late", _busy(state, message, *todo)
        return
    admitted, redis = model.flight.admit(state.redis, state.now, who)
    known = state._replace(redis=redis)
    if admitted == Lead(1):
        known = opened(model, known, who)
    if state.left.lost and redis != state.redis:
        again = known._replace(requests=added(known.requests, message))
        yield f"a front takes {who.id}: {type(admitted).__name__}, which it never hears", spend(again, "lost")
    match admitted:
        case Hit(why=why, outcome=None):
            yield (
                f"a front takes {who.id}: it was called off ({why})",
                _busy(known, message, ("reply", who, "cancelled"), ("ack",)),
            )
        case Hit(why=why, outcome=outcome):
            assert outcome is not None
            settle: tuple[Action, ...] = (("settle", who),) if why == "known" else ()
            told = text_of(outcome)
            yield (
                f"a front takes {who.id}: hit ({why}), {told}",
                _busy(known, message, ("reply", who, told), *settle, ("ack",)),
            )
        case Joined():
            yield f"a front takes {who.id}: joined", _busy(known, message, ("ack",))
        case Lead(leads=leads):
            todo = (("publish", who), ("ack",))
            if model.rules.front_acks_first:
                todo = (("ack first",), ("publish", who), ("ack",))
            yield f"a front takes {who.id}: lead ({leads})", _busy(known, message, *todo)
        case Wait():
            raise AssertionError("no limit is set")
        case _:
            assert_never(admitted)


def _busy(state: State, message: Message, *todo: Action) -> State:
    return state._replace(fronts=added(state.fronts, FrontTask(message, True, todo)))


def _go_on(model: Model, state: State, task: FrontTask) -> Steps:
    (action, *later), who = task.todo, task.message.who

    def then(after: State, *, held: bool = task.held) -> State:
        return after._replace(fronts=added(after.fronts, FrontTask(task.message, held, tuple(later))))

    match action:
        case ("ack",):
            yield f"the front acknowledges {task.message.what} {who.id}", state
        case ("ack first",):
            yield f"the front acknowledges {who.id}", then(state, held=False)
        case ("publish", _):
            if not task.held and not model.rules.front_acks_first:
                yield f"the front leaves {who.id} to the next", state
            else:
                yield f"the front publishes {who.id}'s job", then(publish_job(model, state, who))
        case ("reply", _, told):
            yield f"the front replies to {who.id}: {told}", then(clients.receive(model, state, who, told))
        case ("settle", _):
            redis = model.flight.settle(state.redis, state.now, (who,))
            yield f"the front settles {who.id}", then(state._replace(redis=redis))
            if state.left.lost:
                back = state.requests if not task.held else added(state.requests, task.message)
                lost = state._replace(redis=redis, requests=back)
                yield f"the front settles {who.id}, and never hears of it", spend(lost, "lost")
        case _:
            raise AssertionError(action)


def hasten(model: Model, state: State) -> tuple[str, State] | None:
    """A step that nothing can come between any more, and that changes nothing for others; if there is one."""
    if state.left.front_kills or state.left.cuts or state.left.delays:
        return None
    for task in state.fronts:
        if task.todo[0][0] != "settle":
            rest = state._replace(fronts=without(state.fronts, task))
            return next(_go_on(model, rest, task))
    return None


def kill(state: State, task: FrontTask) -> State:
    """What it had in hand is handed out again."""
    left = state._replace(fronts=without(state.fronts, task))
    return left._replace(requests=added(left.requests, task.message)) if task.held else left


def cut(state: State, task: FrontTask) -> State:
    """Its connection is gone; it goes on with what it began."""
    loose = state._replace(fronts=added(without(state.fronts, task), task._replace(held=False)))
    return loose._replace(requests=added(loose.requests, task.message))
