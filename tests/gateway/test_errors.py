"""What goes wrong reaches a client in OpenAI's shape, as the exception that it knows, and once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aio_pika
import httpx
import openai
import pytest
from aio_pika.abc import AbstractIncomingMessage
from openai import AsyncOpenAI

from gateway.answering import error_answer
from producer_sdk.errors import error_of
from sandbox.simulator import SimulatorProcess
from tests.support.gateways import gateway_here
from tests.support.house import House
from tests.support.waiting import until
from topology.errors import ErrorType
from topology.fleet import Fleet
from topology.messages import ErrorReport
from topology.wire import MAX_BODY_BYTES

ALONE = Fleet()
"""For what is decided before anything is published: no broker is reached."""
ASKED: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}


@asynccontextmanager
async def clients(house: House | None, fleet: Fleet) -> AsyncIterator[tuple[AsyncOpenAI, httpx.AsyncClient]]:
    """OpenAI's SDK with its own retries, and plain HTTP, before a gateway."""
    async with (
        gateway_here(house, fleet) as url,
        AsyncOpenAI(base_url=url, api_key="any") as sdk,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        yield sdk, http


async def answers(http: httpx.AsyncClient, status: int) -> int:
    """How many calls were answered with this status."""
    text = (await http.get(root_of(http) + "/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("optimizer_gateway_requests_total{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if f'status="{status}"' in line))


async def waits(house: House) -> bool:
    return await house.depth("requests.normal") > 0


def root_of(http: httpx.AsyncClient) -> str:
    return str(http.base_url).removesuffix("/v1/")


async def messages(house: House, queue: str, count: int) -> list[AbstractIncomingMessage]:
    """The first messages of a queue, once they are there."""
    connection = await aio_pika.connect(house.amqp_url)
    async with connection:
        channel = await connection.channel()
        source = await channel.get_queue(queue)
        found: list[AbstractIncomingMessage] = []

        async def are_there() -> bool:
            while message := await source.get(no_ack=True, fail=False):
                found.append(message)
            return len(found) >= count

        await until(are_there)
    return found


async def test_what_the_provider_refuses_is_a_bad_request(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), clients(house, fleet) as (sdk, _):
        with pytest.raises(openai.BadRequestError, match="'messages' must be a list") as refused:
            await sdk.chat.completions.create(model="auto", messages=[])

    assert (refused.value.type, refused.value.code) == ("invalid_request_error", None)
    assert refused.value.response.headers["x-optimizer-provider"] == "simulated"


async def test_a_model_that_nobody_offers_is_not_found(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), clients(house, fleet) as (sdk, _):
        with pytest.raises(openai.NotFoundError, match="there are simulated/sim-small") as asked:
            await sdk.chat.completions.create(**{**ASKED, "model": "gpt-0"})
        with pytest.raises(openai.NotFoundError, match="there are simulated/sim-small") as listed:
            await sdk.models.retrieve("gpt-0")

    assert (asked.value.code, listed.value.code) == ("model_not_found", "model_not_found")


async def test_a_key_that_the_provider_refuses_is_an_authentication_error(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(accounts=[{"name": "other", "keys": ["sk-other"]}])
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), clients(house, fleet) as (sdk, _):
        with pytest.raises(openai.AuthenticationError, match="simulated: Incorrect API key") as refused:
            await sdk.chat.completions.create(**ASKED)

    assert refused.value.code == "provider_key_refused"


async def test_a_limit_that_opens_too_late_says_when_and_is_not_retried(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url, fleet="requests_per_minute = 1")

    async with house.workers(fleet), clients(house, fleet) as (sdk, http):
        await sdk.chat.completions.create(**ASKED)
        with pytest.raises(openai.RateLimitError, match="fleet's rate") as refused:
            await sdk.chat.completions.create(**ASKED, seed=2, extra_headers={"X-Timeout": "5"})

        assert await answers(http, 429) == 1
    assert 30 <= int(refused.value.response.headers["retry-after"]) <= 65
    assert refused.value.code == "rate_limit_exceeded"


async def test_a_deadline_that_passes_is_told_and_not_retried(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with clients(house, fleet) as (sdk, http):
        with pytest.raises(openai.InternalServerError, match=r"no answer within 0.3 s") as late:
            await sdk.chat.completions.create(**ASKED, extra_headers={"X-Timeout": "0.3"})

        assert await answers(http, 504) == 1
    assert late.value.status_code == 504
    assert late.value.response.headers["x-should-retry"] == "false"


async def test_a_provider_that_fails_until_the_deadline_is_named(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(faults={"server_error": 1.0})
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), clients(house, fleet) as (sdk, http):
        with pytest.raises(openai.InternalServerError, match="simulated: The server had an error") as failed:
            await sdk.chat.completions.create(**ASKED, extra_headers={"X-Timeout": "4"})

        assert await answers(http, 502) == 1
    assert (failed.value.status_code, failed.value.code) == (502, "provider_error")


async def test_without_a_topology_the_client_may_come_again_and_people_are_told_what_to_do(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with clients(house, fleet) as (sdk, _):
        with pytest.raises(openai.InternalServerError, match="optimizer topology apply") as refused:
            await sdk.with_options(max_retries=0).chat.completions.create(**ASKED)

    headers = refused.value.response.headers
    assert (refused.value.status_code, headers["retry-after"], headers["x-should-retry"]) == (
        503,
        "1",
        "true",
    )


async def test_streams_are_refused_with_the_remedy() -> None:
    async with clients(None, ALONE) as (sdk, _):
        with pytest.raises(openai.BadRequestError, match="set stream=false") as refused:
            await sdk.chat.completions.create(**ASKED, stream=True)

    assert refused.value.param == "stream"


@pytest.mark.parametrize(
    ("status", "text", "request_"),
    [
        (400, "the body is not JSON", {"content": b"{"}),
        (400, "the body is not JSON", {"content": b"\xff\xfe"}),
        (400, "NaN is no JSON number", {"content": b'{"model": "auto", "temperature": NaN}'}),
        (400, "the body is not JSON", {"content": b"[" * 100_000}),
        (400, "no JSON object", {"json": [1]}),
        (400, "provide a model", {"json": {"messages": []}}),
        (400, "provide a model", {"json": {"model": 4}}),
        (400, "model: String should have at most 256", {"json": {"model": "m" * 300}}),
        (400, "service_tier: 'best' is none of priority", {"json": {**ASKED, "service_tier": "best"}}),
        (400, "service_tier: {'a': 1} is none", {"json": {**ASKED, "service_tier": {"a": 1}}}),
        (400, "X-Priority: 'urgent' is none of high", {"json": ASKED, "headers": {"X-Priority": "urgent"}}),
        (400, "X-Timeout: 'soon' is no number", {"json": ASKED, "headers": {"X-Timeout": "soon"}}),
        (400, "X-Timeout: 'nan' is no number", {"json": ASKED, "headers": {"X-Timeout": "nan"}}),
        (400, "X-Timeout: it leaves no time", {"json": ASKED, "headers": {"X-Timeout": "0"}}),
        (400, "X-Cache: 'maybe' is none of use", {"json": ASKED, "headers": {"X-Cache": "maybe"}}),
        (400, "X-Cache-TTL: '-1' is no number", {"json": ASKED, "headers": {"X-Cache-TTL": "-1"}}),
        (400, "X-Cache-Scope: 'all' is none of", {"json": ASKED, "headers": {"X-Cache-Scope": "all"}}),
        (400, "task: String should have at most", {"json": ASKED, "headers": {"X-Task": "t" * 65}}),
        (400, "X-Agent: 'Mr X' is not 1 to 64", {"json": ASKED, "headers": {"X-Agent": "Mr X"}}),
        (415, "Content-Type: application/json", {"data": {"a": "b"}}),
        (415, "Content-Type: application/json", {"content": b"{}", "headers": {"Content-Type": ""}}),
    ],
)
async def test_what_cannot_be_read_is_refused_with_the_field_and_the_remedy(
    status: int, text: str, request_: dict[str, Any]
) -> None:
    headers = {"Content-Type": "application/json"} if "content" in request_ else {}
    async with clients(None, ALONE) as (_, http):
        answer = await http.post(
            "/chat/completions", **{**request_, "headers": {**headers, **request_.get("headers", {})}}
        )

    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (status, "invalid_request_error")
    assert text in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/chat/completions", 405), ("POST", "/models", 405), ("POST", "/responses", 404)],
)
async def test_other_paths_and_methods_are_refused_in_the_same_shape(
    method: str, path: str, status: int
) -> None:
    async with clients(None, ALONE) as (_, http):
        answer = await http.request(method, path, json={})

    assert (answer.status_code, set(answer.json()["error"])) == (status, {"message", "type", "param", "code"})


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused_and_the_next_one_is_read(
    house: House, simulator: SimulatorProcess, chunked: bool
) -> None:
    fleet = house.simulated(simulator.base_url)
    headers = {"Content-Type": "application/json"}
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(12):
            sent += 1
            yield b" " * (1 << 20)

    async with house.workers(fleet), clients(house, fleet) as (_, http):
        content = pieces() if chunked else b" " * (MAX_BODY_BYTES + 1)
        refused = await http.post("/chat/completions", content=content, headers=headers)
        answered = await http.post("/chat/completions", json=ASKED)

    assert (refused.status_code, answered.status_code) == (413, 200)
    assert "larger than 8388608 bytes" in refused.json()["error"]["message"]


@pytest.mark.parametrize("type_", ErrorType)
def test_every_error_has_its_status_and_says_whether_to_come_again(type_: ErrorType) -> None:
    answer = error_answer(error_of(ErrorReport(type=type_, message="why")))

    assert answer.status_code == type_.http_status
    retries = answer.headers["x-should-retry"] == "true"
    assert retries == (type_ in {ErrorType.OVERLOADED, ErrorType.INTERNAL})


async def test_a_client_that_hangs_up_withdraws_its_request(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)

    async with clients(house, fleet) as (sdk, http):
        calling = asyncio.create_task(sdk.chat.completions.create(**ASKED))
        await until(lambda: waits(house))
        calling.cancel()
        with suppress(asyncio.CancelledError):
            await calling

        asked, withdrawn = await messages(house, "requests.normal", 2)
        assert await answers(http, 499) == 1

    assert withdrawn.type == "cancel"
    assert asked.correlation_id == withdrawn.correlation_id


async def test_a_call_that_the_sdk_tries_again_is_bought_once(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(latency={"median_s": 1.5})
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), clients(house, fleet) as (sdk, http):
        with pytest.raises(openai.APITimeoutError):
            await sdk.with_options(timeout=1.0, max_retries=0).chat.completions.create(**ASKED)
        answer = await sdk.with_options(timeout=1.0, max_retries=5).chat.completions.create(**ASKED)
        assert await answers(http, 200) == 1

    assert answer.choices
    assert len(simulator.ledger()) == 1


async def test_a_client_that_goes_in_the_middle_of_its_body_is_no_fault(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)

    async with clients(house, fleet) as (_, http):
        _, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n")
        writer.write(b"Content-Type: application/json\r\n\r\n{")
        await writer.drain()
        writer.close()

        async def is_counted() -> bool:
            return await answers(http, 499) == 1

        await until(is_counted)
