import asyncio
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import httpx
import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from broker import declaring
from console.doctor_findings import Finding, Verdict
from console.doctor_rabbitmq import _alarms, check_management
from console.doctor_redis import clock_finding, server_findings
from console.main import app
from sandbox.simulator import SimulatorProcess
from tests.support.house import House
from tests.support.house import test_environ as environ_of
from topology.declaration import declaration

KEY = "sk-simulated-very-secret"
HEALTHY: dict[str, Any] = {
    "redis_version": "7.2.4",
    "redis_mode": "standalone",
    "role": "master",
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
    "used_memory": 1_000_000,
    "loading": 0,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, where nothing but the test's own names a broker or a key."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)


async def doctor(house: House, *arguments: str, **environ: str) -> Result:
    """The command, beside this event loop; its folder holds the house's `fleet.toml`, if any."""
    env = {**environ_of(house), **environ}
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, ["doctor", *arguments], env=env))


async def checks(house: House, **environ: str) -> dict[str, dict[str, Any]]:
    """What was found, by check."""
    said = await doctor(house, "--json", **environ)
    return {found["check"]: found for found in json.loads(said.stdout)["checks"]}


def put_policy(house: House, name: str, pattern: str, priority: int) -> None:
    url = f"{house.management_url}/api/policies/{house.vhost}/{name}"
    body = {"pattern": pattern, "apply-to": "all", "priority": priority, "definition": {"max-length": 5}}
    httpx.put(url, json=body, timeout=30).raise_for_status()


async def test_a_house_in_order_gets_a_line_for_each_check_and_0(
    house: House, simulator: SimulatorProcess
) -> None:
    house.environ = {"SIMULATED_KEY": KEY}
    simulator.change(accounts=[{"name": "house", "keys": [KEY]}])

    async with house.workers(house.simulated(simulator.base_url)):
        said = await doctor(house)

    assert said.exit_code == 0, said.output
    lines = {line[6:].split("  ")[0]: line[:4].strip() for line in said.stdout.splitlines()}
    assert list(lines) == [
        "versions", "configuration",
        "rabbitmq", "topology", "management", "alarms", "policies", "workers",
        "redis", "redis memory", "redis persistence", "clock",
        "key simulated env:SIMULATED_KEY", "models simulated",
    ]  # fmt: skip
    assert "fail" not in lines.values()
    assert KEY not in said.output


async def test_a_refused_key_fails_with_1_and_is_never_shown(
    house: House, simulator: SimulatorProcess
) -> None:
    house.environ = {"SIMULATED_KEY": KEY}
    simulator.change(accounts=[{"name": "somebody else", "keys": ["sk-other"]}])

    async with house.workers(house.simulated(simulator.base_url)):
        said = await doctor(house)

    failed = [line for line in said.stdout.splitlines() if line.startswith("fail")]
    assert said.exit_code == 1
    assert len(failed) == 1
    assert "env:SIMULATED_KEY" in failed[0]
    assert "refused by simulated (401)" in failed[0]
    assert KEY not in said.output


async def test_brokers_that_are_away_are_named_without_their_passwords(house: House) -> None:
    house.simulated("http://127.0.0.1:9")

    said = await doctor(
        house,
        OPTIMIZER_AMQP_URL="amqp://guest:secret@127.0.0.1:9/",
        OPTIMIZER_REDIS_URL="redis://:secret@127.0.0.1:9/0",
    )

    assert said.exit_code == 1
    assert "RabbitMQ at amqp://guest:***@127.0.0.1:9/ cannot be reached" in said.stdout
    assert "Redis at redis://:***@127.0.0.1:9/0 cannot be reached" in said.stdout
    assert "secret" not in said.output


async def test_brokers_that_nobody_named_are_told_how(house: House) -> None:
    found = await checks(house, OPTIMIZER_AMQP_URL="", OPTIMIZER_REDIS_URL="")

    assert found["rabbitmq"]["found"] == "OPTIMIZER_AMQP_URL is not set"
    assert found["redis"]["found"] == "OPTIMIZER_REDIS_URL is not set"
    assert "optimizer up" in found["redis"]["remedy"]


async def test_a_wrong_password_and_a_missing_virtual_host_have_their_own_remedies(house: House) -> None:
    parts = urlsplit(house.amqp_url)
    wrong = urlunsplit(parts._replace(netloc=f"guest:wr0ng@{parts.netloc.rpartition('@')[2]}"))
    nowhere = urlunsplit(parts._replace(path="/no-such-vhost"))

    refused = (await checks(house, OPTIMIZER_AMQP_URL=wrong))["rabbitmq"]
    missing = (await checks(house, OPTIMIZER_AMQP_URL=nowhere))["rabbitmq"]

    assert refused["verdict"] == missing["verdict"] == "fail"
    assert refused["remedy"].startswith("user or password")
    assert "wr0ng" not in str(refused)
    assert "rabbitmqctl add_vhost no-such-vhost" in missing["remedy"]


async def test_a_missing_topology_and_its_policies_are_told(house: House) -> None:
    house.simulated("http://127.0.0.1:9")

    found = await checks(house)

    assert found["topology"]["verdict"] == found["policies"]["verdict"] == "fail"
    assert found["topology"]["remedy"] == found["policies"]["remedy"] == "run: optimizer topology apply"


