"""`optimizer dead`: looking at what is kept, sending it back, forgetting it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from typer.testing import Result

from producer_sdk.transport import Publisher
from sandbox.simulator import SimulatorProcess
from tests.support.commands import optimizer as command
from tests.support.dead import QUEUE, REQUESTS, Morgue, envelope, morgue
from tests.support.house import House, echo_of
from tests.support.waiting import until
from topology import names
from topology.fleet import Fleet
from topology.messages import Cancel
from workers.keeping import kept

SECRET = "hello r1"
"""What the request asks; nobody sees it unless they ask for it."""


@pytest.fixture
def fleet(own_redis: House, simulator: SimulatorProcess) -> Fleet:
    return own_redis.simulated(simulator.base_url)


@pytest.fixture
async def m(own_redis: House, fleet: Fleet) -> AsyncIterator[Morgue]:
    await own_redis.declare(fleet)
    async with morgue(own_redis) as opened:
        yield opened


async def keep(m: Morgue, queue: str, body: bytes, reason: str, **options: Any) -> str:
    """A copy as workers make them; returns its id."""
    copy = kept(queue, body, reason, **options)
    async with Publisher(m.house.amqp_url, "test") as publisher:
        await publisher.publish(copy)
    assert copy.headers is not None
    return str(copy.headers["x-id"])


async def keep_job(m: Morgue, id_: str = "r1", reason: str = "worn out", *, left_s: float = 60.0) -> str:
    job = m.job(m.waiter(id_, left_s=left_s), fingerprint=f"f-{id_}")
    return await keep(m, QUEUE, job.to_bytes(), reason, waiter=job.waiter)


async def keep_request(m: Morgue, **changes: Any) -> str:
    """What a front could not get through with, with all that its sender said beside it."""
    async with m.house.workers(m.house.fleet((m.house.folder / "fleet.toml").read_text()), ["undertaker"]):
        await m.ask(m.request(**changes))
        await m.reject(REQUESTS)
        message = await m.next_of(names.DEAD_KEPT_QUEUE)
        await message.reject(requeue=True)
    return str(message.headers["x-id"])


def listed(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


async def test_a_list_says_what_is_kept_and_why_oldest_first_and_takes_nothing_away(m: Morgue) -> None:
    ids = [await keep_job(m, f"r{n}", f"reason {n}") for n in range(40)]
    noise = await keep(m, REQUESTS, b"noise", "nobody can read this\x1b[2J")

    first = await command(m.house, "dead", "list", "--json")
    again = await command(m.house, "dead", "list", "--json")
    for_people = await command(m.house, "dead", "list", "--limit", "2")
    last = await command(m.house, "dead", "list")

    assert [copy["id"] for copy in listed(first)] == [*ids, noise]
    assert again.stdout == first.stdout
    facts = listed(first)[0]
    assert (facts["queue"], facts["agent"], facts["request_id"]) == (QUEUE, "tester", "r0")
    assert facts["reason"] == "reason 0"
    assert facts["size_bytes"] > 0
    assert abs(facts["kept_at"] - m.now) < 60.0
    assert ids[1] in for_people.stdout
    assert ids[2] not in for_people.stdout
    assert "39 more: --limit 41" in for_people.stderr
    assert "\x1b" not in last.stdout
    assert await m.house.depth(names.DEAD_KEPT_QUEUE) == 41


async def test_an_empty_list_says_so(m: Morgue) -> None:
    done = await command(m.house, "dead", "list")

    assert (done.exit_code, done.stdout) == (0, "")
    assert "nothing is kept" in done.stderr


async def test_a_copy_can_be_looked_at_more_often_than_a_queue_of_rabbitmq_4_allows_by_itself(
    m: Morgue,
) -> None:
    id_ = await keep_job(m)

    for _ in range(25):
        message = await m.next_of(names.DEAD_KEPT_QUEUE)
        await message.reject(requeue=True)

    assert [copy["id"] for copy in listed(await command(m.house, "dead", "list", "--json"))] == [id_]


async def test_one_is_shown_whole_but_what_was_asked_only_on_demand(m: Morgue) -> None:
    id_ = await keep_job(m)

    shown = await command(m.house, "dead", "show", id_)
    whole = await command(m.house, "dead", "show", id_, "--body")

    assert SECRET not in shown.stdout
    facts = json.loads(shown.stdout)
    assert facts["headers"]["x-reason"] == "worn out"
    assert facts["message"]["waiter"]["id"] == "r1"
    assert facts["message"]["request"]["params"] == "hidden; --body shows it"
    assert json.loads(whole.stdout)["message"]["request"]["params"]["messages"][0]["content"] == SECRET


async def test_what_cannot_be_read_is_shown_as_it_is_on_demand(m: Morgue) -> None:
    id_ = await keep(m, REQUESTS, SECRET.encode(), "unreadable")

    shown = json.loads((await command(m.house, "dead", "show", id_)).stdout)
    whole = json.loads((await command(m.house, "dead", "show", id_, "--body")).stdout)

    assert "not msgpack" in shown["message"]["unreadable"]
    assert shown["message"]["base64"] == "hidden; --body shows it"
    assert whole["message"]["base64"] == "aGVsbG8gcjE="


async def test_an_unknown_id_is_an_error_and_nothing_is_done(m: Morgue) -> None:
    id_ = await keep_job(m)

    results = [
        await command(m.house, "dead", "show", "nobody"),
        await command(m.house, "dead", "replay", id_, "nobody"),
        await command(m.house, "dead", "drop", "--yes", id_, "nobody"),
    ]

    for result in results:
        assert result.exit_code == 1
        assert "no copy has the id 'nobody'" in result.stderr
    assert await m.house.depth(names.DEAD_KEPT_QUEUE) == 1


@pytest.mark.parametrize("words", [("replay",), ("drop", "--yes"), ("replay", "--all", "x")])
async def test_it_must_be_said_which(m: Morgue, words: tuple[str, ...]) -> None:
    done = await command(m.house, "dead", *words)

    assert done.exit_code == 1
    assert "which? Name ids, or give --all" in done.stderr


async def test_a_job_is_replayed_and_answered(m: Morgue, fleet: Fleet) -> None:
    id_, other = await keep_job(m), await keep_job(m, "r2")

    done = await command(m.house, "dead", "replay", id_)
    async with m.house.workers(fleet):
        reply = await m.is_answered()
    left = listed(await command(m.house, "dead", "list", "--json"))

    assert (done.exit_code, done.stdout) == (0, f"{id_}: back in requests.normal\n")
    assert reply.text.startswith(echo_of(SECRET)[:10])
    assert [copy["id"] for copy in left] == [other]


async def test_a_request_that_no_front_had_seen_is_replayed_and_answered(m: Morgue, fleet: Fleet) -> None:
    id_ = await keep_request(m, deadline=None)
    await m.channel.get_queue("retry.5m")
    await command(m.house, "dead", "replay", id_, "--timeout", "60")

    async with m.house.workers(fleet):
        reply = await m.is_answered()

    assert reply.status == "ok"


async def test_an_envelope_is_replayed_and_answered(m: Morgue, fleet: Fleet) -> None:
    async with m.house.workers(fleet, ["undertaker"]):
        await m.publish(envelope(m.request(), m.waiter(left_s=-5.0)), REQUESTS)
        await m.reject(REQUESTS)
        refused = await m.is_answered()
        m.replies.clear()
    [copy] = listed(await command(m.house, "dead", "list", "--json"))
    await command(m.house, "dead", "replay", copy["id"], "--timeout", "60")

    async with m.house.workers(fleet):
        reply = await m.is_answered()

    assert refused.error is not None
    assert reply.status == "ok"


async def test_a_deadline_that_is_past_needs_a_new_one(m: Morgue, fleet: Fleet) -> None:
    id_ = await keep_job(m, left_s=-100.0)

    refused = await command(m.house, "dead", "replay", id_)
    kept_still = await m.house.depth(names.DEAD_KEPT_QUEUE)
    done = await command(m.house, "dead", "replay", id_, "--timeout", "60")
    async with m.house.workers(fleet):
        reply = await m.is_answered()

    assert refused.exit_code == 1
    assert "its deadline passed" in refused.stderr
    assert "--timeout gives it a new one" in refused.stderr
    assert kept_still == 1
    assert done.exit_code == 0
    assert reply.status == "ok"


async def test_all_of_one_reason_are_replayed_and_what_cannot_be_stays_and_is_named(m: Morgue) -> None:
    good = await keep_job(m, "r1", "worn out: by its workers")
    noise = await keep(m, QUEUE, b"noise", "worn out: it is noise")
    other = await keep_job(m, "r2", "something else")

    done = await command(m.house, "dead", "replay", "--all", "--reason-contains", "worn out")
    left = listed(await command(m.house, "dead", "list", "--json"))

    assert done.exit_code == 1
    assert f"{good}: back in requests.normal" in done.stdout
    assert f"{noise}: not replayed: job: the body is not msgpack" in done.stderr
    assert [copy["id"] for copy in left] == [noise, other]


async def test_nobody_is_replayed_as_somebody_else(m: Morgue) -> None:
    forged = await keep_request(m, agent="victim", model="nobody/x")
    cancel = await keep(m, REQUESTS, Cancel(id="r1").to_bytes(), "a request without its sender")

    done = await command(m.house, "dead", "replay", "--timeout", "60", forged, cancel)

    assert done.exit_code == 1
    assert f"{forged}: not replayed: agent and id are not those" in done.stderr
    assert f"{cancel}: not replayed" in done.stderr


async def test_what_is_dropped_is_gone_and_only_that(m: Morgue) -> None:
    ids = [await keep_job(m, f"r{n}", f"reason {n}") for n in range(3)]

    one = await command(m.house, "dead", "drop", "--yes", ids[0])
    some = await command(m.house, "dead", "drop", "--yes", "--all", "--reason-contains", "reason 2")
    left = listed(await command(m.house, "dead", "list", "--json"))

    assert (one.stdout, some.stdout) == ("dropped: 1\n", "dropped: 1\n")
    assert [copy["id"] for copy in left] == [ids[1]]


async def test_dropping_asks_first(m: Morgue) -> None:
    await keep_job(m)

    unsaid = await command(m.house, "dead", "drop", "--all")

    assert unsaid.exit_code == 1
    assert "Forget all of them for good?" in unsaid.stdout
    assert await m.house.depth(names.DEAD_KEPT_QUEUE) == 1


async def test_what_rabbitmq_itself_put_there_is_listed_too(m: Morgue) -> None:
    job = m.job(m.waiter())
    await m.publish(job.to_bytes(), "jobs.gone.any.normal")
    for _ in range(101):  # as often as undertakers would have died of it
        await (await m.next_of(names.DEAD_QUEUE)).reject(requeue=True)
    await until(lambda: m.holds(names.DEAD_KEPT_QUEUE))

    [copy] = listed(await command(m.house, "dead", "list", "--json"))
    done = await command(m.house, "dead", "drop", "--yes", copy["id"])

    assert "put here by RabbitMQ" in copy["reason"]
    assert copy["size_bytes"] == len(job.to_bytes())
    assert done.stdout == "dropped: 1\n"
