"""compose.yaml for real: `make test-compose`. Needs a Docker engine with compose; builds the image.

The name keeps it out of `make test`: pytest collects a file that is no `test_*.py` only where it is named.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import httpx
import pytest

from console.event_monitor import EventTail
from producer_sdk import AsyncOptimizer, Reply
from tests.containers.stack import ROOT, Stack, health, running_stack, short_id
from tests.support.house import echo_of
from tests.support.waiting import until
from topology.declaration import declaration
from topology.events import EventType
from topology.loading import load_fleet
from topology.messages import Event

pytestmark = pytest.mark.timeout(900)

FLEET_FILE = ROOT / "examples/compose/fleet.toml"
BACKEND = "backend-simulated"
ENDS = "topology"  # the service that does its work and ends
GROQ_AT_THE_SIMULATOR = """
[providers.groq]
base_url = "http://simulator:8300/v1"
[[providers.groq.models]]
id = "sim-small"
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    with running_stack() as stack:
        yield stack


@pytest.fixture
async def stack(running: Stack) -> Stack:
    """Three healthy replicas, and a provider with an empty ledger that takes its time."""
    await running.scale(3)
    await until(lambda: [health(c) for c in running.containers(BACKEND)] == ["healthy"] * 3, 120)
    await until(lambda: {health(c) for c in running.containers("front")} == {"healthy"}, 120)
    running.simulate(latency={"median_s": 0.2})
    return running


@asynccontextmanager
async def events(stack: Stack, *types: EventType) -> AsyncIterator[list[Event]]:
    """The events of these types from now on, in a list that grows."""
    seen: list[Event] = []

    async def collect(tail: EventTail) -> None:
        async for event in tail:
            seen.append(event)  # noqa: PERF401 - it grows as they come

    async with EventTail(stack.amqp_url, [kind.value for kind in types]) as tail:
        assert await tail.wait_until_up(30)
        task = asyncio.create_task(collect(tail), name="collect events")
        yield seen
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Load:
    """Agents on the host that ask one thing after the other, no two alike, until told to stop."""

    def __init__(self, stack: Stack, title: str, agents: int = 48) -> None:
        self._stack = stack
        self._title = title
        self._agents = agents
        self._enough = asyncio.Event()
        self.replies: list[Reply] = []

    async def __aenter__(self) -> Self:
        self._optimizer = await AsyncOptimizer("host", url=self._stack.amqp_url).__aenter__()
        self._asking = asyncio.gather(*(self._ask(n) for n in range(self._agents)))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._enough.set()
        await self._asking
        await self._optimizer.__aexit__(None, None, None)

    async def _ask(self, agent: int) -> None:
        turn = 0
        while not self._enough.is_set():
            prompt = f"{self._title}: turn {turn} of agent {agent}"
            reply = await self._optimizer.chat(prompt, timeout=120)
            assert reply.text.startswith(echo_of(prompt))
            self.replies.append(reply)
            turn += 1


def assert_nothing_lost_nothing_paid_twice(stack: Stack, replies: list[Reply]) -> None:
    """Each request answered by a call of its own. Replicas that left have drained, so no call is in doubt."""
    assert {reply.source for reply in replies} == {"provider"}
    ledger = stack.summary()
    assert ledger["outcomes"] == {"ok": len(replies)}
    assert ledger["distinct_billed_prompts"] == len(replies)


def callers(seen: list[Event]) -> Counter[str]:
    """How many calls each worker has completed."""
    return Counter(str(e.model_dump()["worker"]) for e in seen if e.type == EventType.CALL_COMPLETED)


async def test_two_hundred_requests_from_the_host_are_answered_by_all_three_replicas(stack: Stack) -> None:
    replicas = {short_id(container) for container in stack.containers(BACKEND)}
    async with (
        events(stack, EventType.CALL_COMPLETED, EventType.WORKER_HEALTH) as seen,
        AsyncOptimizer("host", url=stack.amqp_url) as optimizer,
    ):
        prompts = [f"Request {n} of two hundred" for n in range(200)]
        replies = await asyncio.gather(*(optimizer.chat(prompt, timeout=120) for prompt in prompts))
        await until(lambda: callers(seen).total() == 200)
        hosts = {}
        for event in seen:
            if event.type == EventType.WORKER_HEALTH:
                hosts[event.model_dump()["worker"]] = event.model_dump()["host"]

    assert [reply.text.split()[0] for reply in replies] == [echo_of(prompt) for prompt in prompts]
    assert_nothing_lost_nothing_paid_twice(stack, replies)
    assert {hosts[worker] for worker in callers(seen)} == replicas
    assert all(any(replica in worker for worker in callers(seen)) for replica in replicas)


