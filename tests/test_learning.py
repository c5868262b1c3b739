"""What a model said it lacks is asked of it by no other agent."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.lessons import Lessons
from producer_sdk import AsyncOptimizer, InvalidRequest
from producer_sdk.transport import Publisher
from sandbox.nodes import Brokers
from sandbox.simulator import Model, SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until
from topology.errors import ErrorType
from topology.fleet import Account, Provider
from topology.messages import CacheMode, Candidate, Job, Request, Waiter
from topology.names import Priority
from topology.providers.outcomes import Failure, FailureKind, Scope
from topology.sections import ApiKey
from workers.events import Clock, Events
from workers.learning import Learning

TOOLS = [{"type": "function", "function": {"name": "look_up"}}]
PLAIN, ABLE = Candidate(provider="house", model="plain"), Candidate(provider="house", model="able")
NOW = 1_800_000_000.0
NO_TOOLS = Failure(
    FailureKind.REQUEST_AT_FAULT, ErrorType.INVALID_REQUEST, "No tools.\nYou asked: ...", 400,
    scope=Scope.REQUEST, features=frozenset({"tools"}),
)  # fmt: skip
MISSING = Failure(
    FailureKind.REQUEST_AT_FAULT, ErrorType.NO_MODEL_AVAILABLE, "No such model.", 404,
    scope=Scope.MODEL, features=frozenset({"model"}),
)  # fmt: skip


class Fleet:
    """Workers that share a Redis and a clock."""

    def __init__(self, redis: Redis) -> None:
        self.clock = Clock()
        self.clock.set(NOW)
        self._redis, self._prefix = redis, f"{secrets.token_hex(6)}:"
        self._lessons = Lessons(redis, self._prefix)

    async def flush(self) -> None:
        for key in await self._redis.keys(f"{self._prefix}*"):
            await self._redis.delete(key)

    def worker(self) -> Learning:
        publisher = Publisher("amqp://nowhere.invalid/", "tester")
        return Learning(self._lessons, self.clock, Events(publisher, self.clock))


@pytest.fixture
async def fleet(brokers: Brokers) -> AsyncIterator[Fleet]:
    async with Redis.from_url(brokers.redis_url) as redis:
        yield Fleet(redis)


def job(cache: CacheMode = CacheMode.USE, **params: Any) -> Job:
    request = Request(id="r", agent="a", model="auto", params=params, cache=cache)
    waiter = Waiter(
        agent="a", id="r", reply_to=None, priority=Priority.NORMAL, deadline=NOW + 60, queued_at=NOW
    )
    return Job(fingerprint="f", request=request, waiter=waiter, route=(PLAIN, ABLE))


def provider(accounts: int = 1) -> Provider:
    owners = [Account(name=f"a{n}", api_keys=(ApiKey(origin=f"env:KEY_{n}"),)) for n in range(accounts)]
    return Provider(name="house", base_url="http://house/v1", accounts=tuple(owners))


async def test_what_one_worker_learns_another_goes_around(fleet: Fleet) -> None:
    front, pool = fleet.worker(), fleet.worker()
    asking = job(tools=TOOLS)

    assert await pool.learn(asking, provider(), NO_TOOLS, 60)
    await front.look()

    assert front.around(asking.request, asking.route) == ((ABLE,), None)
    assert front.around(job().request, asking.route) == (asking.route, None)
    route, lacks = front.around(asking.request, (PLAIN,))
    assert lacks is not None
    assert lacks.error is not None
    assert (route, lacks.provider, lacks.model) == ((PLAIN,), "house", "plain")
    assert (lacks.error.type, lacks.error.provider_status) == (ErrorType.INVALID_REQUEST, 400)
    assert not lacks.error.retryable
    lines = (
        "tools: house/plain lacks it",
        '"No tools."',
        "2027-01-15 08:00:00 UTC",
        "--forget house/plain tools",
    )
    assert [line for line in lines if line not in lacks.error.message] == []
    assert "You asked" not in lacks.error.message  # it may quote the other's prompt


async def test_an_answer_refutes_it_and_so_does_an_emptied_redis(fleet: Fleet) -> None:
    front, pool = fleet.worker(), fleet.worker()
    asking = job(tools=TOOLS)
    await pool.learn(asking, provider(), NO_TOOLS, 60)

    await pool.succeeded(job())  # without tools: it says nothing of them
    await front.look()
    assert front.around(asking.request, (PLAIN,))[1] is not None

    await pool.succeeded(asking)
    await front.look()
    assert front.around(asking.request, (PLAIN,)) == ((PLAIN,), None)

    await pool.learn(asking, provider(), NO_TOOLS, 60)
    await fleet.flush()
    await front.look()
    assert front.around(asking.request, (PLAIN,)) == ((PLAIN,), None)


async def test_after_its_time_one_request_tries_it_again(fleet: Fleet) -> None:
    front, pool = fleet.worker(), fleet.worker()
    asking = job(tools=TOOLS)
    await pool.learn(asking, provider(), NO_TOOLS, 60)
    await front.look()

    fleet.clock.set(NOW + 61)

    assert front.around(asking.request, asking.route) == (asking.route, None)
    assert front.around(asking.request, asking.route) == ((ABLE,), None)  # how that ended is not known yet
    await pool.learn(asking, provider(), NO_TOOLS, 60)
    await front.look()
    fleet.clock.set(NOW + 120)
    assert front.around(asking.request, asking.route) == ((ABLE,), None)


async def test_who_wants_it_tried_again_says_so(fleet: Fleet) -> None:
    worker = fleet.worker()
    asking = job(CacheMode.REFRESH, tools=TOOLS)
    await worker.learn(asking, provider(), NO_TOOLS, 60)

    assert worker.around(asking.request, (PLAIN,)) == ((PLAIN,), None)
    assert worker.around(asking.request, asking.route) == ((ABLE,), None)  # where nothing else would do


async def test_what_is_not_plainly_about_the_request_and_the_model_is_not_remembered(fleet: Fleet) -> None:
    worker = fleet.worker()
    asking = job(messages=[])

    assert not await worker.learn(asking, provider(), NO_TOOLS, 60)  # it uses none
    assert not await worker.learn(asking, provider(accounts=2), MISSING, 60)  # the other account may have it
    assert worker.around(asking.request, (PLAIN,)) == ((PLAIN,), None)

    assert await worker.learn(asking, provider(), MISSING, 0)  # told, and by configuration not remembered
    assert worker.around(asking.request, (PLAIN,)) == ((PLAIN,), None)

    assert await worker.learn(asking, provider(), MISSING, 60)
    assert worker.around(asking.request, (PLAIN, ABLE)) == ((ABLE,), None)


async def test_a_second_agent_does_not_repeat_the_first_ones_error(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.fleet(f"""
[providers.simulated]
base_url = "{simulator.base_url}"
api_keys = ["env:SIMULATED_KEY"]
models = [
    {{ id = "plain", input_usd_per_mtok = 0.1, output_usd_per_mtok = 0.1 }},
    {{ id = "able", input_usd_per_mtok = 0.2, output_usd_per_mtok = 0.2 }},
]
""")
    plain: dict[str, Any] = {"model": "simulated/plain", "timeout": 30}

    async with (
        house.workers(fleet, ["front"], ["backend:all"]),
        house.events("optimizer.error.#") as events,
        house.agent("one") as one,
        house.agent("two") as two,
    ):
        offer(simulator, lacks=("tools",))
        first = await one.chat("What is new?", tools=TOOLS, timeout=30)
        assert (first.model, first.attempts) == ("able", 2)  # its error is no end while another may do
        await one.chat("Known", **plain, logprobs=True)
        offer(simulator, lacks=("tools", "logprobs"))
        await until(lambda: is_refused_at_once(two, simulator, **plain, logprobs=True))

        calls = len(simulator.ledger())
        elsewhere = await two.chat("And what is next?", tools=TOOLS, timeout=30)
        without = await two.chat("And what is next?", timeout=30)
        stored = await two.chat("Known", **plain, logprobs=True)
        with pytest.raises(InvalidRequest, match="tools: simulated/plain lacks it; learned at ") as told:
            await two.chat("Only there", **plain, tools=TOOLS)

        assert (elsewhere.model, elsewhere.attempts, without.model) == ("able", 1, "plain")
        assert stored.source == "cache"  # no call is needed for it
        assert [call.model for call in simulator.ledger()[calls:]] == ["able", "plain"]
        assert "'tools' is not supported with this model" in str(told.value)
        assert (told.value.retryable, told.value.provider_status) == (False, 400)
        learned = events[0].model_dump()
        assert (learned["type"], learned["model"]) == ("optimizer.error.learned", "plain")
        assert (learned["feature"], learned["error"]) == ("tools", "invalid_request")

        offer(simulator, lacks=())
        tried = await one.chat("Again", **plain, tools=TOOLS, cache="refresh")
        assert tried.source == "provider"
        await until(lambda: is_answered(two, **plain, tools=TOOLS))


def offer(simulator: SimulatorProcess, lacks: tuple[str, ...]) -> None:
    models = (Model(id="plain", lacks=lacks), Model(id="able"))
    simulator.change(models=[model.model_dump() for model in models])


async def is_refused_at_once(agent: AsyncOptimizer, simulator: SimulatorProcess, **params: Any) -> bool:
    """Whether the fronts know by now what a pool has learned."""
    calls = len(simulator.ledger())
    with pytest.raises(InvalidRequest):
        await agent.chat("Try", cache="off", **params)
    return len(simulator.ledger()) == calls


async def is_answered(agent: AsyncOptimizer, **params: Any) -> bool:
    """Whether the fronts know by now that it works."""
    try:
        return (await agent.chat("More", **params)).status == "ok"
    except InvalidRequest:
        return False
