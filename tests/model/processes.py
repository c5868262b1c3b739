"""What happens to a backend's process: it renews its claims, dies, loses its connection, freezes."""

from broker.answers import Run
from tests.model.world import Action, Model, State, Task, Worker, added, note, with_worker, without
from topology.names import RetryTier


def renew(model: Model, state: State) -> State:
    """Whoever calls, or is about to, has renewed its claim in time; a call that nobody wants is cut."""
    for index, worker in enumerate(state.workers):
        for task in worker.tasks:
            if not worker.frozen:
                state = renew_one(model, state, index, task)
    return state


def renew_one(model: Model, state: State, index: int, task: Task) -> State:
    call = next((action for action in task.todo if action[0] == "call"), None)
    if call is None:
        return state
    worker, (_, token, started, attempt) = state.workers[index], call
    run = Run("main", 0, started, attempt, 0.0, ())
    verdict, redis = model.flight.renew(state.redis, state.now, task.job, worker.name, token, run)
    state = state._replace(redis=redis)
    late = model.rules.cut_at_deadline and task.job.deadline <= state.now
    if verdict not in {"unwanted", "answered"} and not late:
        return state
    if token not in state.ledger.doubts:  # nor did whoever took the flight over find it out
        state = note(state, doubts=added(state.ledger.doubts, token))
    state = note(state, entered=added(state.ledger.entered, token))
    todo: tuple[Action, ...] = (("release", token, True, None), ("ack",))
    if verdict == "answered" and not task.hedges and not model.rules.answered_is_dealt_with:
        todo = (("release", token, True, None), ("park", RetryTier.ONE_SECOND), ("ack",))
    if late:
        todo = (("commit", "ambiguous", token, started, attempt, ()),)
    rest = without(worker.tasks, task)
    return with_worker(state, index, worker._replace(tasks=added(rest, task._replace(todo=todo))))


def has_word_for_redis(state: State) -> bool:
    """A worker that is slow between the end of a call and its commit is a frozen one, and counted as that."""
    tasks = (task for worker in state.workers if not worker.frozen for task in worker.tasks)
    return any(task.todo[0][0] in {"commit", "release", "release own"} for task in tasks)


def kill(model: Model, state: State, index: int) -> State:
    """Its calls are gone, what it had in hand is handed out again; another process takes its place."""
    worker = state.workers[index]
    back = [task.job for task in worker.tasks if task.held]
    taken = {w.name for w in state.workers} | {model.flight.held(state.redis).worker}
    name = next(f"w{n}" for n in range(1, 9) if f"w{n}" not in taken)
    new = Worker(worker.name if model.rules.name_survives else name)
    return with_worker(state, index, new)._replace(jobs=added(state.jobs, *back))


def cut(state: State, index: int) -> State:
    """Its connection is gone: running calls go on, what it had not begun is forgotten."""
    worker = state.workers[index]
    back = [task.job for task in worker.tasks if task.held]
    begun = [task._replace(held=False) for task in worker.tasks if task.todo[0][0] != "later"]
    loose = worker._replace(tasks=tuple(sorted(begun)))
    return with_worker(state, index, loose)._replace(jobs=added(state.jobs, *back))


def freeze(state: State, index: int) -> State:
    return with_worker(state, index, state.workers[index]._replace(frozen=state.now))


def thaw(state: State, index: int) -> State:
    return with_worker(state, index, state.workers[index]._replace(frozen=0.0))
