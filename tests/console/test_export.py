import json
import secrets
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import aiormq
import httpx
import pytest
from typer.testing import CliRunner, Result

from broker import declaring
from console.main import app
from producer_sdk import AsyncOptimizer, OptimizerError
from sandbox.simulator import SimulatorProcess
from tests.support.gateways import gateway_here
from tests.support.house import House, create_vhost, delete_vhost
from tests.support.waiting import until
from topology.declaration import declaration

FLEET = """
[providers.groq]
api_keys = ["env:GROQ_API_KEY"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a fleet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.toml").write_text(FLEET, "utf-8")
    return tmp_path


def export(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["topology", "export", *arguments])


def write_passwords(folder: Path, *users: str) -> dict[str, str]:
    """A file for each user, as --passwords expects them."""
    folder.mkdir()
    passwords = {user: secrets.token_hex(12) for user in users}
    for user, password in passwords.items():
        (folder / user).write_text(f"{password}\n", "utf-8")
    return passwords


def import_definitions(house: House, text: str) -> None:
    answer = httpx.post(f"{house.management_url}/api/definitions", json=json.loads(text), timeout=60)
    answer.raise_for_status()


def policies(management_url: str, vhost: str) -> dict[str, dict[str, Any]]:
    answer = httpx.get(f"{management_url}/api/policies/{vhost}", timeout=30)
    return {policy.pop("name"): policy for policy in answer.json() if policy.pop("vhost")}


def url_as(house: House, user: str, password: str) -> str:
    parts = urlsplit(house.amqp_url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}"))


class Population:
    """Users in the house's RabbitMQ: two agents, the workers and the gateway."""

    def __init__(self, house: House, folder: Path) -> None:
        draw = secrets.token_hex(4)
        self.quality, self.other = f"quality-{draw}", f"other-{draw}"
        names = (self.quality, self.other, "workers", "gateway")
        self.passwords = write_passwords(folder / "passwords", *names)
        agents = ["--agent", self.quality, "--agent", self.other]
        said = export("--vhost", house.vhost, "--users", "--passwords", str(folder / "passwords"), *agents)
        assert said.exit_code == 0, said.output
        import_definitions(house, said.stdout)
        self._house = house

    def url(self, user: str) -> str:
        return url_as(self._house, user, self.passwords[user])


@pytest.fixture
def people(house: House, folder: Path) -> Iterator[Population]:
    population = Population(house, folder)
    yield population
    for name in population.passwords:
        httpx.delete(f"{house.management_url}/api/users/{name}", timeout=30)


async def test_an_imported_file_is_the_topology_that_apply_makes(house: House, folder: Path) -> None:
    fleet = house.fleet(FLEET.replace("api_keys", "keyless = true\n# api_keys"))
    other = f"{house.vhost}-applied"
    create_vhost(house.management_url, other)
    try:
        await declaring.apply(
            declaration(fleet),
            urlunsplit(urlsplit(house.amqp_url)._replace(path=f"/{other}")),
            house.management_url,
        )
        said = export("--vhost", house.vhost)
        import_definitions(house, said.stdout)

        assert await declaring.missing(declaration(fleet), house.amqp_url) == []
        assert policies(house.management_url, house.vhost) == policies(house.management_url, other) != {}
        assert bindings(house, house.vhost) == bindings(house, other)
        # Queues of other properties would be refused here.
        await declaring.apply(declaration(fleet), house.amqp_url, house.management_url)
    finally:
        delete_vhost(house.management_url, other)


def bindings(house: House, vhost: str) -> set[tuple[str, str, str]]:
    answer = httpx.get(f"{house.management_url}/api/bindings/{vhost}", timeout=30)
    return {(b["source"], b["routing_key"], b["destination"]) for b in answer.json()}


async def publish(url: str, exchange: str, key: str) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await (await connection.channel()).get_underlay_channel()
        await channel.basic_publish(b"a request", exchange=exchange, routing_key=key)


@pytest.mark.parametrize("priority", ["high", "normal", "batch"])
async def test_an_agents_user_publishes_for_itself(people: Population, house: House, priority: str) -> None:
    await publish(people.url(people.quality), "optimizer.requests", f"{priority}.{people.quality}")

    assert await house.depth(f"requests.{priority}") == 1


async def test_an_agents_user_cannot_speak_for_another(people: Population, house: House) -> None:
    with pytest.raises(aiormq.exceptions.ChannelAccessRefused, match="ACCESS_REFUSED"):
        await publish(people.url(people.quality), "optimizer.requests", f"high.{people.other}")

    assert await house.depth("requests.high") == 0


@pytest.mark.parametrize(
    ("exchange", "key"),
    [("optimizer.jobs", "jobs.groq.any.high"), ("", "requests.high"), ("optimizer.events", "x")],
)
async def test_an_agents_user_publishes_nowhere_else(people: Population, exchange: str, key: str) -> None:
    with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
        await publish(people.url(people.quality), exchange, key)


