"""What holds for the asyncio client holds for the blocking one."""

import asyncio
import errno
from collections.abc import Callable
from typing import Any

import aio_pika
import pytest

from producer_sdk import (
    Cancelled,
    ContentFiltered,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    Reply,
    Waiting,
)
from producer_sdk.errors import error_of
from sandbox.simulator import SimulatorProcess
from tests.support.clients import Asked, Client, Driver, desk, nothing, open_client, outcome_of, said
from tests.support.house import House, echo_of
from tests.support.waiting import until
from topology.errors import ErrorType
from topology.messages import ErrorReport

NOWHERE = "amqp://guest:secret@127.0.0.1:9/vhost"


async def test_a_fleet_answers_and_the_second_time_from_the_cache(
    driver: Driver, house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    async with house.workers(fleet), open_client(driver, house.amqp_url) as client:
        first = await client.chat("Hello", timeout=60)
        second = await client.chat("Hello", timeout=60)

    assert first.text.startswith(echo_of("Hello"))
    assert (first.source, second.source) == ("provider", "cache")
    assert second.text == first.text
    assert len(simulator.ledger()) == 1


async def test_a_request_carries_what_the_caller_said(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url) as front:
        await client.chat(
            [{"role": "user", "content": "Review"}],
            model="groq/llama", task="code", priority="high", cache="join", cache_scope="agent",
            constraints={"required_capabilities": ["tools"]}, request_id="r-1", timeout=60,
            temperature=0.2, agent="a param",
        )  # fmt: skip

    [asked] = front.asked
    assert asked.priority == "high"
    assert asked.reply_to == client.reply_to
    assert (asked.request.id, asked.request.agent, asked.request.model) == ("r-1", "tester", "groq/llama")
    assert (asked.request.cache, asked.request.cache_scope) == ("join", "agent")
    assert asked.request.constraints.required_capabilities == ("tools",)
    assert asked.request.params == {
        "messages": [{"role": "user", "content": "Review"}],
        "temperature": 0.2,
        "agent": "a param",
    }


async def test_an_error_on_the_wire_becomes_its_exception(client: Client, declared: House) -> None:
    def refuse(asked: Asked) -> Reply:
        report = ErrorReport(type=ErrorType(asked.prompt), message="No.", retryable=True, provider_status=418)
        return Reply(id=asked.request.id, status="error", provider="groq", error=report)

    async with desk(declared.amqp_url, refuse):
        errors = await client.map([str(kind) for kind in ErrorType], return_errors=True, timeout=60)

    for kind, error in zip(ErrorType, errors, strict=True):
        assert type(error) is type(error_of(ErrorReport(type=kind, message="")))
        assert (error.message, error.retryable, error.provider_status) == ("No.", True, 418)
        assert error.reply is not None
        assert error.reply.provider == "groq"


async def test_without_a_worker_the_deadline_ends_the_call(client: Client) -> None:
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.7 s; the request was accepted"):
        await client.chat("Anybody?", timeout=0.7)


async def test_without_a_broker_the_error_names_what_was_in_the_way(driver: Driver) -> None:
    async with open_client(driver, NOWHERE) as client:
        error = await outcome_of(client.chat("Anybody?", timeout=0.7))

    assert isinstance(error, Overloaded)
    assert "could not be handed over within 0.7 s" in error.message
    assert "RabbitMQ at amqp://guest:***@127.0.0.1:9/vhost cannot be reached" in error.message
    assert str(errno.ECONNREFUSED) in error.message


async def test_without_a_topology_a_call_fails_at_once(driver: Driver, house: House) -> None:
    async with open_client(driver, house.amqp_url) as client:
        with pytest.raises(Overloaded, match="topology apply"):
            await client.chat("Anybody?", timeout=3600)
        with pytest.raises(Overloaded, match="topology apply"):
            await client.chat("Still nobody?", timeout=3600)


async def test_a_missing_queue_behind_the_exchange_fails_the_call_at_once(
    client: Client, declared: House
) -> None:
    connection = await aio_pika.connect(declared.amqp_url)
    async with connection:
        await (await connection.channel()).queue_delete("requests.batch")

    with pytest.raises(Overloaded, match="topology apply"):
        await client.chat("Anybody?", priority="batch", timeout=3600)
    async with desk(declared.amqp_url, queues=("requests.high",)):
        assert (await client.chat("Somebody?", priority="high", timeout=60)).text == "Somebody?"


async def test_many_prompts_are_answered_in_their_order(client: Client, declared: House) -> None:
    prompts = [f"Prompt {n}" for n in range(200)]

    async with desk(declared.amqp_url) as front:
        replies = await client.map(prompts, at_once=50, timeout=60, progress=True)

    assert [reply.text for reply in replies] == prompts
    assert len(front.asked) == 200


async def test_no_more_wait_at_once_than_was_said(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        mapped = asyncio.ensure_future(client.map(["a", "b", "c", "d", "e"], at_once=2, timeout=60))
        for answered in range(5):
            expected = min(answered + 2, 5)
            await until(lambda: len(front.asked) >= expected)  # noqa: B023 - called before the next turn
            assert len(front.asked) == expected
            await front.reply(front.asked[answered], said(front.asked[answered], "yes"))
        assert [reply.text for reply in await mapped] == ["yes"] * 5


async def test_the_first_error_ends_a_map_and_withdraws_what_still_waits(
    client: Client, declared: House
) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        mapping = asyncio.ensure_future(client.map(["wait", "no", "wait more"], timeout=3600))
        await until(lambda: len(front.asked) == 3)
        asked = {asked.prompt: asked for asked in front.asked}
        await front.reply(asked["no"], refused(asked["no"]))
        with pytest.raises(ContentFiltered, match=r"Not that\."):
            await mapping

        await until(lambda: set(front.withdrawn) == {asked["wait"].request.id, asked["wait more"].request.id})


async def test_errors_can_take_the_place_of_replies(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, refusing("no", otherwise="yes")):
        outcomes = await client.map(["one", "no", "two"], return_errors=True, timeout=60)

    assert [type(outcome) for outcome in outcomes] == [Reply, ContentFiltered, Reply]


async def test_what_cannot_be_sent_takes_its_place_among_the_errors(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url):
        outcomes = await client.map(
            ["one", "x" * (9 << 20), "two"], return_errors=True, timeout=60, at_once=1
        )

    assert [type(outcome) for outcome in outcomes] == [Reply, InvalidRequest, Reply]


async def test_nothing_asked_is_nothing_answered(driver: Driver) -> None:
    async with open_client(driver, NOWHERE) as client:
        assert await client.map([]) == []


async def test_a_map_with_room_for_nobody_is_refused(driver: Driver) -> None:
    async with open_client(driver, NOWHERE) as client:
        with pytest.raises(InvalidRequest, match="at_once"):
            await client.map(["a"], at_once=0)


async def test_a_call_that_is_called_off_ends_and_is_withdrawn(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        call = asyncio.ensure_future(client.chat("Wait", request_id="mine", timeout=3600))
        await until(lambda: len(front.asked) == 1)

        assert client.cancel("mine")
        with pytest.raises(Cancelled):
            await call
        await until(lambda: front.withdrawn == ["mine"])
        assert not client.cancel("mine")


async def test_what_was_answered_cannot_be_called_off(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url) as front:
        await client.chat("Hello", request_id="mine", timeout=60)

        assert not client.cancel("mine")
        await client.chat("Again", request_id="mine", timeout=60)
    assert front.withdrawn == []


async def test_an_id_that_waits_is_not_taken_twice(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        call = asyncio.ensure_future(client.chat("Wait", request_id="mine", timeout=3600))
        await until(lambda: len(front.asked) == 1)

        with pytest.raises(InvalidRequest, match="request_id: 'mine' waits"):
            await client.chat("Me too", request_id="mine")
        await front.reply(front.asked[0], said(front.asked[0], "yours"))
        assert (await call).text == "yours"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"priority": "urgent"}, "priority"),
        ({"cache": "sometimes"}, "cache"),
        ({"cache_scope": "world"}, "cache_scope"),
        ({"constraints": {"max_cost_usd": -1}}, "max_cost_usd"),
        ({"model": ""}, "model"),
        ({"request_id": ""}, "id"),
        ({"timeout": float("nan")}, "deadline"),
        ({"tools": {1, 2}}, "only what JSON can carry"),
    ],
)
async def test_an_impossible_request_is_refused_before_it_is_published(
    driver: Driver, options: dict[str, Any], field: str
) -> None:
    async with open_client(driver, NOWHERE) as client:
        with pytest.raises(InvalidRequest, match=field):
            await client.chat("Hello", **options)


