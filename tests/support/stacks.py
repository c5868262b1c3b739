"""Where every task of an event loop stands: to be read when something never ends."""

import asyncio
from typing import Any


def stacks() -> str:
    """Each task of the running loop with what it awaits, down to the innermost line."""
    return "\n".join(_stack(task) for task in asyncio.all_tasks())


def _stack(task: "asyncio.Task[Any]") -> str:
    lines = [repr(task)]
    awaited: Any = task.get_coro()
    while awaited is not None:
        if frame := _first(awaited, "cr_frame", "ag_frame", "gi_frame"):
            lines.append(f"    {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}")
        awaited = _first(awaited, "cr_await", "ag_await", "gi_yieldfrom")
    return "\n".join(lines)


def _first(owner: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(owner, name, None)) is not None), None)