async def test_the_gateways_user_speaks_for_every_agent(people: Population, house: House) -> None:
    await publish(people.url("gateway"), "optimizer.requests", f"high.{people.other}")

    assert await house.depth("requests.high") == 1


async def test_no_agent_can_read_anothers_replies_or_the_requests(people: Population) -> None:
    for queue in (f"reply.{people.other}.p1.aa", "requests.high"):
        connection = await aio_pika.connect(people.url(people.quality))
        async with connection:
            channel = await (await connection.channel()).get_underlay_channel()
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await channel.basic_get(queue)


async def test_the_sdk_and_the_workers_need_no_more_than_these_rights(
    people: Population, house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)
    own_url, house.amqp_url = house.amqp_url, people.url("workers")

    async with house.workers(fleet), AsyncOptimizer(people.quality, url=people.url(people.quality)) as agent:
        reply = await agent.chat("Who speaks?", timeout=30)
        later = await agent.result(await agent.submit("And later?"), timeout=30)

    house.amqp_url = own_url
    assert reply.text
    assert reply.source == later.source == "provider"


async def test_the_gateway_needs_no_more_than_its_users_rights(
    people: Population, house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)
    limited = replace(house, amqp_url=people.url("gateway"))

    async with gateway_here(limited, fleet) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
        health = url.removesuffix("/v1") + "/health"
        # Nobody is heard yet: it asks RabbitMQ whether messages are taken at all, and goes on.
        await until(lambda: _misses_the_front(http, health))
        for _ in range(3):
            assert await _misses_the_front(http, health)
        async with house.workers(fleet):
            await until(lambda: _is_healthy(http, health))
            body = {"model": "sim-small", "messages": [{"role": "user", "content": "Who speaks?"}]}
            answer = await http.post("/chat/completions", json=body, headers={"X-Agent": people.quality})

    assert answer.status_code == 200, answer.text


async def _misses_the_front(http: httpx.AsyncClient, url: str) -> bool:
    reasons: list[str] = (await http.get(url)).json()["unhealthy"]
    return any("no front is alive" in reason for reason in reasons)


async def _is_healthy(http: httpx.AsyncClient, url: str) -> bool:
    return (await http.get(url)).status_code == 200


async def test_an_agent_with_anothers_url_is_told_that_it_was_refused(
    people: Population, house: House, simulator: SimulatorProcess
) -> None:
    await house.declare(house.simulated(simulator.base_url))

    async with AsyncOptimizer(people.other, url=people.url(people.quality)) as agent:
        with pytest.raises(OptimizerError, match="ACCESS_REFUSED"):
            await agent.chat("Who speaks?", timeout=2)


async def test_the_workers_user_may_set_policies(people: Population, house: House) -> None:
    parts = urlsplit(house.management_url)
    netloc = f"workers:{people.passwords['workers']}@{parts.netloc.rpartition('@')[2]}"
    fleet = house.simulated("http://127.0.0.1:9")

    await declaring.apply(
        declaration(fleet), people.url("workers"), urlunsplit(parts._replace(netloc=netloc))
    )

    assert await declaring.missing(declaration(fleet), house.amqp_url) == []


def test_passwords_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORKERS", "GATEWAY", "CODE_REVIEW"):
        monkeypatch.setenv(f"OPTIMIZER_PASSWORD_{name}", f"password-of-{name}")

    said = export("--users", "--agent", "code-review")

    assert said.exit_code == 0
    assert [user["name"] for user in json.loads(said.stdout)["users"]] == [
        "workers",
        "gateway",
        "code-review",
    ]
    assert "password-of" not in said.output


def test_no_password_is_invented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMIZER_PASSWORD_WORKERS", "known")

    said = export("--users", "--agent", "quality")

    assert said.exit_code == 1
    assert "OPTIMIZER_PASSWORD_GATEWAY, OPTIMIZER_PASSWORD_QUALITY" in said.stderr
    assert said.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--agent", "quality"], "--users"),
        (["--users", "--agent", "Not A Name"], "a name is"),
        (["--users", "--agent", "guest"], "rename"),
        (["--users", "--agent", "a-b", "--agent", "a_b"], "OPTIMIZER_PASSWORD_A_B"),
    ],
)
def test_users_that_make_no_sense_are_refused(arguments: list[str], reason: str) -> None:
    said = export(*arguments)

    assert said.exit_code == 1
    assert reason in said.stderr


def test_a_file_with_hashes_is_its_owners_alone(folder: Path) -> None:
    write_passwords(folder / "passwords", "workers", "gateway")

    said = export("--users", "--passwords", "passwords", "-o", "definitions.json")

    assert said.exit_code == 0
    assert said.stdout == ""
    assert "rabbitmqctl import_definitions definitions.json" in said.stderr
    assert stat.S_IMODE((folder / "definitions.json").stat().st_mode) == 0o600
    assert json.loads((folder / "definitions.json").read_text("utf-8"))["vhosts"] == [{"name": "/"}]
