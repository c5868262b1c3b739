"""The undertaker and jobs: whatever a pool will never execute is answered, or comes back to one that will."""

import signal
from typing import Any

import pytest

from broker.flights import Result
from sandbox.simulator import Latency, SimulatorProcess
from tests.support.dead import QUEUE, SIMULATED, morgue
from tests.support.house import House
from tests.support.processes import start_worker, worker_processes
from tests.support.waiting import until
from topology import names
from topology.errors import ErrorType
from topology.messages import Candidate, Outcome, Usage

GONE = Candidate(provider="gone", model="sim-small")
OK = Outcome(status="ok", body={"choices": []}, provider="simulated", model="sim-small", usage=Usage())
TIER_S = 20.0
"""Time that leaves room for the tier of 5 s and no longer one."""


async def test_a_job_that_used_up_its_hand_outs_comes_back_to_its_queue_and_is_answered(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        await m.limit_hand_outs(r"^jobs\.", 1)
        job = m.job(m.waiter(left_s=TIER_S))
        await m.admit(job.waiter)
        await m.publish(job.to_bytes(), correlation_id="r1")
        for _ in range(2):  # as often as workers would have died of it
            await (await m.next_of(QUEUE)).reject(requeue=True)
        copy = await m.kept()
        async with house.workers(fleet, ["backend:all"]):
            reply = await m.is_answered()

    assert reply.status == "ok"  # on 3.10 its headers, had they been copied, would have ended it in the tier
    assert copy.body == job.to_bytes()
    assert "jobs.simulated.any.normal: it was handed out as often as" in copy.reason
    assert "bought 0 times, and nobody runs it: back to its queue in 5 s" in copy.reason


async def test_what_is_told_of_a_dead_job_to_people_and_to_programs(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with (
        morgue(house) as m,
        house.events("optimizer.dead") as events,
        house.workers(fleet, ["undertaker"]),
    ):
        job = m.job(m.waiter())
        await m.admit(job.waiter)
        await m.publish(job.to_bytes(), correlation_id="r1")
        await m.reject(QUEUE)
        copy = await m.kept()
        await until(lambda: bool(events))

    [event] = events
    headers = copy.headers
    assert (headers["x-agent"], headers["x-request-id"]) == ("tester", "r1")
    assert (headers["x-queue"], headers["x-deaths"]) == (QUEUE, 1)
    assert m.now - 1.0 <= headers["x-kept-at"] <= m.now + 60.0  # whole seconds
    fields = event.model_dump()
    assert (event.agent, event.request_id, fields["flight"]) == ("tester", "r1", "f1")
    assert (fields["kept"], fields["queue"], fields["became"]) == (headers["x-id"], QUEUE, "parked")
    assert fields["reason"] == copy.reason
    assert "hello" not in str(fields)


async def test_whoever_was_not_told_of_an_answer_is_told(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        job = m.job(m.waiter())
        await m.admit(job.waiter, m.waiter("r2"))
        terms = await m.claim(job)
        await m.flights.commit("f1", job.waiter, terms.token, m.now, Result(OK))  # and then its worker died
        await m.publish(job.to_bytes())
        await m.reject(QUEUE)
        replies = [await m.is_answered(), await m.is_answered("r2")]
        copy = await m.kept()

    assert [reply.status for reply in replies] == ["ok", "ok"]
    assert "its answer is there" in copy.reason


async def test_a_copy_of_a_job_that_is_running_ends_nothing(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(latency=Latency(median_s=3.0).model_dump())
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["backend:all"], ["undertaker"]):
        job = m.job(m.waiter())
        await m.admit(job.waiter)
        await m.publish(job.to_bytes())
        await until(lambda: simulator.ledger() != [])
        await m.publish(job.to_bytes(), key="jobs.deleted.any.batch")
        copy = await m.kept()
        reply = await m.is_answered()

    assert "its call is running, so it waits" in copy.reason
    assert reply.status == "ok"
    assert len(simulator.ledger()) == 1


async def test_a_job_of_a_flight_that_this_very_process_runs_waits_too(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(latency=Latency(median_s=3.0).model_dump())
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["backend:all", "undertaker"]):
        job = m.job(m.waiter())
        await m.admit(job.waiter)
        await m.publish(job.to_bytes())
        await until(lambda: simulator.ledger() != [])
        await m.publish(job.to_bytes(), key="jobs.deleted.any.batch")
        copy = await m.kept()
        reply = await m.is_answered()

    assert "its call is running, so it waits" in copy.reason
    assert reply.status == "ok"


async def test_a_flight_that_was_bought_as_often_as_it_may_be_ends_in_an_error_for_all(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with (
        morgue(house) as m,
        house.events("optimizer.spend.doubtful") as doubts,
        house.workers(fleet, ["undertaker"]),
    ):
        job = m.job(m.waiter())
        await m.admit(job.waiter, m.waiter("r2"))
        for worker in ("first", "second"):
            await m.claim(job, worker)
            await m.lapse()
        await m.publish(job.to_bytes())
        await m.reject(QUEUE)
        replies = [await m.is_answered(), await m.is_answered("r2")]
        copy = await m.kept()
        await until(lambda: len(doubts) == 2)

    for reply in replies:
        assert reply.error is not None
        assert reply.error.type is ErrorType.PROVIDER_ERROR
        assert "simulated/sim-small: 2 calls ended without a known result" in reply.error.message
    assert "bought 2 times without a known end" in copy.reason
    assert [doubt.model_dump()["call"] for doubt in doubts] == ["f1-token-of-first", "f1-token-of-second"]


async def test_a_job_that_kills_its_workers_is_bought_max_spends_times_and_told_to_all_who_wait(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    house = own_redis
    simulator.change(latency=Latency(median_s=60.0).model_dump())
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)
    config = house.folder / "fleet.toml"

    async with morgue(house) as m, worker_processes(house, config, ["undertaker"]):
        await m.limit_hand_outs(r"^jobs\.", 0)
        job = m.job(m.waiter(left_s=90.0))
        await m.admit(job.waiter, m.waiter("r2", left_s=90.0))
        await m.publish(job.to_bytes())
        for calls in (1, 2):
            worker = await start_worker(house, config, "backend:simulated")
            await until(lambda calls=calls: len(simulator.ledger()) == calls, 90)  # type: ignore[misc]
            worker.signal(signal.SIGKILL)  # handed out once too often: the broker gives the job up
            await worker.ended()
            assert "its call is running" in (await m.kept()).reason  # as far as its lease tells
            await m.lapse()
        await m.reject(QUEUE)  # where it came back to; nobody is left there
        replies = [await m.is_answered(), await m.is_answered("r2")]
        assert "bought 2 times without a known end" in (await m.kept()).reason

    assert {reply.error.type for reply in replies if reply.error} == {ErrorType.PROVIDER_ERROR}
    assert len(simulator.ledger()) == 2


async def test_a_job_that_nobody_waits_for_is_only_kept(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        await m.publish(m.job(m.waiter(left_s=-5.0)).to_bytes())
        await m.reject(QUEUE)
        copy = await m.kept()

    assert "nobody waits for it any more" in copy.reason
    assert m.replies == {}
    assert await house.depth(names.DEAD_QUEUE) == 0


@pytest.mark.parametrize("route", [(GONE,), (GONE, SIMULATED)])
async def test_a_job_for_a_provider_that_is_gone_takes_a_fresh_route(
    house: House, simulator: SimulatorProcess, route: tuple[Candidate, ...]
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["front", "backend:all", "undertaker"]):
        job = m.job(m.waiter(), *route)
        await m.admit(job.waiter)
        await m.publish(job.to_bytes(), key="jobs.gone.any.normal")
        reply = await m.is_answered()
        copy = await m.kept()

    assert reply.status == "ok"
    assert "jobs.gone.any.normal: there is no such queue" in copy.reason
    assert "back to the entrance" in copy.reason


async def test_a_job_whose_queue_was_deleted_while_it_was_parked_is_answered(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["front", "undertaker"]):
        job = m.job(m.waiter())
        await m.admit(job.waiter)
        await m.publish(job.to_bytes(), exchange=names.RetryTier.ONE_SECOND.exchange)
        await m.channel.queue_delete(QUEUE)
        copy = await m.kept()
        await house.declare(fleet)
        async with house.workers(fleet, ["backend:all"]):
            reply = await m.is_answered()

    assert "there is no such queue" in copy.reason
    assert reply.status == "ok"


@pytest.mark.parametrize(
    ("body", "key", "exchange", "says"),
    [
        (b"noise", QUEUE, names.JOBS, "job: the body is not msgpack"),
        (b"noise", QUEUE, "", "jobs are believed from optimizer.jobs alone"),
        (b"noise", "nowhere", names.JOBS, "nowhere: there is no such queue"),
        (b"noise", "jobs.nobody.any.normal", names.JOBS, "job: the body is not msgpack"),
    ],
)
async def test_what_cannot_be_read_is_kept_with_the_reason(
    house: House, simulator: SimulatorProcess, body: bytes, key: str, exchange: str, says: str
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        await m.publish(body, key, exchange)
        if key == QUEUE:
            await m.reject(QUEUE)
        copy = await m.kept()

    assert says in copy.reason
    assert (copy.body, copy.headers["x-queue"]) == (body, key)


@pytest.mark.parametrize(
    "x_death",
    [
        None,
        [],
        ["text"],
        [{}],
        [{"queue": QUEUE}],
        [{"queue": 5, "reason": 5, "exchange": 5, "count": "many"}],
    ],
)
async def test_what_comes_past_every_queue_is_kept(
    house: House, simulator: SimulatorProcess, x_death: Any
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        headers = {} if x_death is None else {"x-death": x_death}
        await m.publish(m.job(m.waiter()).to_bytes(), exchange=names.DEAD, headers=headers)
        copy = await m.kept()

    assert "published to optimizer.dead itself" in copy.reason
    assert m.replies == {}


async def test_a_message_that_kills_the_undertaker_ends_with_the_copies_for_people(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m:
        await m.publish(b"deadly", exchange=names.DEAD, key="")
        for _ in range(101):
            await (await m.next_of(names.DEAD_QUEUE)).reject(requeue=True)
        message = await m.next_of(names.DEAD_KEPT_QUEUE)

    assert message.body == b"deadly"
