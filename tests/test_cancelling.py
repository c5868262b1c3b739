"""What nobody wants any more is not bought, and whoever else waits for it gets it all the same."""

import asyncio

import pytest
from redis.asyncio import Redis

from broker.flights import Flights
from producer_sdk import AsyncOptimizer, OptimizerError, Reply
from producer_sdk.errors import Cancelled
from sandbox.simulator import Latency, SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until
from tests.test_bad_input import line_to, request
from topology import names
from topology.messages import Cancel, Event
from topology.names import Priority

JOBS = names.jobs_queue("simulated", "any", Priority.NORMAL)
FRONT, BACKEND = ["front"], ["backend:all"]


def slow(simulator: SimulatorProcess, seconds: float) -> None:
    simulator.change(latency=Latency(median_s=seconds).model_dump())


def ask(agent: AsyncOptimizer, id_: str, prompt: str = "Shared") -> "asyncio.Task[Reply]":
    return asyncio.create_task(agent.chat(prompt, request_id=id_, timeout=90))


async def ended(asked: "asyncio.Task[Reply]") -> OptimizerError:
    with pytest.raises(OptimizerError) as caught:
        await asked
    return caught.value


async def queued(house: House, count: int = 1) -> None:
    async def are_there() -> bool:
        return await house.depth(JOBS) == count

    await until(are_there)


async def called_off(seen: list[Event], id_: str) -> None:
    """Waits until a front has settled it."""
    await until(lambda: any(e.type == "optimizer.error" and e.request_id == id_ for e in seen))


def events_of(seen: list[Event], type_: str) -> list[dict[str, object]]:
    return [event.model_dump() for event in seen if event.type == type_]


# queued ------------------------------------------------------------------------------------------


async def test_a_request_that_is_called_off_in_its_queue_costs_no_call(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet, FRONT), house.agent() as agent, house.events() as seen:
        asked = ask(agent, "r1")
        await queued(house)
        assert agent.cancel("r1")
        assert isinstance(await ended(asked), Cancelled)
        await called_off(seen, "r1")
        async with house.workers(fleet, BACKEND):
            await queued(house, 0)
            again = await agent.chat("Shared", timeout=90)

    assert again.source == "provider"
    assert [call.request_id for call in simulator.ledger()] == [again.id]
    [error] = events_of(seen, "optimizer.error")
    assert (error["error"], error["agent"]) == ("cancelled", "tester")
    completed = {e["request_id"]: e["status"] for e in events_of(seen, "optimizer.request.completed")}
    assert completed["r1"] == "error"


async def test_a_timeout_around_a_call_withdraws_it(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)
    timer = asyncio.timeout(None)

    async def impatient(agent: AsyncOptimizer) -> None:
        async with timer:
            await agent.chat("Shared", request_id="r1", timeout=90)

    async with house.workers(fleet, FRONT), house.agent() as agent, house.events() as seen:
        asked = asyncio.create_task(impatient(agent))
        await queued(house)
        timer.reschedule(asyncio.get_running_loop().time())
        with pytest.raises(TimeoutError):
            await asked
        await called_off(seen, "r1")
        async with house.workers(fleet, BACKEND):
            await agent.chat("Another", timeout=90)

    assert len(simulator.ledger()) == 1


# running -----------------------------------------------------------------------------------------


async def test_a_running_call_that_nobody_wants_is_cut_at_once_and_its_place_is_free(
    house: House, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.claimed_calls.RENEW_EVERY_S", 3600.0)  # whoever is not told never finds out
    slow(simulator, 600.0)
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet, FRONT, BACKEND), house.agent() as agent, house.events() as seen:
        asked = ask(agent, "r1")
        await until(lambda: len(simulator.ledger()) == 1)
        agent.cancel("r1")
        assert isinstance(await ended(asked), Cancelled)
        await until(lambda: simulator.ledger()[0].outcome == "client_gone")
        await no_leases(house)
        slow(simulator, 0.0)
        again = await agent.chat("Shared", timeout=90)
        await until(lambda: bool(events_of(seen, "optimizer.spend.doubtful")))

    assert (again.status, again.source) == ("ok", "provider")
    assert [call.outcome for call in simulator.ledger()] == ["client_gone", "ok"]
    [doubtful] = events_of(seen, "optimizer.spend.doubtful")
    assert (doubtful["reason"], doubtful["called_for"], doubtful["model"]) == ("cancelled", "r1", "sim-small")
    [failed] = events_of(seen, "optimizer.call.failed")
    assert (failed["kind"], failed["error"], failed["status"]) == ("cancelled", "cancelled", None)


