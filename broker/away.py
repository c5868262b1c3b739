"""Asking Redis: the one error for when it cannot be asked, and cancellations that arrive."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError


class StateAway(Exception):
    """Redis cannot be reached, or refuses for now. Asking again is harmless."""


@contextmanager
def asking() -> Iterator[None]:
    """Goes around everything that is said to Redis.

    redis-py writes inside `asyncio.wait_for`, which up to Python 3.11 forgets a cancellation that comes when
    the writing has just ended: the task would go on, and whoever cancelled it would wait for ever. What was
    forgotten is raised here.

    Raises:
        StateAway: In place of redis-py's errors, and the system's.
        CancelledError: The task was cancelled meanwhile.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    except (RedisError, OSError) as error:
        _raise_if_cancelled(task, before)
        raise StateAway(f"{type(error).__name__}: {error}") from error
    _raise_if_cancelled(task, before)


def _raise_if_cancelled(task: "asyncio.Task[object] | None", before: int) -> None:
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