async def test_a_topology_without_workers_says_which_are_missing(house: House) -> None:
    await house.declare(house.simulated("http://127.0.0.1:9"))

    found = await checks(house)

    assert (found["topology"]["verdict"], found["policies"]["verdict"]) == ("ok", "ok")
    assert found["workers"]["verdict"] == "fail"
    assert "optimizer worker" in found["workers"]["remedy"]


async def test_a_changed_policy_and_one_that_takes_the_place_of_ours_are_found(house: House) -> None:
    declared = declaration(house.simulated("http://127.0.0.1:9"))
    await declaring.apply(declared, house.amqp_url, house.management_url)

    async def policies() -> Finding:
        *_, finding = await check_management(declared, house.vhost, house.management_url)
        return finding

    put_policy(house, "harmless", "^requests", 0)
    before = await policies()
    put_policy(house, "everything-short", ".*", 99)
    rival = await policies()
    put_policy(house, "optimizer-work", "^requests", 10)
    changed = await policies()

    assert before.verdict is Verdict.OK
    assert (rival.verdict, rival.found) == (Verdict.FAIL, "everything-short: takes the place of ours")
    assert (changed.verdict, changed.found) == (Verdict.FAIL, "missing or changed: optimizer-work")


def test_an_alarm_is_named_with_what_it_stops() -> None:
    alarm = {"status": "failed", "alarms": [{"node": "rabbit@one", "resource": "disk"}]}

    finding = _alarms(httpx.Response(503, json=alarm))

    assert (finding.verdict, finding.found) == (Verdict.FAIL, "disk: RabbitMQ takes no messages")


async def test_without_the_management_api_the_rest_is_checked_all_the_same(house: House) -> None:
    await house.declare(house.simulated("http://127.0.0.1:9"))

    found = await checks(house, OPTIMIZER_MANAGEMENT_URL="http://guest:secret@127.0.0.1:9")

    assert found["management"]["verdict"] == "warn"
    assert "secret" not in str(found)
    assert "policies" not in found
    assert found["topology"]["verdict"] == "ok"


async def test_a_redis_that_evicts_is_told_with_the_command_that_mends_it(house: House) -> None:
    with Redis.from_url(house.redis_url) as redis:
        before = redis.config_get("maxmemory-policy")["maxmemory-policy"]
        redis.config_set("maxmemory-policy", "allkeys-lru")
        try:
            found = (await checks(house))["redis memory"]
        finally:
            redis.config_set("maxmemory-policy", before)

    assert found["verdict"] == "warn"
    assert "CONFIG SET maxmemory-policy noeviction" in found["remedy"]


@pytest.mark.parametrize(
    ("differs", "check", "verdict"),
    [
        ({}, None, None),
        ({"redis_version": "6.2.14"}, "redis", Verdict.FAIL),
        ({"redis_version": "10.0.1"}, None, None),
        ({"redis_mode": "cluster"}, "redis", Verdict.FAIL),
        ({"role": "slave"}, "redis", Verdict.FAIL),
        ({"maxmemory": 1_000_000}, "redis memory", Verdict.WARN),
        ({"aof_enabled": 0}, "redis persistence", Verdict.WARN),
        ({"aof_last_write_status": "err"}, "redis persistence", Verdict.FAIL),
        ({"rdb_last_bgsave_status": "err"}, "redis persistence", Verdict.FAIL),
        ({"loading": 1}, "redis persistence", Verdict.FAIL),
    ],
)
def test_what_redis_says_of_itself_is_judged(
    differs: dict[str, Any], check: str | None, verdict: Verdict | None
) -> None:
    findings = server_findings({**HEALTHY, **differs}, "redis://somewhere")

    bad = [(f.check, f.verdict) for f in findings if f.verdict is not Verdict.OK]
    assert bad == ([] if check is None else [(check, verdict)])
    assert all(f.remedy for f in findings if f.verdict is not Verdict.OK)


@pytest.mark.parametrize(
    ("apart_s", "verdict", "word"),
    [(0.2, Verdict.OK, "0.200 s"), (3.0, Verdict.WARN, "ahead"), (-3.0, Verdict.WARN, "behind")],
)
def test_clocks_a_second_apart_are_a_warning(apart_s: float, verdict: Verdict, word: str) -> None:
    finding = clock_finding(apart_s)

    assert finding.verdict is verdict
    assert word in finding.found


async def test_a_configuration_that_cannot_be_used_does_not_end_the_examination(house: House) -> None:
    (house.folder / "fleet.toml").write_text("[fleet]\nconcurency = 5\n", "utf-8")

    found = await checks(house)

    assert found["configuration"]["verdict"] == "fail"
    assert "fleet.concurency: unknown key" in found["configuration"]["found"]
    assert found["redis"]["verdict"] == "ok"


async def test_where_nothing_is_configured_the_next_command_is_told(house: House) -> None:
    found = await checks(house)

    assert found["configuration"]["verdict"] == "fail"
    assert "optimizer init" in found["configuration"]["remedy"]


async def test_for_programs_it_is_one_json_object(house: House) -> None:
    said = await doctor(house, "--json")

    told = json.loads(said.stdout)
    assert told["healthy"] is False
    assert {frozenset(found) for found in told["checks"]} == {
        frozenset({"check", "verdict", "found", "remedy"})
    }
    assert said.stderr == ""
    assert quote(house.vhost) in told["checks"][2]["found"]
