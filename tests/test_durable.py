"""Durable requests end to end: whatever is restarted, killed or flushed, the reply waits for its agent."""

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import aio_pika
import pytest
from redis import Redis

from producer_sdk import Cancelled, DeadlineExceeded, Reply, Submitted
from producer_sdk.supervision import Supervised
from producer_sdk.transport import Publisher
from sandbox.simulator import Latency, SimulatorProcess
from tests.support import house as houses
from tests.support.house import House, echo_of
from tests.support.processes import ROOT, start_worker, worker_processes
from tests.support.restarting import Restartable, restartable_rabbitmq
from tests.support.resting import at_rest
from tests.support.waiting import until
from topology import names
from topology.declaration import JOB_REPLY_QUEUE_ARGUMENTS
from topology.messages import Outcome, Waiter
from topology.names import Priority, RetryTier
from workers.events import Clock, Events
from workers.replies import Answer, Reached, Replies

JOBS = "jobs.simulated.any.normal"


@pytest.fixture
async def declared(house: House, simulator: SimulatorProcess) -> House:
    """A house with its queues, its fleet written down, and no worker yet."""
    await house.declare(house.simulated(simulator.base_url))
    return house


def flush(house: House) -> None:
    with Redis.from_url(house.redis_url) as redis:
        redis.flushdb()


