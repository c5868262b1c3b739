"""Second calls beside those that take long: `workers/offering.py` and `workers/hedging.py`, step by step."""

from collections.abc import Iterator

from broker.answers import NotHedged
from tests.model import processes
from tests.model.flight import Who
from tests.model.promises import check_bought
from tests.model.world import INSTANT_S, Model, State, Task, added, note, spend, with_worker, without

Steps = Iterator[tuple[str, State]]


def steps(model: Model, state: State) -> Steps:
    """What may be done now for the sake of a second call."""
    for index, worker in enumerate(state.workers):
        for task in () if worker.frozen else dict.fromkeys(worker.tasks):
            if task.todo[0][0] == "call":
                yield from _while_it_runs(model, state, index, task)
    for copy in dict.fromkeys(state.copies):
        rest = state._replace(copies=without(state.copies, copy))
        for index, worker in enumerate(state.workers):
            if not worker.frozen:
                yield _take(model, rest, index, *copy)


def _while_it_runs(model: Model, state: State, index: int, task: Task) -> Steps:
    name = state.workers[index].name
    if state.left.hedges and not task.hedges:
        offered = state._replace(copies=added(state.copies, (task.job, task.running)))
        yield f"{name} offers {task.running}", spend(offered, "hedges")
    if (task.hedges or model.scenario.budget.hedges) and model.flight.held(state.redis).state == "done":
        yield f"{name} hears of an answer", processes.renew_one(model, state, index, task)


def _take(model: Model, state: State, index: int, job: Who, hedges: str) -> tuple[str, State]:
    """Asks for a call, and drops the copy; handed out again it is dropped, too."""
    worker, token = state.workers[index], f"t{state.ledger.claims + 1}"
    answer, redis = model.flight.hedge(state.redis, state.now, hedges, worker.name, token)
    known = state._replace(redis=redis)
    if isinstance(answer, NotHedged):
        return f"{worker.name} does not hedge {hedges}: {answer.why}", known
    told = f"{worker.name} hedges {hedges}"
    known = note(known, claims=known.ledger.claims + 1, bought=known.ledger.bought + 1)
    known = known._replace(now=known.now + INSTANT_S)
    check_bought(model, known, told)
    call = Task(job, False, (("call", token, answer.started, answer.attempt),), token, hedges=True)
    return told, with_worker(known, index, worker._replace(tasks=added(worker.tasks, call)))
