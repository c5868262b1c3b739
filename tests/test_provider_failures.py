"""What a provider can do to us, and what the caller sees of it."""

import asyncio

import pytest

from producer_sdk import (
    AuthenticationFailed,
    DeadlineExceeded,
    InvalidRequest,
    NoModelAvailable,
    ProviderError,
)
from sandbox.simulator import Account, Faults, Latency, Limit, SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until


@pytest.mark.parametrize("fault", ["server_error", "unavailable", "error_in_200"])
async def test_a_provider_in_trouble_is_asked_again(
    house: House, simulator: SimulatorProcess, fault: str
) -> None:
    simulator.change(script=[fault])
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.events() as events, house.agent() as optimizer:
        reply = await optimizer.chat("Try", timeout=60)
        await until(lambda: "optimizer.call.completed" in [e.type for e in events])

    assert (reply.status, reply.attempts) == ("ok", 2)
    assert [call.outcome for call in simulator.ledger()] == [fault, "ok"]
    types = [event.type for event in events]
    assert "optimizer.call.failed" in types
    assert "optimizer.retry" in types
    assert "optimizer.spend.doubtful" not in types


@pytest.mark.parametrize("fault", ["no_finish_reason", "cut", "malformed"])
async def test_an_answer_that_breaks_off_is_a_doubtful_spend_and_bought_once_more(
    house: House, simulator: SimulatorProcess, fault: str
) -> None:
    simulator.change(script=[fault])
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.events("optimizer.spend.#") as events, house.agent() as optimizer:
        reply = await optimizer.chat("Try", timeout=60)
        await until(lambda: bool(events))

    assert reply.attempts == 2
    assert [call.outcome for call in simulator.ledger()] == [fault, "ok"]
    [event] = events
    assert event.type == "optimizer.spend.doubtful"
    assert event.model_dump()["called_for"] == reply.id


async def test_doubtful_spends_are_bounded(house: House, simulator: SimulatorProcess) -> None:
    simulator.change(faults=Faults(cut=1.0).model_dump())
    fleet = house.simulated(simulator.base_url, fleet="max_spends = 2")

    async with house.workers(fleet), house.agent() as optimizer:
        with pytest.raises(ProviderError, match="2 calls ended without a known result"):
            await optimizer.chat("Never", timeout=120)

    assert len(simulator.ledger()) == 2


