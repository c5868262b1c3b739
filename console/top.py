"""`optimizer top`: the fleet as it works, on a terminal."""

import asyncio
import dataclasses
import json
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.live import Live

from broker.managing import management_url_of
from console.commands import FLEET_FILE, MANAGEMENT_URL, run
from console.status import AmqpUrl, RedisUrl
from console.top_frame import Look, frame
from console.top_picture import Picture
from console.top_watch import Sources, watching
from console.watching import amqp_url_or_exit, quiet_logging, refuse
from producer_sdk.settings import REDIS_URL, find_setting
from topology.fleet import Fleet
from topology.loading import ConfigurationError, load_fleet
from workers.ending import end_all
from workers.running import stop_on_signals

_PIPED: Final = (160, 1000)
"""Columns and lines when nobody looks: nothing is cut off for `grep`."""
_AT_ONCE: Final = 64


def top_command(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="Whose limits and keys are shown; default: fleet.toml, if there is one."
        ),
    ] = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame, after 2 seconds, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One frame for programs, and end.")] = False,
    url: AmqpUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Watch the fleet work: rates, queues, limits, circuits and keys, agents, workers.

        optimizer top
        optimizer top --config fleet.toml --interval 2
        optimizer top --once --json | jq .rates.requests.now

    Keys: 1 to 5 show everything, queues, limits, agents, workers; Tab the next
    of these; s sorts the agents by something else; q ends it.

    The rates at the top are of the last 10 s, their lines and all else of the
    last minute. Looking changes nothing. Where a broker is away, a line says so,
    and it goes on by itself.
    """
    amqp_url = amqp_url_or_exit(url)
    quiet_logging()
    sources = Sources(
        amqp_url,
        redis_url or find_setting(REDIS_URL),
        (None if url else find_setting(MANAGEMENT_URL)) or management_url_of(amqp_url),
        lambda: _fleet(config),
    )
    try:
        if as_json or once or not sys.stdout.isatty():
            picture = run(_one(sources, interval))
            _print(picture, as_json=as_json)
        else:
            run(_live(sources, interval))
    except ConfigurationError as error:
        refuse(str(error))


async def _one(sources: Sources, interval_s: float) -> Picture:
    async with watching(sources, interval_s) as watch:
        await watch.wait_until_ready()
        return watch.picture()


def _print(picture: Picture, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(picture)))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(width=_PIPED[0], height=_PIPED[1], highlight=False, markup=False, emoji=False)
    console.print(frame(picture, Look(), console.width, console.height - 1, keys=False))


async def _live(sources: Sources, interval_s: float) -> None:
    stop, stirred, look = asyncio.Event(), asyncio.Event(), Look()
    stop_on_signals(stop)

    def pressed(key: str) -> None:
        nonlocal look
        look = look.pressed(key)
        if key in {"q", "Q"}:
            stop.set()
        stirred.set()

    console = Console(highlight=False, markup=False, emoji=False)
    async with watching(sources, interval_s) as watch:
        with _keyboard(pressed), Live(console=console, screen=True, auto_refresh=False) as live:
            while not stop.is_set():
                live.update(frame(watch.picture(), look, console.width, console.height), refresh=True)
                stirred.clear()
                await _first_of(stop, stirred, within_s=interval_s)


async def _first_of(*events: asyncio.Event, within_s: float) -> None:
    """Waits until one of them is set, at most for so long."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    await end_all(waiting)


@contextmanager
def _keyboard(pressed: Callable[[str], None]) -> Iterator[None]:
    """Gives each key at once, without showing it, where there is a keyboard; puts the terminal back."""
    if not sys.stdin.isatty():
        yield
        return
    stdin, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)

    def read() -> None:
        for key in os.read(stdin, _AT_ONCE).decode(errors="replace"):
            pressed(key)

    loop.add_reader(stdin, read)
    try:
        yield
    finally:
        loop.remove_reader(stdin)
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _fleet(config: Path | None) -> Fleet | None:
    """As `optimizer status` takes it: without a file, what workers say is all that is known."""
    file = config or (FLEET_FILE if FLEET_FILE.is_file() else None)
    return load_fleet(file, secrets=False) if file else None
