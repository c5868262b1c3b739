"""`event_monitor`: shows the events of `optimizer.events` as they happen."""

import asyncio
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Annotated, Final, Self, TextIO

import aiormq
import typer
from aiormq import Channel

from console.commands import run, says
from console.heartbeat import beating
from console.watching import (
    EVERYTHING,
    BadPattern,
    Choice,
    amqp_url_or_exit,
    binding_key,
    choice_of,
    quiet_logging,
    refuse,
)
from console.watching_lines import Show, json_lines, text_lines
from producer_sdk.settings import masked
from producer_sdk.transport import Delivery, Subscriber, Subscription
from topology import names
from topology.errors import Refused
from topology.messages import Event
from workers.running import stop_on_signals

PREFETCH: Final = 500
QUEUE_EXPIRES_MS: Final = 60_000
MOST_QUEUED: Final = 50_000
"""Events kept for a reader that has stopped reading; the oldest go first."""

_REMEMBERED: Final = 4 * PREFETCH
_PATIENCE_S: Final = 2.0
_GOODBYE_S: Final = 2.0


class EventTail:
    """The events from entering on, as an async iterator that outlives its connection.

    Owns a connection and a queue, which it deletes on leaving; RabbitMQ deletes the queue of a tail that
    died after a minute. While the connection is away, events collect in the queue. An event that is
    delivered again is passed over.

    Args:
        url: RabbitMQ, with the topology applied.
        patterns: As on the command line: `optimizer.cache.*` is everything below `optimizer.cache`.
        name: What its connection is called in RabbitMQ.

    Raises:
        BadPattern: A pattern does not begin with `optimizer`.
    """

    def __init__(
        self, url: str, patterns: Sequence[str] = (EVERYTHING,), name: str = "event_monitor"
    ) -> None:
        self.keys = tuple(binding_key(pattern) for pattern in patterns)
        self.url = url
        self.queue = f"events.monitor.{secrets.token_hex(6)}"
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._subscription = Subscription(
            self.queue, PREFETCH, self._arrived.put_nowait, self._declare, self._rename
        )
        self._down = asyncio.Event()
        self._subscriber = Subscriber(url, name, on_lost=self._down.set)
        self._channel: Channel | None = None
        self._seen: dict[str, None] = {}

    async def __aenter__(self) -> Self:
        await self._subscriber.add(self._subscription)
        await self._subscriber.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._delete_queue()
        finally:
            await self._subscriber.__aexit__(kind, error, trace)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event; waits for one, and for the broker if it is away."""
        while True:
            delivery = await self._arrived.get()
            delivery.ack()
            try:
                event = Event.from_bytes(delivery.body)
            except Refused:
                continue  # not of this release, or of somebody else; nothing to show
            if event.id not in self._seen:
                self._remember(event.id)
                return event

    @property
    def is_up(self) -> bool:
        """Whether events are coming in."""
        return self._subscriber.is_up

    async def wait_until_up(self, timeout: float | None = None) -> bool:
        """Waits until events are coming in, at most `timeout` seconds; False when they do not."""
        return await self._subscriber.wait_until_up(timeout)

    async def wait_until_lost(self) -> None:
        """Waits until the connection is away."""
        while self._subscriber.is_up:
            self._down.clear()
            await self._down.wait()

    def why_down(self) -> str:
        """One clause about a connection that does not come, with the remedy where there is one."""
        if names.EVENTS in (self._subscriber.last_error or ""):
            return f"{masked(self.url)} has no exchange {names.EVENTS} (run: optimizer topology apply)"
        return self._subscriber.why_down()

    def _rename(self, queue: str) -> None:
        self.queue = queue

    async def _declare(self, channel: Channel) -> None:
        self._channel = channel
        await channel.queue_declare(
            self.queue,
            durable=True,
            arguments={
                "x-queue-type": "classic",
                "x-expires": QUEUE_EXPIRES_MS,
                "x-max-length": MOST_QUEUED,
                "x-overflow": "drop-head",
            },
        )
        for key in self.keys:
            await channel.queue_bind(self.queue, names.EVENTS, key)

    async def _delete_queue(self) -> None:
        if self._channel is None or not self._subscriber.is_up:
            return
        with suppress(aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError, OSError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._subscriber.drop(self._subscription)
                await self._channel.queue_delete(self.queue)

    def _remember(self, event_id: str) -> None:
        self._seen[event_id] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]


async def watch(
    patterns: Sequence[str],
    *,
    amqp_url: str,
    out: TextIO,
    as_json: bool = False,
    agents: Sequence[str] = (),
    types: Sequence[str] = (),
    count: int | None = None,
    all_health: bool = False,
    say: Callable[[str], None] = says,
    stop: asyncio.Event | None = None,
) -> None:
    """Prints events until `count` of them are shown, `stop` is set, or it is cancelled.

    Args:
        patterns: As for `EventTail`; none: everything.
        amqp_url: RabbitMQ.
        out: Where the lines go, and nothing else.
        as_json: One JSON object a line, instead of text for people.
        agents: Names or shell-style patterns; none: all.
        types: Beginnings of types, with or without `optimizer.`; none: all.
        count: None: without end.
        all_health: Whether to show heartbeats that no pattern and no type asks for.
        say: Told, in one line, what is watched and when the broker is away or back.
        stop: Set to end it.

    Raises:
        BadPattern: A pattern does not begin with `optimizer`.
        BrokenPipeError: Nobody reads `out` any more.
    """
    tail = EventTail(amqp_url, patterns or (EVERYTHING,))
    choice = choice_of(tail.keys, agents=agents, types=types, all_health=all_health)
    show = json_lines(out) if as_json else text_lines(out)
    async with tail:
        tasks = [
            asyncio.create_task(_show(tail, choice, show, count), name="show events"),
            asyncio.create_task(_tell_of_connection(tail, say), name="tell of connection"),
            asyncio.create_task((stop or asyncio.Event()).wait(), name="stop"),
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()


async def _show(tail: EventTail, choice: Choice, show: Show, count: int | None) -> None:
    shown = 0
    async for event in tail:
        if choice.takes(event):
            show(event)
            shown += 1
        if shown == count:
            return


async def _tell_of_connection(tail: EventTail, say: Callable[[str], None]) -> None:
    where = masked(tail.url)
    if not await tail.wait_until_up(_PATIENCE_S):
        say(f"{tail.why_down()}; waiting for it")
        await tail.wait_until_up()
    say(f"watching {' '.join(tail.keys)} at {where}; Ctrl-C ends it")
    while True:
        await tail.wait_until_lost()
        say(f"lost RabbitMQ at {where}; waiting for it to return")
        await tail.wait_until_up()
        say(f"RabbitMQ at {where} is back; watching again")


def events_command(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATTERN", help="Which events; default: 'optimizer.*', all of them."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
    agents: Annotated[
        list[str] | None,
        typer.Option("--agent", metavar="NAME", help="Only this agent's; repeatable, and * and ? work."),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only types that begin so, as cache.hit; repeatable."),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after so many events.")] = None,
    health: Annotated[
        bool, typer.Option("--health", help="Show the workers' heartbeats too, one a second from each.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="AMQP_URL", help="RabbitMQ; default: OPTIMIZER_AMQP_URL, .optimizer/env."
        ),
    ] = None,
) -> None:
    """Show what happens, as it happens: hits, joins, calls and their cost, waits, errors.

    Patterns are RabbitMQ's (* is one word, # any number of them), but a last *
    means everything below. Put them in quotes, or the shell may take them for
    file names. `optimizer events` and `event_monitor` are the same.

        event_monitor 'optimizer.*'                        everything
        event_monitor 'optimizer.cache.*' optimizer.error  hits, misses, errors
        event_monitor --agent 'review-*' --type call       calls for some agents
        event_monitor --json --count 100 > sample.jsonl    for scripts
        event_monitor optimizer.worker.health              workers' heartbeats

    When RabbitMQ was away, it goes on by itself. Ctrl-C ends it.
    """
    amqp_url = amqp_url_or_exit(url)
    quiet_logging()

    async def work() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        async with beating():
            await watch(
                patterns or (), amqp_url=amqp_url, out=sys.stdout, as_json=as_json, agents=agents or (),
                types=types or (), count=count, all_health=health, stop=stop,
            )  # fmt: skip

    try:
        run(work())
    except BadPattern as error:
        refuse(str(error))
    except BrokenPipeError:
        # The reader has what it wanted, as `head` has; without this the flush at exit would complain
        # (the library reference of `signal`, "Note on SIGPIPE").
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """The entry point of the script `event_monitor`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
    app.command()(events_command)
    app()


if __name__ == "__main__":
    main()
