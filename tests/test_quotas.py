"""Quotas that are spent: who waits for them, who does not, and what the provider sees."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import httpx
import pytest

from sandbox.simulator import Account, Limit, Model, SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until

_WHOLE_DAY_S = 86_400
_PATIENCE_S = 3 * 86400.0


async def test_a_model_whose_quota_is_spent_holds_up_no_other_model(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(models=[Model(id="sim-small").model_dump(), Model(id="sim-scarce").model_dump()])
    scarce = '[[providers.simulated.models]]\nid = "sim-scarce"\nrequests_per_day = 1'
    house.simulated(simulator.base_url)
    fleet = house.fleet((house.folder / "fleet.toml").read_text("utf-8") + scarce)

    async with house.workers(fleet), house.agent() as optimizer:
        waiting = [
            asyncio.create_task(optimizer.chat(f"Scarce {n}", model="sim-scarce", timeout=_PATIENCE_S))
            for n in range(60)
        ]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*(optimizer.chat(f"Plenty {n}", timeout=30) for n in range(20)))

        assert sum(task.done() for task in waiting) == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert Counter(call.model for call in simulator.ledger()) == {"sim-scarce": 1, "sim-small": 20}


async def test_what_waits_for_a_quota_keeps_its_order(house: House, simulator: SimulatorProcess) -> None:
    limits = "limits = [{ requests = 2, window_s = 1 }]"
    fleet = house.simulated(simulator.base_url, provider=limits, concurrency=1)

    async with house.workers(fleet), house.agent() as optimizer, house.events() as events:
        asked = []
        for n in range(8):
            asked.append(asyncio.create_task(optimizer.chat(f"{n}", request_id=f"r{n}", timeout=_PATIENCE_S)))
            await until(lambda n=n: sum(e.type == "optimizer.cache.miss" for e in events) > n)  # type: ignore[misc]
        await asyncio.gather(*asked)

    assert [call.request_id for call in simulator.ledger()] == [f"r{n}" for n in range(8)]
    assert await house.depth("dead.kept") == 0


@pytest.mark.parametrize("replicas", [1, 3])
async def test_accounts_are_used_to_the_last_request_and_never_beyond(
    house: House, simulator: SimulatorProcess, replicas: int
) -> None:
    daily = Limit(requests=5, window_s=_WHOLE_DAY_S, counting="fixed")
    names = [f"a{n}" for n in range(8)]
    simulator.change(
        accounts=[Account(name=name, keys=[f"sk-{name}"], limits=(daily,)).model_dump() for name in names]
    )
    house.environ |= {f"KEY_{name.upper()}": f"sk-{name}" for name in names}
    accounts = "\n".join(
        f'[[providers.simulated.accounts]]\nname = "{name}"\napi_keys = ["env:KEY_{name.upper()}"]\n'
        "requests_per_day = 5"
        for name in names
    )
    fleet = house.fleet(
        f'[providers.simulated]\nbase_url = "{simulator.base_url}"\nconcurrency = 12\n{accounts}\n'
        '[[providers.simulated.models]]\nid = "sim-small"\n'
    )

    roles = [["front"], *(["backend:all"] for _ in range(replicas))]
    async with house.workers(fleet, *roles), house.agent() as optimizer:
        asked = [asyncio.create_task(optimizer.chat(f"Prompt {n}", timeout=_PATIENCE_S)) for n in range(60)]
        await until(lambda: sum(task.done() for task in asked) == 40)
        assert {task.result().status for task in asked if task.done()} == {"ok"}
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    ledger = simulator.ledger()
    assert {call.outcome for call in ledger} == {"ok"}
    assert Counter(call.account for call in ledger) == dict.fromkeys(names, 5)


async def test_keys_of_one_account_share_its_quota(house: House, simulator: SimulatorProcess) -> None:
    keys = [f"sk-{n}" for n in range(10)]
    daily = Limit(requests=5, window_s=_WHOLE_DAY_S, counting="fixed")
    simulator.change(accounts=[Account(name="one", keys=keys, limits=(daily,)).model_dump()])
    house.environ |= {f"KEY_{n}": key for n, key in enumerate(keys)}
    origins = ", ".join(f'"env:KEY_{n}"' for n in range(10))
    fleet = house.fleet(
        f'[providers.simulated]\nbase_url = "{simulator.base_url}"\n'
        f'[[providers.simulated.accounts]]\nname = "one"\napi_keys = [{origins}]\nrequests_per_day = 5\n'
        '[[providers.simulated.models]]\nid = "sim-small"\n'
    )

    async with house.agent() as optimizer:
        asked = []
        for _ in range(2):  # everything restarted in between
            async with house.workers(fleet):
                asked += [
                    asyncio.create_task(optimizer.chat(f"Prompt {n}", timeout=_PATIENCE_S)) for n in range(10)
                ]
                await until(lambda: len(simulator.ledger()) == 5)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    assert [call.outcome for call in simulator.ledger()] == ["ok"] * 5


async def test_what_another_program_uses_of_a_limit_is_heard_from_the_provider(
    house: House, simulator: SimulatorProcess
) -> None:
    limit = Limit(requests=20, window_s=4)
    simulator.change(limits=[limit.model_dump()])
    house.environ["OPENAI_API_KEY"] = "sk-simulated"
    fleet = house.fleet(
        f'[providers.openai]\nbase_url = "{simulator.base_url}"\napi_keys = ["env:OPENAI_API_KEY"]\n'
        'limits = [{ requests = 20, window_s = 4 }]\n[[providers.openai.models]]\nid = "sim-small"\n'
    )
    body = {"model": "sim-small", "messages": [{"role": "user", "content": "Not one of yours"}]}

    async with house.workers(fleet), house.agent() as optimizer, httpx.AsyncClient() as other:
        headers = {"authorization": "Bearer sk-simulated"}
        for _ in range(12):
            answer = await other.post(f"{simulator.base_url}/chat/completions", json=body, headers=headers)
            assert answer.status_code == 200
        await optimizer.chat("First", timeout=_PATIENCE_S)  # its answer tells
        await asyncio.gather(*(optimizer.chat(f"Prompt {n}", timeout=_PATIENCE_S) for n in range(20)))

    assert {call.outcome for call in simulator.ledger()} == {"ok"}


async def test_batch_uses_a_days_quota_as_the_day_passes_and_others_find_the_rest(
    house: House, simulator: SimulatorProcess
) -> None:
    began = datetime.now(UTC)
    fleet = house.simulated(
        simulator.base_url, provider=f'requests_per_day = 20\nday_resets_at = "{began:%H:%M} UTC"'
    )

    async with house.workers(fleet), house.agent() as optimizer, house.events() as events:
        patient = [
            asyncio.create_task(optimizer.chat(f"Patient {n}", priority="batch", timeout=_PATIENCE_S))
            for n in range(10)
        ]
        await until(lambda: any(e.type == "optimizer.rate_limit" for e in events))
        await asyncio.gather(*(optimizer.chat(f"Now {n}", timeout=_PATIENCE_S) for n in range(15)))
        for task in patient:
            task.cancel()
        ended = await asyncio.gather(*patient, return_exceptions=True)

    answered = sum(not isinstance(reply, BaseException) for reply in ended)
    passed = (datetime.now(UTC) - began).total_seconds() / _WHOLE_DAY_S
    assert 2 <= answered <= (0.1 + passed + 60 / _WHOLE_DAY_S) * 20 + 1
    assert len(simulator.ledger()) == 15 + answered
