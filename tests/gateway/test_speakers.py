"""Who speaks, how urgently, until when, and what may be shared."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.speakers import Speakers, is_loopback
from sandbox.simulator import SimulatorProcess
from tests.support.gateways import gateway_here
from tests.support.house import House
from tests.support.waiting import until
from topology.fleet import Fleet
from topology.loading import ConfigurationError, load_fleet
from topology.messages import Event
from topology.sections import GatewaySection

ENVIRON = {"QUALITY_TOKEN": "tok-quality", "OLD_TOKEN": "tok-old", "COST_TOKEN": "tok-cost"}
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens there
TOKENS = {"quality": ["env:QUALITY_TOKEN", "env:OLD_TOKEN"], "cost": "env:COST_TOKEN"}


def with_gateway(fleet: Fleet, **section: Any) -> Fleet:
    return fleet.model_copy(update={"gateway": GatewaySection.model_validate(section)})


def chat(prompt: str, **params: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": prompt}], **params}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def completed(
    house: House, simulator: SimulatorProcess, **section: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, list[Event]]]:
    """A gateway, and the requests that the workers say they completed."""
    house.environ |= ENVIRON
    fleet = with_gateway(house.simulated(simulator.base_url), **section)
    async with (
        house.workers(fleet),
        house.events("optimizer.request.completed") as seen,
        gateway_here(house, fleet) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        yield http, seen


async def test_the_owner_of_the_token_asks(house: House, simulator: SimulatorProcess) -> None:
    async with completed(house, simulator, tokens=TOKENS) as (http, seen):
        said = [
            await http.post("/chat/completions", json=chat(token), headers=bearer(token))
            for token in ENVIRON.values()
        ]
        await until(lambda: len(seen) == 3)

    assert [answer.status_code for answer in said] == [200] * 3
    assert [event.agent for event in seen] == ["quality", "quality", "cost"]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (401, {}),
        (401, {"Authorization": "tok-quality"}),
        (401, {"Authorization": "Basic tok-quality"}),
        (401, bearer("tok-qualit")),
        (401, {"Authorization": "Bearer"}),
        (403, {**bearer("tok-quality"), "X-Agent": "cost"}),
    ],
)
@pytest.mark.parametrize("path", ["/chat/completions", "/models", "/models/auto"])
async def test_a_stranger_is_turned_away(path: str, status: int, headers: dict[str, str]) -> None:
    fleet = with_gateway(Fleet(), tokens=TOKENS)

    async with gateway_here(None, fleet, ENVIRON) as url, httpx.AsyncClient(base_url=url) as http:
        method = "POST" if path == "/chat/completions" else "GET"
        answer = await http.request(method, path, headers=headers)
        health = await http.get(url.removesuffix("/v1") + "/health")

    assert answer.status_code == status
    assert (answer.json()["error"]["code"] == "invalid_api_key") == (status == 401)
    assert "tok-quality" not in answer.text
    assert health.status_code == 503  # no broker is there, and no token needed


async def test_without_tokens_a_client_says_who_it_is(house: House, simulator: SimulatorProcess) -> None:
    async with completed(house, simulator, default_agent="somebody") as (http, seen):
        for headers in ({"X-Agent": "quality"}, {}, bearer("whatever")):
            answer = await http.post("/chat/completions", json=chat(str(headers)), headers=headers)
            assert answer.status_code == 200
        await until(lambda: len(seen) == 3)

    assert [event.agent for event in seen] == ["quality", "somebody", "somebody"]


@pytest.mark.parametrize(
    ("open_", "host", "status"),
    [
        (False, "evil.example", 403),
        (False, "localhost:1", 200),
        (False, "[::1]:1", 200),
        (True, "gateway:1", 200),
    ],
)
async def test_without_tokens_only_this_machine_is_served_unless_it_is_open(
    open_: bool, host: str, status: int
) -> None:
    fleet = with_gateway(Fleet(), open=open_)

    async with gateway_here(None, fleet) as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.get("/models", headers={"Host": host})

    assert answer.status_code == status


@pytest.mark.parametrize(
    ("body", "headers", "priority"),
    [
        ({}, {}, "normal"),
        ({"service_tier": "auto"}, {}, "normal"),
        ({"service_tier": None}, {}, "normal"),
        ({"service_tier": "priority"}, {}, "high"),
        ({"service_tier": "flex"}, {}, "batch"),
        ({"service_tier": "flex"}, {"X-Priority": "high"}, "high"),
    ],
)
async def test_urgency_is_said_in_openais_words_or_in_ours(
    house: House, simulator: SimulatorProcess, body: dict[str, Any], headers: dict[str, str], priority: str
) -> None:
    async with completed(house, simulator) as (http, seen):
        await http.post("/chat/completions", json=chat("Now?", **body), headers=headers)
        await until(lambda: len(seen) == 1)

    assert seen[0].model_dump()["priority"] == priority


async def test_headers_say_what_may_be_shared(house: House, simulator: SimulatorProcess) -> None:
    async def source(**headers: str) -> str:
        answer = await http.post("/chat/completions", json=chat("Same"), headers=headers)
        found: str = answer.headers["x-optimizer-source"]
        return found

    async with completed(house, simulator) as (http, _):
        plain = [await source(), await source()]
        sources = {
            "refresh": await source(**{"X-Cache": "refresh"}),
            "off": await source(**{"X-Cache": "off"}),
            "ttl": await source(**{"X-Cache-TTL": "0"}),
            "scope": await source(**{"X-Cache-Scope": "agent"}),
            "task": await source(**{"X-Task": "code"}),
        }

    assert plain == ["provider", "cache"]
    assert set(sources.values()) == {"provider"}
    assert len(simulator.ledger()) == 6


async def test_a_tier_is_our_business_and_does_not_keep_answers_apart(
    house: House, simulator: SimulatorProcess
) -> None:
    async with completed(house, simulator) as (http, _):
        for tier in ("flex", "priority", "auto"):
            await http.post("/chat/completions", json=chat("Same", service_tier=tier))

    assert len(simulator.ledger()) == 1


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"host": EVERYWHERE}, "say --open"),
        ({"host": "gateway.internal"}, "say --open"),
        ({"tokens": {"quality": "env:NOWHERE"}}, "gateway.tokens.quality: the environment has no NOWHERE"),
        ({"tokens": {"quality": "env:COST_TOKEN", "cost": "env:COST_TOKEN"}}, "hold the same token"),
    ],
)
def test_a_gateway_that_would_let_strangers_in_does_not_start(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Speakers(GatewaySection.model_validate(section), ENVIRON)


def test_tokens_or_a_plain_word_let_it_listen_everywhere() -> None:
    Speakers(GatewaySection.model_validate({"host": EVERYWHERE, "tokens": TOKENS}), ENVIRON)
    Speakers(GatewaySection.model_validate({"host": EVERYWHERE, "open": True}), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('tokens = { quality = "tok-literal" }', "gateway.tokens: a key is written as 'env:NAME'"),
        ('tokens = { "Mr X" = "env:A" }', "'Mr X' names no agent"),
        ("tokens = { a = 5 }", "gateway.tokens.a"),
        ('default_agent = "Mr X"', "gateway.default_agent"),
        ("port = 70000", "gateway.port"),
        ("prot = 1", "gateway.prot: unknown key"),
    ],
)
def test_a_mistake_in_the_section_names_the_key_and_repeats_no_token(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(f"[gateway]\n{text}\n")

    with pytest.raises(ConfigurationError) as refused:
        load_fleet(file, {})

    assert said in str(refused.value)
    assert "tok-literal" not in str(refused.value)


def test_the_environment_may_say_where_it_listens() -> None:
    fleet = load_fleet(environ={"OPTIMIZER_GATEWAY__HOST": "::1", "OPTIMIZER_GATEWAY__PORT": "9"})

    assert (fleet.gateway.host, fleet.gateway.port) == ("::1", 9)


def test_names_of_this_machine() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"]))
    assert not any(map(is_loopback, [EVERYWHERE, "::", "10.0.0.1", "example.com", ""]))
