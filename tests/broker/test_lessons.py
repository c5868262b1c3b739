"""What providers' errors have taught, in Redis."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from broker.lessons import STALE_S, Lesson, Lessons
from sandbox.nodes import Brokers
from topology.errors import ErrorType

NOW = 1_800_000_000.0
LESSON = Lesson(
    provider="groq", model="openai/gpt-oss-20b", feature="tools", error=ErrorType.INVALID_REQUEST, status=400,
    said="It does not support tools", times=1, first_at=NOW, last_at=NOW, until=NOW + 60,
)  # fmt: skip


@pytest.fixture
async def redis(brokers: Brokers) -> AsyncIterator[Redis]:
    async with Redis.from_url(brokers.redis_url) as opened:
        yield opened


@pytest.fixture
def lessons(redis: Redis) -> Lessons:
    return Lessons(redis, f"{secrets.token_hex(6)}:")


async def test_a_lesson_that_is_met_again_is_counted_and_keeps_its_beginning(lessons: Lessons) -> None:
    await lessons.learn(LESSON)
    again = await lessons.learn(replace(LESSON, first_at=NOW + 90, last_at=NOW + 90, until=NOW + 150))

    assert again == replace(LESSON, times=2, last_at=NOW + 90, until=NOW + 150)
    assert await lessons.read() == (again,)


async def test_those_who_learn_at_once_are_all_counted(lessons: Lessons) -> None:
    await asyncio.gather(*(lessons.learn(LESSON) for _ in range(8)))

    [learned] = await lessons.read()
    assert learned.times == 8


async def test_what_is_forgotten_is_learned_anew(lessons: Lessons) -> None:
    other = replace(LESSON, feature="max_tokens>4096")
    await lessons.learn(LESSON)
    await lessons.learn(LESSON)
    await lessons.learn(other)

    assert await lessons.forget([LESSON.name, "groq/no-such tools"]) == 1
    assert await lessons.read() == (other,)
    assert (await lessons.learn(LESSON)).times == 1


async def test_the_old_makes_room(lessons: Lessons) -> None:
    await lessons.learn(LESSON)
    await lessons.learn(replace(LESSON, feature="n>1", last_at=NOW + STALE_S, until=NOW + STALE_S + 60))
    assert len(await lessons.read()) == 2  # it may still be tried again

    await lessons.learn(replace(LESSON, feature="n>1", last_at=NOW + STALE_S + 60, until=NOW + 2 * STALE_S))
    assert [lesson.feature for lesson in await lessons.read()] == ["n>1"]


async def test_what_another_release_wrote_is_passed_over(redis: Redis) -> None:
    prefix = f"{secrets.token_hex(6)}:"
    lessons = Lessons(redis, prefix)
    await lessons.learn(LESSON)
    for name, packed in (
        ("a", b"\xff"),
        ("b", b"[]"),
        ("c", b'{"error": "new"}'),
        ("d", b'{"error": "internal"}'),
    ):
        await redis.hset(f"{prefix}lessons", name, packed)

    assert await lessons.read() == (LESSON,)
