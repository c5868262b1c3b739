"""Clients that know nothing of the optimizer, unchanged but for their base URL."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI

from sandbox.nodes import Brokers
from sandbox.simulator import SimulatorProcess
from tests.support.gateways import Gateway, gateway_process, house_in
from tests.support.house import echo_of

MODEL = "simulated/sim-small"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    brokers: Brokers, simulator_process: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """One for all tests here: each asks what no other asks."""
    with house_in(brokers, tmp_path_factory.mktemp("clients")) as house:
        fleet = house.simulated(simulator_process.base_url)
        async with house.workers(fleet), gateway_process(house) as gateway:
            yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="any") as client:
        yield client


def sha256_of(**body: Any) -> str:
    """What the simulated provider's ledger says of a body that arrived untouched."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


async def test_the_async_sdk_asks_and_is_answered(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])

    assert (answer.choices[0].message.content or "").startswith(echo_of("Hi"))
    assert answer.model == "sim-small"
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0


async def test_the_blocking_sdk_asks_and_is_answered(gateway: Gateway) -> None:
    def ask() -> str | None:
        with OpenAI(base_url=gateway.base_url, api_key="any") as client:
            answer = client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hello"}]
            )
        return answer.choices[0].message.content

    assert (await asyncio.to_thread(ask) or "").startswith(echo_of("Hello"))


async def test_the_response_tells_where_the_answer_came_from(client: AsyncOpenAI) -> None:
    async def ask() -> httpx.Headers:
        response = await client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[{"role": "user", "content": "Twice"}]
        )
        return response.headers  # type: ignore[return-value]

    first, second = await ask(), await ask()

    assert (first["x-optimizer-source"], second["x-optimizer-source"]) == ("provider", "cache")
    assert (first["x-optimizer-provider"], first["x-optimizer-model"]) == ("simulated", "sim-small")
    assert float(first["x-optimizer-cost-usd"]) > 0
    assert second["x-optimizer-cost-usd"] == "0"
    assert first["x-request-id"] != second["x-request-id"]


async def test_a_tool_that_must_be_called_is_called(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Rain?"}],
        tools=[WEATHER],
        tool_choice="required",
    )

    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_json_mode_gives_json(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "As JSON"}],
        response_format={"type": "json_object"},
    )

    assert json.loads(answer.choices[0].message.content or "")["echo"] == echo_of("As JSON")


async def test_all_that_is_the_providers_business_arrives_untouched(
    client: AsyncOpenAI, simulator: SimulatorProcess
) -> None:
    picture = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"},
    }
    body: dict[str, Any] = {
        "messages": [user([{"type": "text", "text": "What is \N{CLOUD WITH RAIN} this?"}, picture])],
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "temperature": 0.25,
        "seed": None,
        "max_completion_tokens": 20,
        "tools": [WEATHER],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
    }

    await client.chat.completions.create(
        model=MODEL,
        service_tier="flex",
        extra_body={"top_k": 40, "vendor": {"deep": [1, {"x": 2.5}]}},
        **body,
    )

    [call] = simulator.ledger()
    arrived = {**body, "top_k": 40, "vendor": {"deep": [1, {"x": 2.5}]}, "model": "sim-small"}
    assert call.prompt_sha256 == sha256_of(**arrived)


async def test_embeddings_come_as_the_sdk_asks_for_them(
    client: AsyncOpenAI, simulator: SimulatorProcess
) -> None:
    packed = await client.embeddings.create(model=MODEL, input=["a", "b"])  # base64, and unpacked by the SDK
    plain = await client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format="float")

    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert len(packed.data) == 2
    assert len(simulator.ledger()) == 2


async def test_the_models_that_can_be_asked_for_are_listed(client: AsyncOpenAI) -> None:
    models = [model async for model in await client.models.list()]
    bare = await client.models.retrieve("sim-small")
    named = await client.models.retrieve(MODEL)

    assert [(m.id, m.owned_by) for m in models] == [("auto", "optimizer"), (MODEL, "simulated")]
    assert (bare.owned_by, named.owned_by, named.object) == ("simulated", "simulated", "model")


@pytest.mark.parametrize("model", ["auto", "simulated", "sim-small", MODEL])
async def test_a_model_may_be_named_in_every_way(client: AsyncOpenAI, model: str) -> None:
    answer = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": model}])

    assert answer.model == "sim-small"


async def test_langchain_asks_and_is_answered(gateway: Gateway) -> None:
    chat = ChatOpenAI(model=MODEL, base_url=gateway.base_url, api_key="any")

    plain = await chat.ainvoke([HumanMessage("Hello")])
    called = await chat.bind_tools([WEATHER], tool_choice="weather").ainvoke("Rain?")
    blocking = await asyncio.to_thread(chat.invoke, "Hello again")

    assert str(plain.content).startswith(echo_of("Hello"))
    assert str(blocking.content).startswith(echo_of("Hello again"))
    assert called.tool_calls[0]["name"] == "weather"


async def test_curl_asks_and_is_answered(gateway: Gateway) -> None:
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--show-error", "--fail-with-body", f"{gateway.base_url}/chat/completions",
        "--header", "Content-Type: application/json",
        "--data", json.dumps({"model": "auto", "messages": [user("From a shell")]}),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 0, out.decode()
    assert json.loads(out)["choices"][0]["message"]["content"].startswith(echo_of("From a shell"))