async def test_a_provider_that_never_answers_is_given_up_after_its_timeout(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(script=["timeout"])
    fleet = house.simulated(simulator.base_url, provider="timeout_s = 1")

    async with house.workers(fleet), house.agent() as optimizer:
        reply = await optimizer.chat("Slow", timeout=60)

    assert reply.attempts == 2


async def test_retry_after_is_honoured_and_costs_no_error(house: House, simulator: SimulatorProcess) -> None:
    simulator.change(limits=[Limit(requests=2, window_s=3).model_dump()])
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.events("optimizer.limit.#") as events, house.agent() as optimizer:
        replies = await asyncio.gather(*(optimizer.chat(f"Prompt {n}", timeout=60) for n in range(6)))
        await until(lambda: bool(events))

    assert {reply.status for reply in replies} == {"ok"}
    ledger = simulator.ledger()
    assert sum(call.outcome == "ok" for call in ledger) == 6
    refused = [call for call in ledger if call.outcome == "rate_limited"]
    # Told to stay away, nobody asks again before the time: each window refuses what was under way at most.
    assert len(refused) <= 3 * 6


async def test_a_limit_in_the_configuration_is_kept_without_a_single_429(
    house: House, simulator: SimulatorProcess
) -> None:
    limit = Limit(requests=3, window_s=2)
    simulator.change(limits=[limit.model_dump()])
    fleet = house.simulated(simulator.base_url, provider="limits = [{ requests = 3, window_s = 2 }]")

    async with house.workers(fleet, ["front", "backend:all"], ["backend:all"]), house.agent() as optimizer:
        replies = await asyncio.gather(*(optimizer.chat(f"Prompt {n}", timeout=60) for n in range(9)))

    assert {reply.status for reply in replies} == {"ok"}
    assert {call.outcome for call in simulator.ledger()} == {"ok"}


async def test_the_providers_concurrency_holds_over_replicas(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(latency=Latency(median_s=0.1).model_dump())
    fleet = house.simulated(simulator.base_url).model_copy()
    three = fleet.providers["simulated"].model_copy(update={"concurrency": 3})
    fleet = fleet.model_copy(update={"providers": {"simulated": three}})
    processes = (["front", "backend:all"], ["backend:all"], ["backend:all"], ["backend:all"])

    async with house.workers(fleet, *processes), house.agent() as optimizer:
        await asyncio.gather(*(optimizer.chat(f"Prompt {n}", timeout=60) for n in range(30)))

    assert simulator.summary().max_in_flight <= 3
    assert len(simulator.ledger()) == 30


async def test_a_refused_key_is_told_at_once_when_there_is_no_other(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(accounts=[Account(name="a", keys=["another-key"]).model_dump()])
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.events() as events, house.agent() as optimizer:
        with pytest.raises(AuthenticationFailed) as caught:
            await optimizer.chat("Who am I?", timeout=60)
        await until(lambda: "optimizer.key.disabled" in [e.type for e in events])

    assert caught.value.provider_status == 401
    assert "sk-simulated" not in str(caught.value)
    assert all("sk-simulated" not in repr(event) for event in events)


async def test_an_error_of_the_request_itself_is_final_and_shared(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(latency=Latency(median_s=0.3).model_dump())
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.agent() as optimizer:
        ended = await asyncio.gather(
            *(optimizer.chat([], timeout=60) for _ in range(5)), return_exceptions=True
        )

    assert {type(error) for error in ended} == {InvalidRequest}
    assert len(simulator.ledger()) <= 1


async def test_a_provider_that_cannot_be_reached_is_named_before_the_deadline(house: House) -> None:
    fleet = house.simulated("http://127.0.0.1:9/v1")

    async with house.workers(fleet), house.agent() as optimizer:
        with pytest.raises((ProviderError, DeadlineExceeded), match="simulated cannot be reached"):
            await optimizer.chat("Anybody?", timeout=8)


async def test_a_healthy_candidate_answers_for_one_in_trouble(
    house: House, simulator: SimulatorProcess
) -> None:
    text = f"""
[providers.dead]
base_url = "http://127.0.0.1:9/v1"
api_keys = ["env:SIMULATED_KEY"]
models = [{{ id = "sim-small", input_usd_per_mtok = 0.1, output_usd_per_mtok = 0.1 }}]
[providers.simulated]
base_url = "{simulator.base_url}"
api_keys = ["env:SIMULATED_KEY"]
models = [{{ id = "sim-small", input_usd_per_mtok = 0.2, output_usd_per_mtok = 0.2 }}]
"""
    fleet = house.fleet(text)

    async with house.workers(fleet), house.events("optimizer.failover") as events, house.agent() as optimizer:
        reply = await optimizer.chat("Anybody?", model="sim-small", timeout=30)
        await until(lambda: bool(events))

    assert (reply.provider, reply.attempts) == ("simulated", 2)
    assert events[0].model_dump()["to"] == "simulated"


async def test_a_model_that_its_provider_has_retired_costs_an_auto_request_no_error(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.fleet(f"""
[providers.simulated]
base_url = "{simulator.base_url}"
api_keys = ["env:SIMULATED_KEY"]
models = [
    {{ id = "retired", input_usd_per_mtok = 0.1, output_usd_per_mtok = 0.1 }},
    {{ id = "sim-small", input_usd_per_mtok = 0.2, output_usd_per_mtok = 0.2 }},
]
""")

    async with house.workers(fleet), house.agent() as optimizer:
        reply = await optimizer.chat("Hello", timeout=30)
        with pytest.raises(NoModelAvailable) as caught:
            await optimizer.chat("Hello", model="simulated/retired", timeout=30)

    assert (reply.model, reply.attempts) == ("sim-small", 2)
    assert caught.value.provider_status == 404


async def test_a_model_that_nobody_has_names_those_there_are(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), house.agent() as optimizer:
        with pytest.raises(NoModelAvailable, match="simulated/sim-small"):
            await optimizer.chat("Hello", model="gpt-99")

    assert simulator.ledger() == []
