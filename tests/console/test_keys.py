"""`optimizer keys`: seen and steered from outside, on workers that run."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from typer.testing import CliRunner

from console.main import app
from sandbox.simulator import Account, Limit, SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until
from topology.fleet import Fleet

NAMES = ("a", "b")


@pytest.fixture
def fleet(house: House, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Two accounts with a key each, and with a quota; the provider has a name of the test's own."""
    daily = Limit(requests=100, window_s=86400, counting="fixed")
    simulator.change(
        accounts=[Account(name=n, keys=[f"sk-{n}"], limits=(daily,)).model_dump() for n in NAMES]
    )
    house.environ |= {f"KEY_{name.upper()}": f"sk-{name}" for name in NAMES}
    house.prefix = ""  # as for the command, whose Redis is its fleet's own
    monkeypatch.setenv("OPTIMIZER_AMQP_URL", house.amqp_url)
    monkeypatch.setenv("OPTIMIZER_REDIS_URL", house.redis_url)
    accounts = "\n".join(
        f'[[providers.{house.vhost}.accounts]]\nname = "{name}"\napi_keys = ["env:KEY_{name.upper()}"]\n'
        "requests_per_day = 100"
        for name in NAMES
    )
    return house.fleet(
        f'[providers.{house.vhost}]\nbase_url = "{simulator.base_url}"\nconcurrency = 4\n{accounts}\n'
        f'[[providers.{house.vhost}.models]]\nid = "sim-small"\n'
    )


async def keys(house: House, *words: str) -> str:
    config = ["--config", str(house.folder / "fleet.toml")]
    said = await asyncio.to_thread(CliRunner().invoke, app, ["keys", *words, *config])
    assert said.exit_code == 0, said.output
    return said.stdout


async def standing(house: House) -> dict[str, Any]:
    lines = (await keys(house, "list", "--json")).splitlines()
    return {one["key"]: one for one in map(json.loads, lines)}


async def test_a_disabled_key_is_used_no_more_until_it_is_enabled(
    house: House, simulator: SimulatorProcess, fleet: Fleet
) -> None:
    async with house.workers(fleet), house.agent() as optimizer:
        said = await keys(house, "disable", house.vhost, "env:KEY_A")
        await asyncio.gather(*(optimizer.chat(f"{house.vhost} first {n}", timeout=30) for n in range(6)))
        disabled = await standing(house)
        await keys(house, "enable", house.vhost, "env:KEY_A")
        await asyncio.gather(*(optimizer.chat(f"{house.vhost} second {n}", timeout=30) for n in range(6)))

    assert "env:KEY_A disabled" in said
    assert {key: one["state"] for key, one in disabled.items()} == {
        "env:KEY_A": "disabled",
        "env:KEY_B": "open",
    }
    assert Counter(call.account for call in simulator.ledger()) == {
        "a": 6,
        "b": 6,
    }  # the least used goes next


async def test_what_waits_for_a_disabled_key_flows_as_soon_as_it_is_enabled(
    house: House, simulator: SimulatorProcess, fleet: Fleet
) -> None:
    async with house.workers(fleet), house.agent() as optimizer:
        for name in NAMES:
            await keys(house, "disable", house.vhost, name)
        asked = asyncio.create_task(optimizer.chat(f"{house.vhost} waits", timeout=60))
        await until(lambda: _waits_in_its_queue(house))
        await keys(house, "enable", house.vhost, "b")
        await asked

    assert [call.account for call in simulator.ledger()] == ["b"]


async def _waits_in_its_queue(house: House) -> bool:
    return await house.depth(f"jobs.{house.vhost}.any.normal") == 1


async def test_a_refused_key_is_tried_when_an_operator_says_so_and_serves_again(
    house: House, simulator: SimulatorProcess, fleet: Fleet
) -> None:
    others = (Account(name="a", keys=["another"]), Account(name="b", keys=["sk-b"]))
    simulator.change(accounts=[account.model_dump() for account in others])
    async with house.workers(fleet), house.agent() as optimizer:
        await asyncio.gather(*(optimizer.chat(f"{house.vhost} first {n}", timeout=30) for n in range(4)))
        refused = await standing(house)
        simulator.change(accounts=[Account(name=n, keys=[f"sk-{n}"]).model_dump() for n in NAMES])
        await keys(house, "probe", house.vhost, "env:KEY_A")
        await asyncio.gather(*(optimizer.chat(f"{house.vhost} second {n}", timeout=30) for n in range(8)))
        restored = await standing(house)

    assert refused["env:KEY_A"]["state"] == "closed"
    assert restored["env:KEY_A"]["state"] == "open"
    assert "a" in {call.account for call in simulator.ledger()}


async def test_the_list_tells_what_is_left_and_shows_no_key(
    house: House, simulator: SimulatorProcess, fleet: Fleet
) -> None:
    async with house.workers(fleet), house.agent() as optimizer:
        await asyncio.gather(*(optimizer.chat(f"{house.vhost} {n}", timeout=30) for n in range(6)))
        shown, facts = await keys(house, "list"), await standing(house)

    assert sum(one["left"][0]["left"] for one in facts.values()) == 194
    assert sum(one["used_today"] for one in facts.values()) == 6
    assert "of 100 requests-86400s" in shown
    assert "sk-" not in shown


async def test_a_name_that_is_none_is_told_with_those_there_are(house: House, fleet: Fleet) -> None:
    config = ["--config", str(house.folder / "fleet.toml")]
    await house.declare(fleet)

    words = ["keys", "disable", house.vhost, "env:NOBODY", *config]
    said = await asyncio.to_thread(CliRunner().invoke, app, words)

    assert said.exit_code == 1
    assert "a (env:KEY_A), b (env:KEY_B)" in said.stderr
