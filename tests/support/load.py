"""Agents that ask without a pause while something is broken around them, and what they were told."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

from producer_sdk import AsyncOptimizer, OptimizerError
from sandbox.simulator import SimulatorProcess
from tests.support.house import House
from tests.support.resting import at_rest
from tests.support.waiting import until

AGENTS = 8


class Load:
    """Each prompt is asked by all agents at once: one flight."""

    def __init__(self, optimizers: Sequence[AsyncOptimizer]) -> None:
        self.prompts = 0
        self.answered = 0
        self.errors: list[OptimizerError] = []
        self._name = secrets.token_hex(4)
        self._optimizers = optimizers
        self._enough = False

    def stop(self) -> None:
        """Nothing more is asked."""
        self._enough = True

    async def goes_on(self, more: int = 2 * AGENTS) -> None:
        """Waits for so many answers more than now."""
        wanted = self.answered + more
        await until(lambda: self.answered >= wanted or bool(self.errors), 90)

    async def ask(self) -> None:
        for n in count():
            if self._enough or self.errors:
                return
            self.prompts += 1
            prompt = f"{self._name}-{id(asyncio.current_task())}-{n}"
            await asyncio.gather(*(self._chat(optimizer, prompt) for optimizer in self._optimizers))

    async def _chat(self, optimizer: AsyncOptimizer, prompt: str) -> None:
        try:
            assert (await optimizer.chat(prompt, timeout=110)).text
            self.answered += 1
        except OptimizerError as error:
            self.errors.append(error)


@asynccontextmanager
async def under_load(house: House, agents: int = 2) -> AsyncIterator[Load]:
    """The agents' load; it stops at the end. Then every request has its answer, and the house is at rest.

    The workers must live until then: what was published twice for want of a confirm is a second job, which
    one of them has to take.
    """
    async with AsyncExitStack() as stack:
        names = [f"agent-{n}" for n in range(agents)]
        load = Load([await stack.enter_async_context(house.agent(name)) for name in names])
        asking = [asyncio.create_task(load.ask()) for _ in range(AGENTS)]
        try:
            await load.goes_on()
            yield load
            load.stop()
            await asyncio.gather(*asking)
        finally:
            for task in asking:
                task.cancel()
    assert load.errors == []
    assert load.answered == agents * load.prompts
    await at_rest(house)


def bought(simulator: SimulatorProcess) -> int:
    """How many calls the provider has answered, by its own ledger; each of them well."""
    calls = simulator.ledger()
    assert {call.outcome for call in calls} == {"ok"}
    return len(calls)