async def test_a_request_over_the_limit_is_refused_before_it_is_published(driver: Driver) -> None:
    async with open_client(driver, NOWHERE) as client:
        with pytest.raises(InvalidRequest, match="more than the limit"):
            await client.chat("x" * (8 << 20))


async def test_a_request_just_below_the_limit_and_an_answer_as_long_pass(
    client: Client, declared: House
) -> None:
    prompt = "x" * ((8 << 20) - 4096)

    async with desk(declared.amqp_url):
        reply = await client.chat(prompt, timeout=60)

    assert reply.text == prompt


async def test_replies_to_others_and_what_is_no_reply_are_dropped(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        call = asyncio.ensure_future(client.chat("Wait", timeout=60))
        await until(lambda: len(front.asked) == 1)
        [asked] = front.asked
        await front.reply(asked, Reply(id="stranger", status="ok", body={}))
        await front.reply(asked, b"nonsense")
        await front.reply(asked, said(asked, "mine"))
        await front.reply(asked, said(asked, "again"))

        assert (await call).text == "mine"
        await until(lambda: is_empty(declared, client.reply_to))


async def test_a_caller_is_told_what_the_request_waits_for(client: Client, declared: House) -> None:
    told: list[Waiting] = []

    async with desk(declared.amqp_url, nothing) as front:
        call = asyncio.ensure_future(client.chat("Wait", timeout=60, on_wait=told.append))
        await until(lambda: len(front.asked) == 1)
        [asked] = front.asked
        assert asked.request.tell_waits
        waiting = Waiting(id=asked.request.id, waits_for="groq's requests_per_minute", position=3)
        await front.reply(asked, waiting.to_bytes())
        await until(lambda: told == [waiting])
        assert not call.done()
        await front.reply(asked, said(asked, "at last"))
        assert (await call).text == "at last"


async def test_an_on_wait_that_fails_does_not_end_the_call(client: Client, declared: House) -> None:
    def fail(_: Waiting) -> None:
        raise ValueError("not my day")

    async with desk(declared.amqp_url, nothing) as front:
        call = asyncio.ensure_future(client.chat("Wait", timeout=60, on_wait=fail))
        await until(lambda: len(front.asked) == 1)
        [asked] = front.asked
        await front.reply(asked, Waiting(id=asked.request.id, waits_for="a limit").to_bytes())
        await front.reply(asked, said(asked, "at last"))
        assert (await call).text == "at last"


def refusing(prompt: str, otherwise: str | None = None) -> Callable[[Asked], Reply | None]:
    """Refuses this prompt; the others are answered with `otherwise`, or not at all."""

    def answer(asked: Asked) -> Reply | None:
        if asked.prompt == prompt:
            return refused(asked)
        return said(asked, otherwise) if otherwise else None

    return answer


def refused(asked: Asked) -> Reply:
    report = ErrorReport(type=ErrorType.CONTENT_FILTERED, message="Not that.")
    return Reply(id=asked.request.id, status="error", error=report)


async def is_empty(house: House, queue: str) -> bool:
    """Whether nothing is ready in the queue; what is unacknowledged is ready once its consumer is gone."""
    return await house.depth(queue) == 0
