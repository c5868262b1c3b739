"""The undertaker and requests: those that no front will ever admit are put back, or answered."""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from sandbox.simulator import SimulatorProcess
from tests.support.dead import REQUESTS, Kept, Morgue, envelope, morgue
from tests.support.house import House
from tests.support.proxy import proxy_to
from topology import names
from topology.errors import ErrorType
from topology.messages import Cancel, Job

TIER_S = 20.0
"""Time that leaves room for the tier of 5 s and no longer one."""


async def dead(m: Morgue) -> Kept:
    await m.reject(REQUESTS)
    return await m.kept()


async def test_a_request_that_no_front_got_through_with_comes_back_to_the_entrance(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        await m.ask(m.request(deadline=m.now + TIER_S))
        copy = await dead(m)
        async with house.workers(fleet):
            reply = await m.is_answered()

    assert reply.status == "ok"
    assert "back to the entrance in 5 s" in copy.reason
    assert (copy.headers["x-agent"], copy.headers["x-request-id"]) == ("tester", "r1")


async def test_so_does_one_that_has_been_round_inside(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        await m.publish(envelope(m.request(), m.waiter(left_s=TIER_S)), REQUESTS)
        copy = await dead(m)
        async with house.workers(fleet):
            reply = await m.is_answered()

    assert reply.status == "ok"
    assert copy.headers["x-agent"] == "tester"


@pytest.mark.parametrize("inside", [True, False])
async def test_one_whose_deadline_is_past_is_told_so(
    house: House, simulator: SimulatorProcess, inside: bool
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        if inside:
            await m.publish(envelope(m.request(), m.waiter(left_s=-5.0)), REQUESTS)
        else:
            await m.ask(m.request(deadline=m.now - 5.0))
        copy = await dead(m)
        reply = await m.is_answered()

    assert reply.error is not None
    assert reply.error.type is ErrorType.DEADLINE_EXCEEDED
    assert "its sender is told deadline_exceeded" in copy.reason


async def test_one_that_nobody_could_route_is_told_what_a_front_would_have_said(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        await m.ask(m.request(model="nobody/has-this"))
        await dead(m)
        reply = await m.is_answered()

    assert reply.error is not None
    assert reply.error.type is ErrorType.NO_MODEL_AVAILABLE


async def test_one_that_its_sender_let_expire_is_told_what_to_use_instead(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        await m.ask(m.request(), expiration=0.001)
        reply = await m.is_answered()
        copy = await m.kept()

    assert reply.error is not None
    assert reply.error.type is ErrorType.DEADLINE_EXCEEDED
    assert "expiration" in reply.error.message
    assert "`deadline`" in reply.error.message
    assert "its time to live ran out there" in copy.reason


async def test_a_cancel_that_died_is_carried_out(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        await m.admit(m.waiter())
        body = Cancel(id="r1").to_bytes()
        await m.publish(body, "normal.tester", names.REQUESTS, type=names.CANCEL_TYPE)
        copy = await dead(m)
        await house_is_empty(m)
        left = await m.flights.waiters("f1")

    assert "it calls a request off, and that is done" in copy.reason
    assert left == []


async def house_is_empty(m: Morgue) -> None:
    """The undertaker has nothing in its hands: what it takes later is behind what it took before."""
    await m.publish(b"the last", "", names.DEAD)
    while (await m.kept()).body != b"the last":
        pass


@pytest.mark.parametrize("headers", [{}, {"x-death": "x"}, {"x-death": [{"count": -5}], "x-reason": 7}])
@pytest.mark.parametrize("key", ["normal.tester", "normal.Not An Agent"])
async def test_what_cannot_be_read_and_has_no_sender_is_kept(
    house: House, simulator: SimulatorProcess, headers: dict[str, Any], key: str
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]) as [worker]:
        await m.publish(b"\xc1noise", key, names.REQUESTS, headers=headers)
        copy = await dead(m)
        assert not worker.done()

    assert copy.body == b"\xc1noise"
    assert copy.headers["x-queue"] == REQUESTS


async def test_nobody_speaks_for_another_by_forging_how_a_message_died(
    house: House, simulator: SimulatorProcess
) -> None:
    """RabbitMQ adds to an `x-death` that a sender put in: its first entry then says what the sender likes."""
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)
    forged = [{"queue": REQUESTS, "reason": "expired", "exchange": names.JOBS, "count": 1}]

    async with morgue(house) as m, house.workers(fleet, ["undertaker"]):
        victim = m.waiter("r2", agent="victim")
        body = envelope(m.request("r2", agent="victim"), victim)
        properties = {"correlation_id": "r1", "reply_to": m.waiter().reply_to, "expiration": 0.0}
        await m.publish(body, "normal.tester", names.REQUESTS, headers={"x-death": forged}, **properties)
        reply = await m.is_answered()

    assert reply.error is not None  # to the one who spoke
    assert set(m.replies) == {"r1"}
    assert simulator.ledger() == []


async def test_while_redis_is_away_the_dead_wait(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)
    redis = urlsplit(house.redis_url)

    async with morgue(house) as m, proxy_to(redis.hostname or "", redis.port or 6379) as proxy:
        house.redis_url = urlunsplit(redis._replace(netloc=f"127.0.0.1:{proxy.port}"))
        async with house.workers(fleet, ["undertaker"]):
            job = m.job(m.waiter())
            await m.admit(job.waiter)
            proxy.cut()
            await m.publish(job.to_bytes(), "jobs.gone.any.normal")
            await m.publish(m.request().to_bytes(), "", names.DEAD)
            assert (
                "published to optimizer.dead itself" in (await m.kept()).reason
            )  # behind the job, before it
            proxy.restore()
            copy = await m.kept()
            back = await m.next_of(REQUESTS)
            await back.ack()

    assert "back to the entrance" in copy.reason
    assert Job.from_bytes(copy.body) == job
