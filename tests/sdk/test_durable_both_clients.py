"""Durable requests, whichever library carries them: a desk stands where the fronts stand."""

import asyncio
import time

import aio_pika
import httpx
import pytest

from producer_sdk import (
    Cancelled,
    ContentFiltered,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    Reply,
    Submitted,
    UnknownJob,
)
from tests.sdk.test_both_clients import refusing
from tests.support.clients import Client, Driver, desk, echo, nothing, open_client, outcome_of, said
from tests.support.connections import close_connections
from tests.support.house import House
from tests.support.waiting import until
from topology import names

NOWHERE = "amqp://guest:secret@127.0.0.1:9/vhost"


async def stands(house: House, request_id: str) -> bool:
    """Whether the queue for the reply is there."""
    connection = await aio_pika.connect(house.amqp_url)
    async with connection:
        channel = await connection.channel()
        try:
            await channel.declare_queue(names.job_reply_queue("tester", request_id), passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
        return True


async def test_a_durable_request_has_a_queue_of_its_own_for_its_reply(
    client: Client, declared: House
) -> None:
    before = time.time()
    async with desk(declared.amqp_url, nothing) as front:
        job = await client.submit("Long work", model="groq/llama", priority="batch", request_id="night-1")
        await until(lambda: len(front.asked) == 1)

    [asked] = front.asked
    assert (job.id, job.agent, str(job)) == ("night-1", "tester", "night-1")
    assert before + 86400 <= job.deadline <= time.time() + 86400
    assert asked.reply_to == "reply.tester.job.night-1"
    assert (asked.request.durable, asked.request.deadline, asked.priority) == (True, job.deadline, "batch")
    assert (asked.request.model, asked.prompt) == ("groq/llama", "Long work")


async def test_the_queue_stands_before_the_request_is_published(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, echo):
        job = await client.submit("Quick work")
        reply = await client.result(job, timeout=60)

    assert (reply.text, reply.id) == ("Quick work", job.id)


async def test_another_client_of_the_agent_takes_the_reply_by_its_id_alone(
    driver: Driver, declared: House
) -> None:
    async with desk(declared.amqp_url):
        async with open_client(driver, declared.amqp_url) as first:
            text = str(await first.submit("Long work"))
        async with open_client(driver, declared.amqp_url) as second:
            reply = await second.result(text, timeout=60)

    assert reply.text == "Long work"


async def test_a_reply_that_was_taken_is_gone_with_its_queue(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url):
        job = await client.submit("Once")
        await client.result(job, timeout=60)

        assert not await stands(declared, job.id)
        with pytest.raises(UnknownJob, match=f"'{job.id}': it was never submitted .* was taken already"):
            await client.result(job, timeout=3600)


async def test_a_reply_that_is_kept_is_there_for_the_next_who_asks(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url):
        job = await client.submit("Again and again")
        texts = [(await client.result(job, timeout=60, keep=True)).text for _ in range(3)]
        texts.append((await client.result(job, timeout=60)).text)

    assert texts == ["Again and again"] * 4
    assert not await stands(declared, job.id)


async def test_an_error_is_the_result_as_well_and_taken_with_it(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, refusing("No")):
        job = await client.submit("No")
        with pytest.raises(ContentFiltered, match=r"Not that\."):
            await client.result(job, timeout=60)

    assert not await stands(declared, job.id)


async def test_an_id_that_was_never_submitted_is_told_at_once(client: Client) -> None:
    with pytest.raises(UnknownJob, match="'never'"):
        await client.result("never", timeout=3600)


async def test_of_two_who_ask_at_once_one_takes_it(driver: Driver, declared: House) -> None:
    async with (
        desk(declared.amqp_url, nothing) as front,
        open_client(driver, declared.amqp_url) as one,
        open_client(driver, declared.amqp_url) as other,
    ):
        job = await one.submit("For one of us")
        asking = [asyncio.ensure_future(outcome_of(c.result(job, timeout=100))) for c in (one, other)]
        await until(lambda: consumers(declared, job, 2))
        await until(lambda: len(front.asked) == 1)
        await front.reply(front.asked[0], echo(front.asked[0]))
        outcomes = await asyncio.gather(*asking)

    assert {type(outcome) for outcome in outcomes} == {Reply, UnknownJob}


async def consumers(house: House, job: Submitted, number: int) -> bool:
    connection = await aio_pika.connect(house.amqp_url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(names.job_reply_queue(job.agent, job.id), passive=True)
        return queue.declaration_result.consumer_count == number


async def test_nothing_within_the_timeout_leaves_the_request_alone(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        job = await client.submit("Slow")
        with pytest.raises(DeadlineExceeded, match=r"no reply within 0\.5 s; .* goes on"):
            await client.result(job, timeout=0.5)

        await until(lambda: len(front.asked) == 1)
        assert front.withdrawn == []
        await front.reply(front.asked[0], said(front.asked[0], "at last"))
        assert (await client.result(job, timeout=60)).text == "at last"


async def test_the_handles_deadline_is_the_authority(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        job = await client.submit("Too slow", timeout=1.0)
        for _ in range(2):  # waiting for it to pass, and long after
            with pytest.raises(DeadlineExceeded, match="not answered by its deadline"):
                await client.result(job, timeout=3600)

        await until(lambda: len(front.asked) == 1)
        await front.reply(front.asked[0], said(front.asked[0], "late"))
        await until(lambda: holds(declared, job))
        assert (await client.result(job, timeout=60)).text == "late"


async def holds(house: House, job: Submitted) -> bool:
    return await house.depth(names.job_reply_queue(job.agent, job.id)) == 1


async def test_the_same_id_again_is_the_same_request(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        first = await client.submit("Once", request_id="once")
        again = await client.submit("Once", request_id="once")
        await until(lambda: len(front.asked) == 2)
        for asked in front.asked:
            await front.reply(asked, echo(asked))
        await until(lambda: two_wait(declared))

        assert first.id == again.id == "once"
        assert {asked.reply_to for asked in front.asked} == {"reply.tester.job.once"}
        assert (await client.result("once", timeout=60)).text == "Once"
        with pytest.raises(UnknownJob):
            await client.result("once", timeout=60)


async def two_wait(house: House) -> bool:
    return await house.depth("reply.tester.job.once") == 2


async def test_a_submitted_request_can_be_called_off(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        job = await client.submit("Never mind")

        assert client.cancel(job)
        await until(lambda: front.withdrawn == [job.id])


async def test_a_client_that_is_not_connected_yet_calls_off_once_it_is(
    driver: Driver, declared: House
) -> None:
    async with (
        desk(declared.amqp_url, nothing) as front,
        open_client(driver, declared.amqp_url) as client,
    ):
        client.cancel(Submitted("of-yesterday", "tester", time.time() + 60))
        await until(lambda: front.withdrawn == ["of-yesterday"])


async def test_what_is_no_reply_to_it_is_dropped(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        job = await client.submit("Mine")
        await until(lambda: len(front.asked) == 1)
        [asked] = front.asked
        await front.reply(asked, b"nonsense")
        await front.reply(asked, Reply(id="stranger", status="ok", body={}))
        await front.reply(asked, said(asked, "yours"))

        assert (await client.result(job, timeout=60)).text == "yours"


@pytest.mark.parametrize("request_id", ["", "two words", "line\nend", "naïve", "a/b", "x" * 129])
async def test_an_id_that_cannot_be_in_a_queues_name_is_refused(driver: Driver, request_id: str) -> None:
    async with open_client(driver, NOWHERE) as client:
        with pytest.raises(InvalidRequest, match="id"):
            await client.submit("Hello", request_id=request_id)
        with pytest.raises(InvalidRequest, match="request_id: "):
            await client.result(request_id)


async def test_a_request_of_another_agent_is_not_ours(driver: Driver) -> None:
    async with open_client(driver, NOWHERE) as client:
        with pytest.raises(InvalidRequest, match="of agent 'other', and this client of 'tester'"):
            await client.result(Submitted("id", "other", time.time() + 60))


async def test_a_request_that_would_outlive_the_place_for_its_reply_is_refused(driver: Driver) -> None:
    async with open_client(driver, NOWHERE) as client:
        with pytest.raises(InvalidRequest, match="timeout: 604800 s is more than 518400"):
            await client.submit("Hello", timeout=7 * 86400)


async def test_nobody_can_be_told_why_a_submitted_request_waits(driver: Driver) -> None:
    async with open_client(driver, NOWHERE) as client:
        with pytest.raises(InvalidRequest, match="on_wait"):
            await client.submit("Hello", on_wait=print)


async def test_without_a_broker_both_end_within_their_time_and_name_what_was_in_the_way(
    driver: Driver,
) -> None:
    async with open_client(driver, NOWHERE) as client:
        with pytest.raises(Overloaded, match=r"over within 0\.7 s: .*127\.0\.0\.1:9.*request_id='mine'"):
            await client.submit("Hello", confirm_timeout=0.7, request_id="mine")
        with pytest.raises(Overloaded, match=r"looked for within 0\.7 s: .*127\.0\.0\.1:9"):
            await client.result("mine", timeout=0.7)


async def test_without_a_topology_submitting_fails_at_once(driver: Driver, house: House) -> None:
    async with open_client(driver, house.amqp_url) as client:
        with pytest.raises(Overloaded, match="topology apply"):
            await client.submit("Anybody?")


async def test_a_look_outlives_its_connection(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        job = await client.submit("Patience")
        looking = asyncio.ensure_future(client.result(job, timeout=100))
        await until(lambda: consumers(declared, job, 1))
        await until(lambda: len(front.asked) == 1)
        assert await close_connections(declared, "consuming") >= 1
        await front.reply(front.asked[0], echo(front.asked[0]))

        assert (await looking).text == "Patience"


async def test_a_look_that_is_left_at_the_end_of_the_client_ends(driver: Driver, declared: House) -> None:
    async with desk(declared.amqp_url, nothing):
        async with open_client(driver, declared.amqp_url) as client:
            job = await client.submit("Wait")
            looking = asyncio.ensure_future(client.result(job, timeout=3600))
            await until(lambda: consumers(declared, job, 1))
        with pytest.raises((Cancelled, asyncio.CancelledError)):
            await looking


async def test_many_at_once_leave_no_channel_behind(client: Client, declared: House) -> None:
    async with desk(declared.amqp_url):
        first = await client.submit("First")
        await client.result(first, timeout=60)
        jobs = await asyncio.gather(*(client.submit(f"Prompt {n}") for n in range(60)))
        replies = await asyncio.gather(*(client.result(job, timeout=100) for job in jobs))

        assert [reply.text for reply in replies] == [f"Prompt {n}" for n in range(60)]
        await until(lambda: channels(declared) == 3)  # the desk's, and two of the client's


def channels(house: House) -> int:
    answer = httpx.get(f"{house.management_url}/api/vhosts/{house.vhost}/channels", timeout=30)
    return len(answer.json())
