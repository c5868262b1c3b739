"""What goes wrong, as long as the budget lasts."""

from collections.abc import Iterator

from tests.model import fronts, processes
from tests.model.flight import EMPTY
from tests.model.world import Model, State, spend

Steps = Iterator[tuple[str, State]]


def steps(model: Model, state: State) -> Steps:  # noqa: C901 - one case for each fault there is
    """Everything that may break now."""
    left = state.left
    for task in dict.fromkeys(state.fronts):
        what = f"that has {task.message.what} {task.message.who.id} in hand"
        if left.front_kills:
            yield f"KILL: the front {what}", spend(fronts.kill(state, task), "front_kills")
        if left.cuts and task.held:
            yield f"CUT: the front {what}", spend(fronts.cut(state, task), "cuts")
    for index, worker in enumerate(state.workers):
        if worker.frozen:
            yield f"{worker.name} thaws", processes.thaw(state, index)
        if not worker.tasks:
            continue
        if left.kills and not worker.frozen:
            yield f"KILL: {worker.name}", spend(processes.kill(model, state, index), "kills")
        if left.freezes and not worker.frozen:
            yield f"FREEZE: {worker.name}", spend(processes.freeze(state, index), "freezes")
        if left.cuts and any(task.held for task in worker.tasks):
            yield f"CUT: {worker.name}'s connection", spend(processes.cut(state, index), "cuts")
    if left.flushes and state.redis != EMPTY:
        emptied = state._replace(redis=EMPTY, ledger=state.ledger._replace(fresh_until=0.0))
        yield "FLUSH: Redis is empty", spend(emptied, "flushes")
