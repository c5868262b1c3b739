"""The run behind an invoice: agents ask, the provider fails now and then, workers are killed."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

from producer_sdk import AsyncOptimizer, OptimizerError
from producer_sdk.asking import CacheName
from tests.chaos.brokers import Place
from tests.chaos.printing import Progress
from tests.chaos.records import has_running
from tests.faults.nursery import FaultyWorker, Nursery, nursery
from tests.support.waiting import until
from topology import names

SEATS: Final = ("front", "backend:all", "backend:all", "undertaker", "recorder")
_KILLED: Final = {"backend:all": 6, "front": 2, "recorder": 1}
"""Shares of the kills."""
_MODELS: Final = {"small": (0.15, 0.60), "large": (2.5, 10.0), "long": (0.0375, 4.0)}
"""USD for a million prompt and generated tokens. Each is the only model of a provider of its name."""
_FAULTS: Final = {
    "server_error": 0.004, "unavailable": 0.001, "rate_limited": 0.001, "error_in_200": 0.001,
    "no_finish_reason": 0.001, "cut": 0.001, "malformed": 0.001, "timeout": 0.0005, "hang_s": 60.0,
    "retry_after_s": 0.1,
}  # fmt: skip
_LATENCY: Final = {"kind": "uniform", "low_s": 0.005, "high_s": 0.04}
"""Short: each failure leaves the fleet fewer calls at once, as an overloaded provider would want it."""
_AGENTS: Final = 8
_TOGETHER: Final = 240
"""Requests under way at the same time."""
_REPEATS: Final = 0.2
_OFF: Final = 0.1
_CANCELLED: Final = 0.01
_TIMEOUT_S: Final = 120.0
_LEASE_S: Final = 5.0
_TICK_S: Final = 0.5
_REST_S: Final = 180.0
_FLEET: Final = """
[fleet]
max_spends = 5
[cache]
ttl_s = 60
[recorder]
url = "sqlite:///{database}"
"""
_PROVIDER: Final = """
[providers.{name}]
base_url = "{base_url}"
api_keys = ["env:SIMULATED_KEY"]
concurrency = 40
timeout_s = 3
models = [{{id = "{model}", input_usd_per_mtok = {prices[0]}, output_usd_per_mtok = {prices[1]}}}]
"""


@dataclass(frozen=True)
class Plan:
    """A run as it was asked for: so many calls reach the provider, at least, unless the time is up before."""

    seed: int
    calls: int
    kills: int
    minutes: float | None = None


@dataclass
class Seen:
    """What came of it; requests by how they ended."""

    ends: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)
    calls: int = 0
    calls_per_s: float = 0.0


async def run(place: Place, plan: Plan, progress: Progress) -> Seen:
    """Runs the plan in this place; returns at rest, with the workers gone."""
    models = [
        {"id": name, "input_usd_per_mtok": prompt, "output_usd_per_mtok": answer}
        for name, (prompt, answer) in _MODELS.items()
    ]
    place.provider.change(models=models, faults=_FAULTS, latency=_LATENCY)
    text = _FLEET.format(database=place.database) + "".join(
        _PROVIDER.format(name=name, model=name, prices=prices, base_url=place.provider.base_url)
        for name, prices in _MODELS.items()
    )
    await place.house.declare(place.house.fleet(text))
    seen = Seen()
    async with nursery(place.house) as opened:
        seats = [(role, await _start(opened, role)) for role in SEATS]
        began = time.monotonic()
        await _under_load(place, plan, progress, seen, _Striking(opened, seats, seen, plan))
        seen.calls_per_s = round(seen.calls / (time.monotonic() - began), 1)
        progress.note("every request has its end; waiting until every call has its own")
        await until(lambda: _is_at_rest(place), _REST_S)
    return seen


async def _start(opened: Nursery, role: str) -> FaultyWorker:
    return await opened.start(role, lease_s=_LEASE_S)


async def _is_at_rest(place: Place) -> bool:
    await asyncio.sleep(_TICK_S)
    _, in_flight = await asyncio.to_thread(place.provider.counts)
    return (
        not in_flight
        and not await place.house.depth(names.RECORDER_QUEUE)
        and not has_running(place.database)
    )


class _Striking:
    """Kills workers, evenly over the calls, and starts the next ones at once."""

    def __init__(
        self, opened: Nursery, seats: list[tuple[str, FaultyWorker]], seen: Seen, plan: Plan
    ) -> None:
        self._nursery = opened
        self._seats = seats
        self._seen = seen
        self._plan = plan
        self._random = Random(plan.seed)

    async def keep_up(self) -> None:
        """Kills as many as are due by now."""
        due = (self._plan.kills + 1) * self._seen.calls // self._plan.calls
        while self._seen.kills.total() < min(due, self._plan.kills):
            await self._strike()

    async def _strike(self) -> None:
        role = self._random.choices(list(_KILLED), list(_KILLED.values()))[0]
        if not self._seen.kills:
            role = "backend:all"  # the one that leaves doubts
        index = self._random.choice([n for n, (at, _) in enumerate(self._seats) if at == role])
        self._seats[index][1].kill()
        await self._seats[index][1].ended()
        self._seen.kills[role.partition(":")[0]] += 1
        self._seats[index] = (role, await _start(self._nursery, role))


@dataclass(frozen=True)
class _Ask:
    prompt: str
    model: str
    cache: CacheName
    agent: int
    cancelled_after_s: float | None


def _asks(seed: int) -> Iterator[_Ask]:
    """New prompts, the same ones again, and some that are called off."""
    random = Random(seed)
    lately: deque[tuple[str, str]] = deque([("Prompt 0", "small")], maxlen=2000)
    number = 0
    while True:
        number += 1
        if random.random() < _REPEATS:
            prompt, model = random.choice(lately)
        else:
            prompt, model = f"Prompt {number}" + " more" * random.randrange(40), random.choice(list(_MODELS))
            lately.append((prompt, model))
        cache: CacheName = "off" if random.random() < _OFF else "use"
        called_off = random.uniform(0.0, 0.3) if random.random() < _CANCELLED else None
        yield _Ask(prompt, model, cache, random.randrange(_AGENTS), called_off)


async def _under_load(place: Place, plan: Plan, progress: Progress, seen: Seen, striking: _Striking) -> None:
    """Until the provider has had its calls, the kills are over, and every request has its end."""
    asks, over = _asks(plan.seed), asyncio.Event()
    until_ = math.inf if plan.minutes is None else time.monotonic() + 60.0 * plan.minutes
    async with AsyncExitStack() as stack:
        agents = [
            await stack.enter_async_context(AsyncOptimizer(f"agent-{n}", url=place.house.amqp_url))
            for n in range(_AGENTS)
        ]

        async def keep_asking() -> None:
            while not over.is_set():
                ask = next(asks)
                seen.ends[await _end_of(agents[ask.agent], ask)] += 1

        async with asyncio.TaskGroup() as asking:
            for _ in range(_TOGETHER):
                asking.create_task(keep_asking(), name="asking")
            while not over.is_set():
                seen.calls, _ = await asyncio.to_thread(place.provider.counts)
                await striking.keep_up()
                _tell(progress, plan, seen)
                if seen.calls >= plan.calls or time.monotonic() > until_:
                    over.set()
                await asyncio.sleep(_TICK_S)


async def _end_of(agent: AsyncOptimizer, ask: _Ask) -> str:
    """How the request ended: answered, an error's type, or called off."""
    chat = agent.chat(ask.prompt, model=ask.model, cache=ask.cache, timeout=_TIMEOUT_S, max_tokens=30)
    if ask.cancelled_after_s is not None:
        task = asyncio.create_task(chat, name="to be called off")
        await asyncio.sleep(ask.cancelled_after_s)
        task.cancel()
        with suppress(asyncio.CancelledError, OptimizerError):
            await task
        return "called off"
    try:
        return (await chat).source or "answered"
    except OptimizerError as error:
        return f"error {error.type}"


def _tell(progress: Progress, plan: Plan, seen: Seen) -> None:
    ends = ", ".join(f"{count} {end}" for end, count in sorted(seen.ends.items()))
    progress.tell(
        f"{seen.calls} of {plan.calls} calls, {seen.kills.total()} kills; requests: {ends or 'none yet'}"
    )
