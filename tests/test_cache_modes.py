"""What a request may share: design section 7."""

import asyncio

from sandbox.simulator import Latency, SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until


async def test_a_repeated_request_is_answered_from_the_cache(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.agent("a") as first, house.agent("b") as second:
        bought = await first.chat("Once", temperature=0.7)
        again = await second.chat("Once", temperature=0.7)

    assert (bought.source, again.source) == ("provider", "cache")
    assert again.text == bought.text
    assert (again.cost_usd, again.usage) == (0.0, bought.usage)
    assert len(simulator.ledger()) == 1


async def test_refresh_ignores_a_stored_answer_and_stores_its_own(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.agent() as optimizer:
        await optimizer.chat("News")
        fresh = await optimizer.chat("News", cache="refresh")
        after = await optimizer.chat("News")

    assert (fresh.source, after.source) == ("provider", "cache")
    assert after.body == fresh.body
    assert len(simulator.ledger()) == 2


async def test_refresh_joins_a_call_that_is_running(house: House, simulator: SimulatorProcess) -> None:
    simulator.change(latency=Latency(median_s=0.5).model_dump())
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.agent() as optimizer:
        replies = await asyncio.gather(
            *(optimizer.chat("News", cache="refresh") for _ in range(5)),
            optimizer.chat("News"),
        )

    assert sorted(reply.source or "" for reply in replies) == ["dedupe"] * 5 + ["provider"]
    assert len(simulator.ledger()) == 1


async def test_join_shares_what_runs_or_has_just_finished_and_nothing_stored(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, cache="dedupe_window_s = 0.5")

    async with house.workers(fleet), house.agent() as optimizer:
        await optimizer.chat("Roll")
        just_after = await optimizer.chat("Roll", cache="join")

        async def is_bought_anew() -> bool:
            return (await optimizer.chat("Roll", cache="join")).source == "provider"

        await until(is_bought_anew)  # the window has passed, although the answer is stored for long
        still_stored = await optimizer.chat("Roll", cache="use")

    assert just_after.source == "dedupe"
    assert still_stored.source == "cache"
    assert len(simulator.ledger()) == 2


async def test_an_answer_bought_by_join_is_not_kept_for_others(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, cache="dedupe_window_s = 0.5")

    async with house.workers(fleet), house.agent() as optimizer:
        await optimizer.chat("Roll", cache="join")

        async def is_bought_anew() -> bool:
            return (await optimizer.chat("Roll")).source == "provider"

        await until(is_bought_anew)


async def test_off_makes_a_call_of_its_own_each_time(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.agent() as optimizer:
        await optimizer.chat("Dice")
        replies = await asyncio.gather(*(optimizer.chat("Dice", cache="off") for _ in range(5)))

    assert {reply.source for reply in replies} == {"provider"}
    assert len(simulator.ledger()) == 6


async def test_an_answer_can_be_kept_within_one_agent(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.agent("a") as first, house.agent("b") as second:
        await first.chat("Mine", cache_scope="agent")
        again = await first.chat("Mine", cache_scope="agent")
        others = await second.chat("Mine", cache_scope="agent")

    assert (again.source, others.source) == ("cache", "provider")


async def test_an_answer_older_than_asked_for_is_bought_again(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.agent() as optimizer:
        await optimizer.chat("Price")
        stored = await optimizer.chat("Price", cache_ttl_s=600)
        none_is_young_enough = await optimizer.chat("Price", cache_ttl_s=0)

    assert (stored.source, none_is_young_enough.source) == ("cache", "provider")


async def test_a_join_does_not_shorten_what_others_have_stored(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, cache="dedupe_window_s = 0.1")

    async with house.workers(fleet), house.agent() as optimizer:
        await optimizer.chat("Roll")

        async def is_bought_anew() -> bool:
            return (await optimizer.chat("Roll", cache="join")).source == "provider"

        await until(is_bought_anew)
        await until(is_bought_anew)  # each time, the window of the one before has passed
        stored = await optimizer.chat("Roll")

    assert stored.source == "cache"
