"""What the gateway says of the fleet's health, and what it counts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from sandbox.simulator import SimulatorProcess
from tests.support.gateways import gateway_here
from tests.support.house import House
from tests.support.proxy import Proxy, proxy_to
from tests.support.waiting import until
from topology.fleet import Fleet


@asynccontextmanager
async def root(house: House | None, fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with (
        gateway_here(house, fleet) as url,
        httpx.AsyncClient(base_url=url.removesuffix("/v1"), timeout=60, limits=limits) as http,
    ):
        yield http


async def reasons(http: httpx.AsyncClient) -> list[str]:
    answer = await http.get("/health")
    said = answer.json()
    assert (answer.status_code, said["healthy"]) == ((503, False) if said["unhealthy"] else (200, True))
    found: list[str] = said["unhealthy"]
    return found


async def until_says(http: httpx.AsyncClient, *texts: str) -> None:
    """Waits until these reasons are given, and no other."""

    async def does() -> bool:
        said = await reasons(http)
        return len(said) == len(texts) and all(text in line for text, line in zip(texts, said, strict=True))

    await until(does)


@asynccontextmanager
async def behind_proxy(url: str, port: int) -> AsyncIterator[tuple[Proxy, str]]:
    parts = urlsplit(url)
    async with proxy_to(parts.hostname or "", parts.port or port) as proxy:
        user = f"{parts.username}:{parts.password}@" if parts.username else ""
        yield proxy, urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{proxy.port}"))


async def test_a_role_that_nobody_has_is_named_until_it_is_back(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    pools = fleet.providers | {"other": fleet.providers["simulated"].model_copy(update={"name": "other"})}
    both = fleet.model_copy(update={"providers": pools})
    await house.declare(both)

    async with root(house, both) as http:
        await until_says(http, "no front is alive", "no backend is alive")
        async with house.workers(both, ["front"], ["backend:simulated"]):
            await until_says(http, "other has no pool alive")
            async with house.workers(both, ["backend:other"]):
                await until_says(http)
            await until_says(http, "other has no pool alive")
        await until_says(http, "no front is alive", "no backend is alive")


async def test_a_rabbitmq_that_is_away_is_named_until_it_is_back(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with (
        behind_proxy(house.amqp_url, 5672) as (proxy, amqp_url),
        house.workers(fleet),
        root(replace(house, amqp_url=amqp_url), fleet) as http,
    ):
        await until_says(http)
        proxy.cut()
        await until_says(http, "cannot be reached")
        proxy.restore()
        await until_says(http)


async def test_a_redis_that_the_workers_do_not_reach_is_named(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with (
        behind_proxy(house.redis_url, 6379) as (proxy, redis_url),
        replace(house, redis_url=redis_url).workers(fleet),
        root(house, fleet) as http,
    ):
        await until_says(http)
        proxy.cut()
        await until_says(http, "does not reach Redis")
        proxy.restore()
        await until_says(http)


async def test_with_500_requests_in_flight_health_is_still_answered(
    house: House, simulator: SimulatorProcess
) -> None:
    # On a busy machine it takes seconds until the 500th has come; the first must wait that long.
    simulator.change(latency={"median_s": 40.0})
    fleet = house.simulated(simulator.base_url)

    async def in_flight() -> bool:
        return "optimizer_gateway_in_flight 500.0" in (await http.get("/metrics")).text

    async with house.workers(fleet), root(house, fleet) as http:
        await until_says(http)
        asked = [
            asyncio.create_task(http.post("/v1/chat/completions", json=chat(f"Prompt {n}")))
            for n in range(500)
        ]
        await until(in_flight, 60)
        assert await reasons(http) == []
        for task in asked:  # hanging up withdraws, and cuts the calls that are under way
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_the_counters_tell_agents_models_sources_and_costs_apart(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), root(house, fleet) as http:
        await until_says(http)
        for agent in ("a", "b"):
            await http.post("/v1/chat/completions", json=chat("Once"), headers={"X-Agent": agent})
        counted = samples((await http.get("/metrics")).text)

    model = "simulated/sim-small"
    assert counted['optimizer_gateway_requests_total{operation="chat",source="provider",status="200"}'] == 1
    assert counted['optimizer_gateway_requests_total{operation="chat",source="cache",status="200"}'] == 1
    assert counted['optimizer_gateway_agent_requests_total{agent="b",status="200"}'] == 1
    assert counted[f'optimizer_gateway_model_requests_total{{model="{model}",source="cache"}}'] == 1
    assert counted[f'optimizer_gateway_cost_usd_total{{model="{model}"}}'] > 0
    assert counted['optimizer_gateway_request_seconds_count{operation="chat"}'] == 2
    assert counted["optimizer_gateway_in_flight"] == 0
    assert counted["optimizer_healthy"] == 1
    assert counted['optimizer_workers{role="backend:simulated"}'] == 1
    assert counted['optimizer_pool_slots{provider="simulated"}'] == 40


async def test_clients_cannot_make_the_labels_grow_without_bound() -> None:
    async with root(None, Fleet()) as http:
        for n in range(250):
            await http.post("/v1/chat/completions", json={}, headers={"X-Agent": f"agent-{n}"})
        counted = samples((await http.get("/metrics")).text)

    agents = {name: count for name, count in counted.items() if "agent_requests_total" in name}
    assert len(agents) == 201
    assert agents['optimizer_gateway_agent_requests_total{agent="other",status="400"}'] == 50


def chat(prompt: str) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": prompt}]}


def samples(text: str) -> dict[str, float]:
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}
