"""Replicas of the role `alerts`: each thing is told once, whoever lives."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import aio_pika
import pytest
from redis.asyncio import Redis

from broker.alert_state import AlertState
from producer_sdk import AuthenticationFailed
from producer_sdk.transport import Outgoing, Published, Publisher
from sandbox.simulator import Account, Settings, SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until
from tests.support.webhooks import Receiver, receiving
from topology import names
from topology.events import EventType
from topology.fleet import Fleet
from topology.messages import Event, new_id

TWO = (["alerts"], ["alerts"])
CALLS_PER_DAY = 3
PROVIDER = f"limits = [{{ requests = {CALLS_PER_DAY}, window_s = 7200, counting = 'fixed' }}]"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def fleet(house: House, simulator: SimulatorProcess, receiver: Receiver) -> Fleet:
    fleet = house.simulated(simulator.base_url, provider=PROVIDER)
    text = (house.folder / "fleet.toml").read_text("utf-8")
    hooks = f'[{{ url = "http://127.0.0.1:9/dead" }}, {{ url = "{receiver.url}" }}]'
    fleet = house.fleet(f"[alerts]\nresolve_after_s = 0\nwebhooks = {hooks}\n{text}")
    assert fleet.alerts.webhooks
    return fleet


async def test_two_replicas_and_a_restart_tell_each_thing_once(
    house: House, simulator: SimulatorProcess, fleet: Fleet, receiver: Receiver
) -> None:
    """A dead webhook is in nobody's way, either."""
    async with house.workers(fleet), house.agent() as agent, house.events("optimizer.alert.#") as events:
        for n in range(CALLS_PER_DAY):
            await agent.chat(f"Prompt {n}")
        async with house.workers(fleet, *TWO):
            await until(lambda: receiver.told == [("quota_gone", "firing")])
            simulator.change(accounts=[Account(name="a", keys=["another-key"]).model_dump()])
            await forget_quota(house)
            with pytest.raises(AuthenticationFailed):
                await agent.chat("Who am I?")
            await until(lambda: ("key_lost", "firing") in receiver.told)
        simulator.change(**Settings().model_dump(mode="json"))
        await agent.chat("And now?")
        async with house.workers(fleet, *TWO):
            await until(lambda: ("key_lost", "resolved") in receiver.told)
            await until(lambda: ("quota_gone", "resolved") in receiver.told)
            await until(lambda: len(events) >= 4)

    assert sorted(receiver.told) == [
        ("key_lost", "firing"),
        ("key_lost", "resolved"),
        ("quota_gone", "firing"),
        ("quota_gone", "resolved"),
    ]
    posted = {post.headers["webhook-id"]: post.said for post in receiver.posts}
    assert {event.id: event.model_dump(mode="json") for event in events} == posted
    assert "sk-simulated" not in repr(receiver.posts)


async def test_who_loses_the_lease_hears_nothing_and_goes_on_when_it_is_free(
    house: House, fleet: Fleet, receiver: Receiver
) -> None:
    lease = f"{house.prefix}o1:alerts:lease"
    place = {"provider": "simulated", "account": None, "model": None, "scope": "provider"}
    async with house.workers(fleet, ["alerts"]), Redis.from_url(house.redis_url) as redis:
        await until(lambda: is_listened_to(house))
        call = {"provider": "simulated", "model": "sim-small", "account": "a", "error": "provider_error"}
        await publish(house, redis, EventType.CIRCUIT_OPENED, **place)
        await publish(house, redis, *([EventType.CALL_FAILED] * 20), **call)
        await until(lambda: set(receiver.told) == {("circuit_open", "firing"), ("error_rate", "firing")})
        await redis.set(lease, "another worker")
        await until(lambda: nobody_listens(house))
        await publish(house, redis, EventType.CIRCUIT_CLOSED, **place)
        await redis.delete(lease)
        await until(lambda: ("circuit_open", "resolved") in receiver.told)

    assert len({post.headers["webhook-id"] for post in receiver.posts}) == 3


async def publish(house: House, redis: Redis, *types: EventType, **facts: Any) -> None:
    seconds, microseconds = await redis.time()
    async with Publisher(house.amqp_url, "test") as publisher:
        for type_ in types:
            event = Event(id=new_id(), type=type_.value, at=seconds + microseconds / 1e6, **facts)
            message = Outgoing(names.EVENTS, event.type, event.to_bytes(), mandatory=False)
            assert await publisher.publish(message) is Published.CONFIRMED


async def is_listened_to(house: House) -> bool:
    async with await aio_pika.connect(house.amqp_url) as connection:
        try:
            queue = await (await connection.channel()).declare_queue(names.ALERTS_QUEUE, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
        return bool(queue.declaration_result.consumer_count)


async def nobody_listens(house: House) -> bool:
    return not await is_listened_to(house)


async def forget_quota(house: House) -> None:
    async with Redis.from_url(house.redis_url) as redis:
        [key] = [key async for key in redis.scan_iter(f"{house.prefix}o1:rate:simulated:*7200s:*")]
        await redis.delete(key)


@pytest.fixture
async def replicas(house: House) -> AsyncIterator[tuple[AlertState, AlertState, Redis]]:
    async with Redis.from_url(house.redis_url) as redis:
        prefix = f"{house.prefix}o1:"
        yield AlertState(redis, prefix, "one"), AlertState(redis, prefix, "two"), redis


async def test_one_leads_until_it_resigns(replicas: tuple[AlertState, AlertState, Redis]) -> None:
    one, two, _ = replicas

    assert [await one.lead(), await two.lead(), await one.lead()] == ["gained", "lost", "kept"]
    await two.resign()
    assert await two.lead() == "lost"
    await one.resign()
    assert [await two.lead(), await one.lead()] == ["gained", "lost"]


async def test_who_leads_no_more_writes_nothing(
    house: House, replicas: tuple[AlertState, AlertState, Redis]
) -> None:
    one, two, redis = replicas
    await one.lead()
    assert await one.write({"firing": {"a": b"1", "b": b"2"}}, {7: {"x": 2}})
    await redis.delete(f"{house.prefix}o1:alerts:lease")  # it was frozen for longer than its lease
    await two.lead()

    assert not await one.write({"firing": {"a": None}}, {7: {"x": 1}})
    assert await two.write({"firing": {"b": None}}, {7: {"x": 1}})
    stored = await two.load(["firing", "heard"], [7, 8])
    assert stored.tables == {"firing": {"a": b"1"}, "heard": {}}
    assert stored.counts == {7: {"x": 3}, 8: {}}
