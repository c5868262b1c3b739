"""Time: it stands still while somebody has something to do, then goes on to the next instant that counts."""

from collections.abc import Iterator

from tests.model import clients, processes
from tests.model.promises import check_rest
from tests.model.world import (
    INSTANT_S,
    PROBE,
    START,
    Budget,
    Model,
    State,
    Violation,
    added,
    client_of,
    spend,
)

Steps = Iterator[tuple[str, State]]

END = START + 30_000.0
ENOUGH_S = 1000.0
FROZEN_S = 20.0
"""Somebody frozen thaws before time goes on from here: more than a lease has passed."""


def at_rest(state: State) -> bool:
    """Nothing is on its way, and nobody waits."""
    return (
        not (state.requests or state.jobs or state.copies or state.parked or state.fronts)
        and not any(worker.tasks or worker.frozen for worker in state.workers)
        and all(client.phase in clients.CLOSED for client in state.clients if client.id != PROBE)
    )


def steps(model: Model, state: State, *, idle: bool) -> Steps:
    """Time goes on: by itself when everybody is idle, else at the cost of a delay."""
    if at_rest(state):
        index, probe = client_of(state, PROBE)
        if probe.phase == "unsent":
            calm = state._replace(left=Budget(*(0 for _ in state.left)))
            yield "all is at rest; another identical request is published", clients.begin(model, calm, index)
        else:
            check_rest(model, state)
        return
    if any(worker.frozen and state.now > worker.frozen + FROZEN_S for worker in state.workers):
        return
    instants = sorted(i for i in _instants(model, state) if i > state.now)
    if idle and not instants:
        if _somebody_may_come(state):
            return
        raise Violation("messages are left, and nothing will ever happen to them")
    if idle:
        yield f"{instants[0] - state.now:g} s pass", advance(model, state, instants[0])
    elif state.left.delays and not processes.has_word_for_redis(state):
        for instant in instants:
            if instant <= _patience(model, state):
                told = f"everybody is slow: {instant - state.now:g} s pass"
                yield told, spend(advance(model, state, instant), "delays")


def _somebody_may_come(state: State) -> bool:
    unsent = any(client.phase == "unsent" for client in state.clients if client.id != PROBE)
    return unsent or any(worker.frozen for worker in state.workers)


def _patience(model: Model, state: State) -> float:
    """Slowness is no excuse for a request that must be answered: enough of its time is left."""
    musts = [c.deadline for c in state.clients if c.phase == "pending" and c.id in model.scenario.must]
    return min(musts, default=END) - ENOUGH_S


def _instants(model: Model, state: State) -> set[float]:
    instants = set(model.flight.held(state.redis).instants)
    instants |= {due for due, _ in state.parked}
    instants |= {t.todo[0][1] for w in state.workers for t in w.tasks if t.todo[0][0] == "later"}
    for client in state.clients:
        if client.phase == "pending":
            instants |= {client.deadline, client.send_again_at}
    return {i for i in instants if i < state.now + 20_000}


def advance(model: Model, state: State, now: float) -> State:
    """All that happens by itself until then."""
    if now > END:
        raise Violation("a message goes round without end")
    now += INSTANT_S  # it is past, whichever way a rule compares
    state = processes.renew(model, state._replace(now=now))
    state = state._replace(redis=model.flight.purge(state.redis, now))
    for index, worker in enumerate(state.workers):
        if worker.frozen:  # two heartbeats without a sign: its deliveries are handed out again
            state = processes.cut(state, index)
    due = [who for at, who in state.parked if at <= now]
    state = state._replace(parked=tuple(p for p in state.parked if p[0] > now), jobs=added(state.jobs, *due))
    return clients.wake(model, state)
