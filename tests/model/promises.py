"""What must hold in every world. Whatever breaks it is a `Violation`."""

from broker.answers import Stored
from tests.model.flight import Who
from tests.model.world import PROBE, Model, State, Violation, added, client_of, note, with_client


class Used:
    """How much of the budget has been spent."""

    def __init__(self, model: Model, state: State) -> None:
        self._whole, self._left = model.scenario.budget, state.left

    def __call__(self, *whats: str) -> int:
        return sum(int(getattr(self._whole, what) - getattr(self._left, what)) for what in whats)


def opened(model: Model, state: State, who: Who) -> State:
    """A request leads a new flight. Once is its right, unless a stored answer should have served it."""
    ask, ledger = model.flight.asks[who.id], state.ledger
    served = bool(ask.max_age_s) and state.now < ledger.fresh_until
    if served or who.id in ledger.openers:
        return state
    index, client = client_of(state, who.id)
    if not ask.max_age_s and client.phase == "pending":
        before = tuple(f"t{n}" for n in range(1, ledger.claims + 1))
        state = with_client(state, index, client._replace(old=before))
    return note(state, openers=added(ledger.openers, who.id))


def check_bought(model: Model, state: State, told: str) -> None:
    """A call is bought once for each who opened the flight; again only in doubt, or when Redis forgot."""
    ledger, used = state.ledger, Used(model, state)
    flights = max(1, len(ledger.openers))
    if ledger.bought > flights * (1 + used("flushes")) + len(ledger.doubts) + used("lost", "hedges"):
        raise Violation(f"{told}: call {ledger.bought}, with {len(ledger.doubts)} in doubt")
    # A job whose call was cut is looked at again a moment later: should Redis forget meanwhile, it is as new.
    anew = model.scenario.max_spends if used("hedges") else 1
    if ledger.bought > model.scenario.max_spends * flights + anew * used("flushes") + used("hedges"):
        raise Violation(f"{told}: max_spends allows no call {ledger.bought}")
    # An answer of a call before may cut both the next one and the one beside it.
    if len(ledger.doubts) > used("kills", "freezes", "timeouts", "cancels", "lost") + 2 * used("hedges"):
        raise Violation(f"{told}: more doubts than calls that were left alone")


def check_stored(model: Model, before: State, after: State, told: str, stored: Stored) -> None:
    """A result replaces an error, and no error a result."""
    result = told in after.ledger.ended
    if result and stored.outcome.error is not None:
        raise Violation(f"the result {told} is thrown away for an error")
    held = model.flight.held(before.redis)
    if not result and held.state == "done" and held.status == "ok":
        raise Violation(f"the error {told!r} replaces a result")
    if not result and held.hedge_until > before.now:
        raise Violation(f"{told!r} ends the flight, though a second call may still answer")


def check_told(model: Model, state: State, who: Who, told: str) -> None:
    """A caller gets a result of its own flight, or an error that is true and not avoidable."""
    ledger, used = state.ledger, Used(model, state)
    _, client = client_of(state, who.id)
    if told in ledger.ended:
        # An emptied Redis knows neither what was joined nor what was opened anew.
        if told in client.old and not used("flushes"):
            raise Violation(f"{who.id} takes no stored answer, and is given {told}, which was there before")
        return
    must = who.id in model.scenario.must
    true = {
        "spent": len(ledger.doubts) + used("lost") >= model.scenario.max_spends,
        "fault": used("faults") > 0,
        "transient": used("failures") > 0 and not must,
        "ambiguous": used("timeouts") > 0 and not must,
        "too late": not must,
    }
    if not true.get(told, False):
        raise Violation(f"{who.id} is answered with {told!r}, which is not what came of it")


def check_late(model: Model, id_: str) -> None:
    """A caller's own timer ends only what has too little time."""
    if id_ in (*model.scenario.must, PROBE):
        raise Violation(f"{id_} is never answered, though nothing stands in its way")


def check_rest(model: Model, state: State) -> None:
    """At rest everything is back to empty."""
    held, used = model.flight.held(state.redis), Used(model, state)
    answered = {client.id for client in state.clients if client.phase == "answered"}
    # An emptied Redis is told of a waiter by the job, and cannot know that it has its answer.
    if (left := held.waiters & answered) and not used("flushes"):
        raise Violation(f"{', '.join(sorted(left))} was answered and still counts as waiting")
    # The books know of every call, since it is entered before it begins. A flush can lose its known end.
    if state.ledger.untold and not used("flushes"):
        raise Violation(f"the result {state.ledger.untold[0]} has no event")
    unbooked = set(state.ledger.doubts) - {*state.ledger.entered, *state.ledger.ended}
    if unbooked and not used("flushes"):
        raise Violation(f"the doubtful call {min(unbooked)} has no event")
    if held.permits > used("kills", "freezes") * (1 + used("hedges")):
        raise Violation("a permit is left that nobody holds")
    if held.state == "running" and held.lease_until > state.now:
        raise Violation("a claim is left that nobody holds")
