"""The undertaker is killed between any two of its steps: what it had in hand is answered all the same."""

import signal

import pytest

from broker.flights import Result
from sandbox.simulator import SimulatorProcess
from tests.faults.nursery import Nursery, nursery
from tests.support.dead import QUEUE, REQUESTS, Morgue, morgue
from tests.support.house import House
from tests.test_undertaker import OK
from topology import names

pytestmark = pytest.mark.long


async def answered(m: Morgue) -> None:
    """A flight with an answer that one waiter has not got."""
    job = m.job(m.waiter())
    await m.admit(job.waiter)
    terms = await m.claim(job)
    await m.flights.commit("f1", job.waiter, terms.token, m.now, Result(OK))


async def spent(m: Morgue) -> None:
    """A flight that was bought as often as it may be."""
    job = m.job(m.waiter())
    await m.admit(job.waiter)
    for worker in ("first", "second"):
        await m.claim(job, worker)
        await m.lapse()


@pytest.mark.parametrize("point", ["before_claim", "after_claim", "kept", "after_replies", "after_settle"])
async def test_whoever_is_owed_an_answer_gets_one(
    house: House, simulator: SimulatorProcess, point: str
) -> None:
    await house.declare(house.simulated(simulator.base_url))

    async with morgue(house) as m, nursery(house) as n:
        m.may_be_answered_again = point == "after_replies"  # served is who was settled
        await answered(m)
        await m.publish(m.job(m.waiter()).to_bytes(), QUEUE)
        await _die_at(n, m, point)
        await n.start("undertaker")
        reply = await m.is_answered()
        copies = [await m.kept() for _ in range(1 if point in {"before_claim", "after_claim"} else 2)]

    assert reply.status == "ok"
    assert len({copy.headers["x-id"] for copy in copies}) == 1  # made again, it is the same


@pytest.mark.parametrize("point", ["before_claim", "after_commit", "kept", "after_replies"])
async def test_all_are_told_of_a_spent_flight(house: House, simulator: SimulatorProcess, point: str) -> None:
    await house.declare(house.simulated(simulator.base_url))

    async with morgue(house) as m, nursery(house) as n:
        m.may_be_answered_again = point == "after_replies"
        await spent(m)
        await m.publish(m.job(m.waiter()).to_bytes(), QUEUE)
        await _die_at(n, m, point)
        await m.lapse()
        await n.start("undertaker")
        reply = await m.is_answered()

    assert reply.error is not None
    assert "2 calls ended without a known result" in reply.error.message


@pytest.mark.parametrize("point", ["before_claim", "after_claim", "kept", "parked"])
async def test_a_job_that_may_be_tried_again_is(
    house: House, simulator: SimulatorProcess, point: str
) -> None:
    await house.declare(house.simulated(simulator.base_url))

    async with morgue(house) as m, nursery(house) as n:
        job = m.job(m.waiter(left_s=20.0))
        await m.admit(job.waiter)
        await m.publish(job.to_bytes(), QUEUE)
        await _die_at(n, m, point)
        await n.start("undertaker", "backend:simulated")
        reply = await m.is_answered()

    assert reply.status == "ok"
    assert len(simulator.ledger()) == 1


@pytest.mark.parametrize("point", ["kept", "parked"])
async def test_a_request_comes_back_to_the_entrance(
    house: House, simulator: SimulatorProcess, point: str
) -> None:
    await house.declare(house.simulated(simulator.base_url))

    async with morgue(house) as m, nursery(house) as n:
        await m.ask(m.request(deadline=m.now + 20.0))
        await _die_at(n, m, point, REQUESTS)
        await n.start("undertaker", "front", "backend:simulated")
        reply = await m.is_answered()

    assert reply.status == "ok"
    assert len(simulator.ledger()) == 1
    assert await house.depth(names.DEAD_QUEUE) == 0


async def _die_at(n: Nursery, m: Morgue, point: str, queue: str = QUEUE) -> None:
    victim = await n.start("undertaker")
    await victim.arm(f"undertaker.{point}")
    await m.reject(queue)
    assert await victim.ended() == -signal.SIGKILL
