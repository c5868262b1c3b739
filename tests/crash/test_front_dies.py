"""A front dies: nothing is lost, and nothing is bought twice."""

import pytest

from producer_sdk import DeadlineExceeded
from sandbox.simulator import SimulatorProcess
from tests.crash.scene import JOBS, POOL, scene
from tests.support.house import House, echo_of
from tests.support.waiting import until


@pytest.mark.parametrize("point", ["front.before_admit", "front.after_admit", "front.after_publish"])
async def test_a_front_that_dies_before_its_publish_is_confirmed_is_followed_by_one_that_leads_again(
    house: House, simulator: SimulatorProcess, point: str
) -> None:
    async with scene(house, simulator) as s:
        await s.nursery.start(POOL)
        victim = await s.nursery.start("front")
        await victim.arm(point)
        asked = s.ask("Once")
        await s.dies_at(victim)
        await s.nursery.start("front")
        assert (await asked).text.startswith(echo_of("Once"))
        await s.ends_with(calls=1)


async def test_a_leader_whose_deadline_passed_while_no_front_lived_leaves_the_lead_to_the_next(
    house: House, simulator: SimulatorProcess
) -> None:
    async with scene(house, simulator) as s, house.agent("next") as other:
        await s.nursery.start(POOL)
        victim = await s.nursery.start("front")
        await victim.arm("front.after_admit")
        asked = s.ask("Too late", timeout=1.5)
        await s.dies_at(victim)
        with pytest.raises(DeadlineExceeded):
            await asked
        await s.nursery.start("front", backoff_s=1.0)
        reply = await other.chat("Too late", timeout=30)
        assert reply.text.startswith(echo_of("Too late"))
        await s.ends_with(calls=1)


async def test_a_front_that_dies_after_the_confirm_leaves_two_jobs_of_which_one_runs(
    house: House, simulator: SimulatorProcess
) -> None:
    async with scene(house, simulator) as s:
        victim = await s.nursery.start("front")
        await victim.arm("front.after_confirm")
        asked = s.ask("Twice in the queue")
        await s.dies_at(victim)
        await s.nursery.start("front")

        async def two_jobs_wait() -> bool:
            return await house.depth(JOBS) == 2

        await until(two_jobs_wait)
        await s.nursery.start(POOL)
        assert (await asked).text.startswith(echo_of("Twice in the queue"))
        await s.ends_with(calls=1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("point", ["front.before_reply", "front.after_reply", "front.after_settle"])
async def test_a_front_that_dies_around_its_reply_to_a_request_sent_again_costs_nothing(
    house: House, simulator: SimulatorProcess, point: str
) -> None:
    async with scene(house, simulator) as s:
        backend = await s.nursery.start(POOL)
        victim = await s.nursery.start("front")
        await backend.arm("backend.after_commit")
        await victim.arm(point)
        asked = s.ask("Known")
        await s.dies_at(backend)
        await s.dies_at(victim)  # which the request has reached again meanwhile: the answer is there
        await s.nursery.start("front", POOL)
        reply = await asked
        assert (reply.source, reply.text[:21]) == ("provider", echo_of("Known"))
        await s.ends_with(calls=1)
