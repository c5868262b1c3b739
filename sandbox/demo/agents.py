"""The agents at work: every request sent at its instant, by an SDK client of its agent's own."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from producer_sdk import AsyncOptimizer, OptimizerError, Reply
from sandbox.demo.workload import Agent, Ask, Workload

TIMEOUT_S: Final = 120.0
"""Within this each request ends, in an answer or in an error."""


@dataclass(frozen=True)
class Sent:
    """One request and what became of it.

    Attributes:
        request_id: Its id, where a reply told it.
        source: `provider`, `cache` or `dedupe`; None without an answer.
        is_right: Whether the simulated provider's answer is the one to this prompt.
        cost_usd: What the reply says it cost; None where the price is not known.
        attempts: How often the reply says a provider was called for it, or for what it shared.
        queued_s: How long it waited before its call, or for the one it shared.
        total_s: From sending to the answer, as the agent saw it.
        error: The kind of error and its text; None for an answer.
    """

    ask: Ask
    request_id: str | None = None
    source: str | None = None
    is_right: bool = False
    cost_usd: float | None = None
    attempts: int = 0
    queued_s: float = 0.0
    total_s: float = 0.0
    error: str | None = None


@dataclass
class Tally:
    """The counters that the live progress shows."""

    total: int
    sent: int = 0
    hits: int = 0
    joins: int = 0
    paid: int = 0
    errors: int = 0

    @property
    def answered(self) -> int:
        """Requests with an answer."""
        return self.hits + self.joins + self.paid

    @property
    def waiting(self) -> int:
        """Requests that are neither answered nor ended in an error."""
        return self.sent - self.answered - self.errors

    def count(self, sent: Sent) -> None:
        """One more has ended."""
        if sent.error is not None:
            self.errors += 1
        elif sent.source == "cache":
            self.hits += 1
        elif sent.source == "dedupe":
            self.joins += 1
        else:
            self.paid += 1


async def play(workload: Workload, amqp_url: str, tally: Tally) -> list[Sent]:
    """Sends the workload from now on and waits for all of it.

    Returns:
        What became of each request, in the order of the workload.
    """
    began = asyncio.get_running_loop().time()
    tasks: dict[Agent, asyncio.Task[list[tuple[int, Sent]]]] = {}
    async with asyncio.TaskGroup() as group:
        for agent in workload.agents:
            own = [(place, ask) for place, ask in enumerate(workload.asks) if ask.agent == agent]
            tasks[agent] = group.create_task(
                _live(agent, own, amqp_url, began, tally), name=f"agent {agent.name}"
            )
    ended = [pair for task in tasks.values() for pair in task.result()]
    return [sent for _, sent in sorted(ended, key=lambda pair: pair[0])]


async def _live(
    agent: Agent, asks: Sequence[tuple[int, Ask]], amqp_url: str, began: float, tally: Tally
) -> list[tuple[int, Sent]]:
    """One agent: it does not wait for an answer before it asks the next thing."""
    loop = asyncio.get_running_loop()
    pending: list[tuple[int, asyncio.Task[Sent]]] = []
    async with (
        AsyncOptimizer(agent.name, agent_type=agent.kind, url=amqp_url) as optimizer,
        asyncio.TaskGroup() as group,
    ):
        for place, ask in asks:
            await asyncio.sleep(max(0.0, began + ask.at_s - loop.time()))
            task = group.create_task(_ask(optimizer, ask, tally), name=f"ask of {agent.name}")
            pending.append((place, task))
    return [(place, task.result()) for place, task in pending]


async def _ask(optimizer: AsyncOptimizer, ask: Ask, tally: Tally) -> Sent:
    tally.sent += 1
    params: dict[str, Any] = dict(ask.params)
    began = time.monotonic()
    try:
        reply = await optimizer.chat(
            ask.prompt,
            model=ask.model,
            task=ask.task,
            priority=ask.priority,
            timeout=TIMEOUT_S,
            cache=ask.cache,
            **params,
        )
        sent = _answered(ask, reply, time.monotonic() - began)
    except OptimizerError as error:
        sent = _failed(ask, error, time.monotonic() - began)
    tally.count(sent)
    return sent


def _answered(ask: Ask, reply: Reply, total_s: float) -> Sent:
    return Sent(
        ask,
        request_id=reply.id,
        source=reply.source.value if reply.source else None,
        is_right=reply.text.startswith(echo_of(ask.prompt)),
        cost_usd=reply.cost_usd,
        attempts=reply.attempts,
        queued_s=reply.timings.queued_s,
        total_s=total_s,
    )


def _failed(ask: Ask, error: OptimizerError, total_s: float) -> Sent:
    return Sent(
        ask,
        request_id=error.reply.id if error.reply else None,
        attempts=error.reply.attempts if error.reply else 0,
        total_s=total_s,
        error=f"{error.type.value}: {error.message}",
    )


def echo_of(prompt: str) -> str:
    """How the simulated provider's answer to a prompt begins."""
    return f"echo:{hashlib.sha256(prompt.encode()).hexdigest()[:16]}"
