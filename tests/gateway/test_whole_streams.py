"""Clients that cannot do without a stream get the whole answer as one of one piece, where that is set."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI

from gateway.whole_stream import chunked
from sandbox.simulator import SimulatorProcess
from tests.support.gateways import gateway_here
from tests.support.house import House, echo_of


@pytest_asyncio.fixture
async def base_url(house: House, simulator: SimulatorProcess) -> AsyncIterator[str]:
    text = f'[gateway]\nwhole_streams = true\n[providers.simulated]\nbase_url = "{simulator.base_url}"\n'
    fleet = house.fleet(
        text + 'api_keys = ["env:SIMULATED_KEY"]\n[[providers.simulated.models]]\nid = "sim-small"\n'
    )
    async with house.workers(fleet), gateway_here(house, fleet) as base_url:
        yield base_url


async def test_the_sdk_reads_it_as_any_stream(base_url: str) -> None:
    async with AsyncOpenAI(base_url=base_url, api_key="any") as sdk:
        stream = await sdk.chat.completions.create(
            model="sim-small",
            messages=[{"role": "user", "content": "In pieces"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        plain = await sdk.chat.completions.create(
            model="sim-small", messages=[{"role": "user", "content": "In pieces"}]
        )

    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said.startswith(echo_of("In pieces"))
    assert said == plain.choices[0].message.content  # the same answer: it is one flight
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None, "stop"]
    assert chunks[-1].usage == plain.usage


async def test_langchain_reads_it_too(base_url: str) -> None:
    model = ChatOpenAI(base_url=base_url, api_key="any", model="sim-small", streaming=True)

    answer = await asyncio.wait_for(model.ainvoke("From a chain"), 30)

    assert str(answer.content).startswith(echo_of("From a chain"))


@pytest.mark.parametrize("include_usage", [True, False])
def test_tool_calls_are_numbered_and_nothing_is_lost(*, include_usage: bool) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    body = {
        "id": "x",
        "model": "m",
        "created": 1,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "tool_calls": [call]},
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"total_tokens": 3},
    }

    *events, end = chunked(body, include_usage=include_usage).strip().split("\n\n")

    first, last, *usage = [json.loads(event.removeprefix("data: ")) for event in events]
    assert end == "data: [DONE]"
    assert first["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **call}]
    assert last["choices"][0]["finish_reason"] == "tool_calls"
    assert [chunk["usage"] for chunk in usage] == ([{"total_tokens": 3}] if include_usage else [])
    assert {chunk["object"] for chunk in (first, last, *usage)} == {"chat.completion.chunk"}