async def test_every_queue_of_the_design_stands_and_connections_tell_their_replica(stack: Stack) -> None:
    declared = declaration(load_fleet(FLEET_FILE, secrets=False))
    standing = {queue["name"]: queue["type"] for queue in stack.management("queues")}
    assert {queue.name: queue.type for queue in declared.queues}.items() <= standing.items()

    def named() -> list[str]:
        return [c["client_properties"].get("connection_name", "") for c in stack.management("connections")]

    replicas = [short_id(container) for container in stack.containers(BACKEND)]
    await until(lambda: all(sum(replica in name for name in named()) == 2 for replica in replicas))


async def test_the_containers_say_that_the_fleet_is_healthy_and_show_what_happens(stack: Stack) -> None:
    said = await asyncio.to_thread(stack.compose, "exec", "-T", "front", "optimizer", "health")
    assert said.strip() == "healthy"

    async with AsyncOptimizer("watched", url=stack.amqp_url) as optimizer:
        await optimizer.chat("What does the monitor show?", timeout=60)
    shown = re.compile(r"request\.completed +watched ")
    await until(lambda: shown.search(stack.compose("logs", "event-monitor")) is not None)


async def test_replicas_come_and_go_under_load_and_nothing_is_lost(stack: Stack) -> None:
    async with events(stack, EventType.CALL_COMPLETED) as seen:
        async with Load(stack, "scaling") as load:
            await until(lambda: len(callers(seen)) == 3)
            await stack.scale(1)
            await stack.scale(4)
            seen.clear()
            await until(lambda: len(callers(seen)) == 4, 120)
        assert_nothing_lost_nothing_paid_twice(stack, load.replies)


async def test_backends_that_are_stopped_finish_their_calls_and_exit_cleanly(stack: Stack) -> None:
    async with Load(stack, "stopping") as load:
        await until(lambda: len(load.replies) > 50)
        await asyncio.to_thread(stack.compose, "stop", BACKEND)
        assert [c["State"]["ExitCode"] for c in stack.containers(BACKEND)] == [0, 0, 0]
        await asyncio.to_thread(stack.compose, "start", BACKEND)
    assert_nothing_lost_nothing_paid_twice(stack, load.replies)


async def test_the_gateway_is_healthy_and_answers_a_client_on_the_host(stack: Stack) -> None:
    await until(lambda: [health(c) for c in stack.containers("gateway")] == ["healthy"], 120)
    asked = {"model": "auto", "messages": [{"role": "user", "content": "Through the gateway"}]}
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=60) as client:
        healthy = await client.get("/health")
        answer = await client.post("/v1/chat/completions", json=asked)
    assert (healthy.status_code, answer.status_code) == (200, 200)
    assert answer.json()["choices"][0]["message"]["content"].startswith(echo_of("Through the gateway"))


async def test_every_container_is_healthy_and_none_was_ever_restarted(stack: Stack) -> None:
    await until(
        lambda: {health(c) for c in stack.containers() if c["State"]["Status"] == "running"} == {"healthy"},
        120,
    )
    came_to = {
        c["Name"]: (c["State"]["Status"], c["State"]["ExitCode"], c["RestartCount"])
        for c in stack.containers()
    }
    assert came_to == {
        name: ("exited", 0, 0) if f"-{ENDS}-" in name else ("running", 0, 0) for name in came_to
    }


async def test_a_profile_runs_a_real_providers_pool_and_its_key_reaches_no_other_container(
    stack: Stack, tmp_path: Path
) -> None:
    # The last test, since another fleet makes new containers. Groq's address here is the simulator's.
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(FLEET_FILE.read_text("utf-8") + GROQ_AT_THE_SIMULATOR, "utf-8")
    given = {"OPTIMIZER_FLEET": str(fleet), "GROQ_API_KEY": "gsk-not-a-real-one"}
    await asyncio.to_thread(lambda: stack.up("--profile", "groq", environ=given))

    async with AsyncOptimizer("host", url=stack.amqp_url) as optimizer:
        reply = await optimizer.chat("Who answers?", model="groq/sim-small", timeout=120)
    assert (reply.provider, reply.model) == ("groq", "sim-small")

    with_key = {
        c["Config"]["Labels"]["com.docker.compose.service"]
        for c in stack.containers()
        if any("gsk-not-a-real-one" in line for line in c["Config"]["Env"])
    }
    assert with_key == {"backend-groq"}
