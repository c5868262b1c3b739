"""The live progress: a bar on a terminal, a line now and then elsewhere."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sandbox.demo.agents import Tally

_REFRESH_S = 0.25
_LINE_S = 5.0


@asynccontextmanager
async def shown(tally: Tally, console: Console) -> AsyncIterator[None]:
    """Shows the tally until the block ends."""
    show = _bar if console.is_terminal else _lines
    showing = asyncio.create_task(show(tally, console), name="progress")
    try:
        yield
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing


async def _bar(tally: Tally, console: Console) -> None:
    columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # Drawn by us: rich's own thread would draw more often than anybody looks.
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("", total=tally.total)
        try:
            while True:
                progress.update(task, completed=tally.sent, description=_counts(tally), refresh=True)
                await asyncio.sleep(_REFRESH_S)
        finally:
            progress.update(task, completed=tally.sent, description=_counts(tally), refresh=True)


async def _lines(tally: Tally, console: Console) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_LINE_S)
        elapsed_s = time.monotonic() - began
        console.print(
            f"{elapsed_s:4.0f} s  sent {tally.sent}/{tally.total}  {_counts(tally)}", highlight=False
        )


def _counts(tally: Tally) -> str:
    return (
        f"answered {tally.answered}  hits {tally.hits}  joins {tally.joins}  "
        f"waiting {tally.waiting}  errors {tally.errors}"
    )