async def no_leases(house: House) -> None:
    async with Redis.from_url(house.redis_url) as redis:
        prefix = Flights(redis, house.prefix).prefix

        async def are_free() -> bool:
            return not await redis.zcard(f"{prefix}lease:simulated")

        await until(are_free)


async def test_a_worker_that_was_not_told_finds_out_when_it_renews(
    house: House, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.claimed_calls.RENEW_EVERY_S", 0.1)
    slow(simulator, 600.0)
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet, FRONT, BACKEND), house.agent() as agent:
        asked = ask(agent, "r1")
        await until(lambda: len(simulator.ledger()) == 1)
        async with Redis.from_url(house.redis_url) as redis:
            await Flights(redis, house.prefix).cancel(["tester/r1"])
        await until(lambda: simulator.ledger()[0].outcome == "client_gone")
        agent.cancel("r1")
        await ended(asked)
        await no_leases(house)


# shared ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gone", "stays"), [(1, 0), (0, 1)])
async def test_one_of_two_who_share_a_call_leaves_and_the_other_is_answered(
    house: House, simulator: SimulatorProcess, gone: int, stays: int
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet, FRONT), house.agent() as agent, house.events() as seen:
        ids = ["r1", "r2"]
        asked = [ask(agent, "r1")]
        await queued(house)
        asked.append(ask(agent, "r2"))
        await until(lambda: bool(events_of(seen, "optimizer.dedupe.joined")))
        agent.cancel(ids[gone])
        await ended(asked[gone])
        await called_off(seen, ids[gone])
        async with house.workers(fleet, BACKEND):
            reply = await asked[stays]

    assert (reply.status, reply.source) == ("ok", "provider")
    assert [call.outcome for call in simulator.ledger()] == ["ok"]


# out of order ------------------------------------------------------------------------------------


async def test_a_request_that_comes_after_its_cancel_is_not_bought(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), line_to(house) as line:
        await line.say(Cancel(id="r1").to_bytes(), reply_to=None, type=names.CANCEL_TYPE)
        await line.say(request())
        await until(lambda: bool(line.replies))

    [reply] = line.replies
    assert reply.error is not None
    assert (reply.error.type, reply.error.retryable) == ("cancelled", False)
    assert simulator.ledger() == []


async def test_asking_again_under_an_id_that_was_called_off_is_told_so(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet, FRONT), house.agent() as agent, house.events() as seen:
        asked = ask(agent, "r1")
        await queued(house)
        agent.cancel("r1")
        await ended(asked)
        await called_off(seen, "r1")
        error = await ended(ask(agent, "r1"))

    assert isinstance(error, Cancelled)
    assert "ask again under another id" in error.message


async def test_a_cancel_of_what_was_answered_changes_nothing(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), line_to(house) as line, house.agent() as agent:
        await line.say(request())
        await until(lambda: bool(line.replies))
        await line.say(Cancel(id="r1").to_bytes(), reply_to=None, type=names.CANCEL_TYPE)
        again = await agent.chat("x", timeout=90)

    assert [reply.status for reply in line.replies] == ["ok"]
    assert again.source == "cache"


# who may -----------------------------------------------------------------------------------------


async def test_nobody_calls_off_the_request_of_another_agent(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    body = Cancel(id="r1").to_bytes()

    async with house.workers(fleet, FRONT), line_to(house) as line, house.agent() as agent:
        asked = ask(agent, "r1")
        await queued(house)
        told = {"reply_to": None, "type": names.CANCEL_TYPE}
        await line.say(body, "normal.intruder", **told)
        await line.say(body, "normal.tester", app_id="intruder", **told)
        kept = await line.kept()
        async with house.workers(fleet, BACKEND):
            reply = await asked

    assert "app_id: 'intruder' is not the agent of the routing key" in str(kept.headers["x-reason"])
    assert reply.status == "ok"


@pytest.mark.parametrize(
    ("body", "correlation_id", "says"),
    [
        (b"\xc1", "r1", "not msgpack"),
        (Cancel(id="r1").to_bytes(), "r2", "is not the message's correlation_id"),
    ],
)
async def test_a_cancel_that_cannot_be_read_is_kept_with_its_reason(
    house: House, simulator: SimulatorProcess, body: bytes, correlation_id: str, says: str
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), line_to(house) as line, house.agent() as agent:
        await line.say(body, reply_to=None, type=names.CANCEL_TYPE, correlation_id=correlation_id)
        kept = await line.kept()
        reply = await agent.chat("Still there?", timeout=90)

    assert says in str(kept.headers["x-reason"])
    assert reply.status == "ok"