async def bring_back(house: House, tier: RetryTier) -> None:
    """What the tier's time does: its one message returns to where it came from, now."""
    connection = await aio_pika.connect(house.amqp_url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.get_queue(tier.queue, ensure=False)
        jobs = await channel.get_exchange(names.JOBS, ensure=False)
        message = await queue.get(timeout=30)
        await jobs.publish(aio_pika.Message(message.body), message.routing_key or "")
        await message.ack()


async def remove_queue(house: House, job: Submitted) -> None:
    connection = await aio_pika.connect(house.amqp_url)
    async with connection:
        await (await connection.channel()).queue_delete(names.job_reply_queue(job.agent, job.id))


async def declare_queue(house: House, job: Submitted) -> None:
    connection = await aio_pika.connect(house.amqp_url)
    async with connection:
        await (await connection.channel()).declare_queue(
            names.job_reply_queue(job.agent, job.id), durable=True, arguments=dict(JOB_REPLY_QUEUE_ARGUMENTS)
        )


AGENT = """
import sys, time
from producer_sdk import Optimizer
optimizer = Optimizer("tester")
print(optimizer.submit(sys.argv[1]), flush=True)
time.sleep(3600)
"""
HEIR = """
import sys
from producer_sdk import Optimizer
with Optimizer("tester") as optimizer:
    print(optimizer.result(sys.argv[1], timeout=100).text)
"""


async def agent_process(house: House, code: str, argument: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, argument,
        cwd=ROOT, env=houses.test_environ(house), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_another_process_takes_the_result_of_one_that_was_killed(
    declared: House, simulator: SimulatorProcess
) -> None:
    agent = await agent_process(declared, AGENT, "Long work")
    assert agent.stdout is not None
    job_id = (await asyncio.wait_for(agent.stdout.readline(), 60)).decode().strip()
    agent.send_signal(signal.SIGKILL)
    await agent.wait()

    async with declared.workers(declared.simulated(simulator.base_url)):
        heir = await agent_process(declared, HEIR, job_id)
        out, _ = await asyncio.wait_for(heir.communicate(), 100)

    assert out.decode().startswith(echo_of("Long work"))
    assert len(simulator.ledger()) == 1


async def test_two_of_one_flight_are_answered_though_redis_is_emptied_and_every_worker_killed(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    simulator.change(latency=Latency(median_s=30.0).model_dump())
    await house.declare(house.simulated(simulator.base_url))
    config = house.folder / "fleet.toml"

    async with house.agent("first") as first, house.agent("second") as second:
        workers = [await start_worker(house, config, role) for role in ("front", "backend:simulated")]
        jobs = [await first.submit("The same")]
        await until(lambda: len(simulator.ledger()) == 1)
        jobs.append(await second.submit("The same"))
        await until(lambda: waiters(house) == 2)
        for worker in workers:
            worker.signal(signal.SIGKILL)
            await worker.ended()
        flush(house)
        simulator.change(latency=Latency(median_s=0.05).model_dump())
        async with worker_processes(house, config, ["front"], ["backend:simulated"]):
            replies = [await first.result(jobs[0], timeout=100), await second.result(jobs[1], timeout=100)]

    assert {reply.text[:21] for reply in replies} == {echo_of("The same")}
    assert len(simulator.ledger()) == 2  # the first was cut off by the kill


def waiters(house: House) -> int:
    """Of the one flight there is."""
    with Redis.from_url(house.redis_url) as redis:
        return sum(redis.hlen(key) for key in redis.scan_iter("*waiters:*"))


async def test_redis_is_emptied_while_the_job_waits(declared: House, simulator: SimulatorProcess) -> None:
    fleet = declared.simulated(simulator.base_url)
    async with declared.agent() as optimizer:
        async with declared.workers(fleet, ["front"]):
            job = await optimizer.submit("Patience")
            await until(lambda: is_deep(declared, JOBS, 1))
        flush(declared)
        async with declared.workers(fleet, ["backend:all"]):
            reply = await optimizer.result(job, timeout=60)

    assert reply.text.startswith(echo_of("Patience"))


async def is_deep(house: House, queue: str, messages: int) -> bool:
    return await house.depth(queue) == messages


async def test_redis_is_emptied_while_it_waits_for_its_agents_rate(
    declared: House, simulator: SimulatorProcess
) -> None:
    fleet = declared.simulated(simulator.base_url, fleet="agent_requests_per_minute = 1")
    async with declared.agent() as optimizer, declared.workers(fleet):
        jobs = [await optimizer.submit("One")]
        replies = [await optimizer.result(jobs[0], timeout=60)]
        jobs.append(await optimizer.submit("Two"))
        await until(lambda: is_deep(declared, RetryTier.HALF_A_MINUTE.queue, 1))
        flush(declared)
        await bring_back(declared, RetryTier.HALF_A_MINUTE)
        replies.append(await optimizer.result(jobs[1], timeout=60))

    assert [reply.text[:21] for reply in replies] == [echo_of("One"), echo_of("Two")]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restartable]:
    with restartable_rabbitmq(tmp_path_factory.mktemp("node")) as node:
        yield node


async def test_rabbitmq_is_restarted_before_the_call_and_before_the_reply_is_taken(
    node: Restartable, house: House, simulator: SimulatorProcess
) -> None:
    house = replace(house, amqp_url=node.amqp_url, management_url=node.management_url, vhost="/")
    fleet = house.simulated(simulator.base_url)
    async with house.workers(fleet), house.agent() as optimizer:
        answered = await optimizer.submit("Answered before")
        await until(lambda: is_deep(house, names.job_reply_queue("tester", answered.id), 1))
    async with house.agent() as optimizer:
        waiting = await optimizer.submit("Answered after")
    await asyncio.to_thread(node.stop)
    await asyncio.to_thread(node.start)

    async with house.workers(fleet), house.agent() as optimizer:
        replies = [await optimizer.result(job, timeout=60) for job in (answered, waiting)]

    assert [reply.text[:21] for reply in replies] == [echo_of("Answered before"), echo_of("Answered after")]
    assert len(simulator.ledger()) == 2


@pytest.mark.parametrize("roles", [["front"], []])
async def test_a_deadline_that_passed_while_nobody_worked_is_told_once_somebody_does(
    declared: House, simulator: SimulatorProcess, roles: list[str]
) -> None:
    fleet = declared.simulated(simulator.base_url)
    async with declared.agent() as optimizer:
        job = await optimizer.submit("Too late", timeout=3.0)
        if roles:
            async with declared.workers(fleet, roles):
                await until(lambda: is_deep(declared, JOBS, 1))
        await until(lambda: time.time() > job.deadline + 1.0)
        async with declared.workers(fleet):
            with pytest.raises(DeadlineExceeded, match="deadline: it passed"):
                await optimizer.result(job.id, timeout=60)

    assert simulator.ledger() == []


async def test_a_served_id_that_is_submitted_again_is_answered_again_and_not_bought_again(
    declared: House, simulator: SimulatorProcess
) -> None:
    async with declared.workers(declared.simulated(simulator.base_url)), declared.agent() as optimizer:
        replies: list[Reply] = []
        for _ in range(2):
            job = await optimizer.submit("Once", request_id="once", cache="off")
            replies.append(await optimizer.result(job, timeout=60))

    assert replies[0].text == replies[1].text
    assert len(simulator.ledger()) == 1


async def test_one_that_is_called_off_is_not_bought_and_says_so(
    declared: House, simulator: SimulatorProcess
) -> None:
    fleet = declared.simulated(simulator.base_url)
    async with declared.agent() as optimizer:
        async with declared.workers(fleet, ["front"]):
            job = await optimizer.submit("Never mind")
            await until(lambda: is_deep(declared, JOBS, 1))
            assert optimizer.cancel(job)
            with pytest.raises(Cancelled, match="called it off"):
                await optimizer.result(job, timeout=60)
        async with declared.workers(fleet, ["backend:all"]):
            await until(lambda: is_deep(declared, JOBS, 0))

    assert simulator.ledger() == []


@pytest.fixture
def node_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that was removed passes for one whose node is down: that takes a cluster."""

    async def nobody_can_tell(_: Supervised, __: str) -> None:
        return None

    monkeypatch.setattr(Supervised, "has_queue", nobody_can_tell)


@pytest.mark.usefixtures("node_down")
async def test_a_reply_whose_queue_is_away_is_tried_again_later_and_not_bought_again(
    declared: House, simulator: SimulatorProcess
) -> None:
    fleet = declared.simulated(simulator.base_url)
    async with declared.agent() as optimizer:
        job = await optimizer.submit("Where are you", request_id="away")
        await remove_queue(declared, job)
        async with declared.workers(fleet):
            await until(lambda: is_deep(declared, RetryTier.FIVE_MINUTES.queue, 1))
            await declare_queue(declared, job)
            await bring_back(declared, RetryTier.FIVE_MINUTES)
            reply = await optimizer.result(job, timeout=60)
            assert await declared.depth(RetryTier.FIVE_MINUTES.queue) == 0

    assert reply.text.startswith(echo_of("Where are you"))
    assert len(simulator.ledger()) == 1


@pytest.mark.usefixtures("node_down")
async def test_a_hit_whose_queue_is_away_is_tried_again_later(
    declared: House, simulator: SimulatorProcess
) -> None:
    fleet = declared.simulated(simulator.base_url)
    async with declared.agent() as optimizer:
        async with declared.workers(fleet):
            await optimizer.chat("Known", timeout=60)
        job = await optimizer.submit("Known")
        await remove_queue(declared, job)
        async with declared.workers(fleet):
            await until(lambda: is_deep(declared, RetryTier.FIVE_MINUTES.queue, 1))
            await declare_queue(declared, job)
            await bring_back(declared, RetryTier.FIVE_MINUTES)
            reply = await optimizer.result(job, timeout=60)

    assert (reply.source, reply.text[:21]) == ("cache", echo_of("Known"))
    assert len(simulator.ledger()) == 1


async def test_a_reply_that_was_taken_is_not_tried_again_for_days(
    declared: House, simulator: SimulatorProcess
) -> None:
    fleet = declared.simulated(simulator.base_url)
    async with declared.agent() as optimizer:
        job = await optimizer.submit("Taken before its worker knew")
        await remove_queue(declared, job)
        async with declared.workers(fleet), declared.events("optimizer.call.completed") as completed:
            await until(lambda: len(completed) == 1)
            await at_rest(declared)


@pytest.mark.usefixtures("node_down")
@pytest.mark.parametrize(
    ("durable", "late_s", "reached"),
    [
        (True, -60.0, Reached.AWAY),
        (True, 6 * 86400.0, Reached.AWAY),
        (True, 8 * 86400.0, Reached.YES),
        (False, -60.0, Reached.YES),
    ],
)
async def test_a_queue_that_is_not_there_is_waited_for_until_it_has_expired(
    house: House, durable: bool, late_s: float, reached: Reached
) -> None:
    clock = Clock()
    clock.set(time.time())
    waiter = Waiter(
        agent="tester", id="r1", reply_to="reply.tester.job.r1", priority=Priority.NORMAL,
        deadline=time.time() - late_s, queued_at=time.time(), durable=durable,
    )  # fmt: skip
    async with Publisher(house.amqp_url, "test") as publisher:
        replies = Replies(publisher, Events(publisher, clock), clock)
        answer = Answer(waiter, Outcome(status="ok", body={}), None)

        assert await replies.send_all([answer]) == [reached]
        assert await replies.send([answer]) == [waiter]  # one bounded try
