"""Ending tasks for certain."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_AGAIN_S: Final = 1.0


async def end_all(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    """Cancels tasks until they have ended.

    Once is not enough: up to Python 3.11 `asyncio.wait_for` forgets a cancellation that comes when what it
    waits for has just ended, and libraries, aiormq among them, use it.
    """
    all_ = list(tasks)
    pending = {task for task in all_ if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_S)
    await asyncio.gather(*all_, return_exceptions=True)  # what one of them raised is looked at elsewhere
