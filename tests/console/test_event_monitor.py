import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from console.event_monitor import EventTail, watch
from console.watching import BadPattern, binding_key, choice_of
from console.watching_lines import line, text_lines
from producer_sdk import NoModelAvailable
from producer_sdk.transport import Outgoing, Published, Publisher
from sandbox.simulator import SimulatorProcess
from tests.support.house import House, create_vhost, delete_vhost
from tests.support.house import test_environ as environ_of
from tests.support.waiting import until
from topology import names
from topology.events import EventType
from topology.messages import Event, new_id

ROOT = Path(__file__).parents[2]


def event(type_: str, *, at: float = 1_700_000_000.25, agent: str | None = None, **facts: Any) -> Event:
    return Event(id=new_id(), type=type_, at=at, agent=agent, **facts)


async def stand(house: House) -> None:
    await house.declare(house.simulated("http://127.0.0.1:9"))


async def publish(house: House, events: Iterable[Event]) -> None:
    async with Publisher(house.amqp_url, "test") as publisher:
        for each in events:
            message = Outgoing(names.EVENTS, each.type, each.to_bytes(), mandatory=False)
            assert await publisher.publish(message) is Published.CONFIRMED


class Watched:
    """What `watch` has written and said so far."""

    def __init__(self) -> None:
        self.out = StringIO()
        self.said: list[str] = []

    @property
    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()

    def shows(self, *words: str) -> bool:
        return any(all(word in shown for word in words) for shown in self.lines)


@asynccontextmanager
async def watching(house: House, *patterns: str, **options: Any) -> AsyncIterator[Watched]:
    watched, stop = Watched(), asyncio.Event()
    task = asyncio.create_task(
        watch(
            patterns, amqp_url=house.amqp_url, out=watched.out, say=watched.said.append, stop=stop, **options
        )
    )
    await until(lambda: bool(watched.said) or task.done())
    try:
        yield watched
    finally:
        stop.set()
        await task


@asynccontextmanager
async def monitor(house: House, *arguments: str, stdout: int = PIPE) -> AsyncIterator[tuple[Process, str]]:
    """`event_monitor` as a process of its own, once it watches; and its header."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "console.event_monitor", *arguments,
        cwd=ROOT, env=environ_of(house), stdout=stdout, stderr=PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        yield process, (await process.stderr.readline()).decode()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# Patterns and filters


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("optimizer.*", "optimizer.#"),
        ("optimizer", "optimizer.#"),
        ("optimizer.#", "optimizer.#"),
        ("optimizer.cache.*", "optimizer.cache.#"),
        ("optimizer.cache.hit", "optimizer.cache.hit"),
        ("optimizer.*.hit", "optimizer.*.hit"),
    ],
)
def test_a_last_star_means_everything_below(pattern: str, key: str) -> None:
    assert binding_key(pattern) == key


@pytest.mark.parametrize(
    "pattern", ["cache.hit", "*", "#", "", "optimizers.*", "optimizer cache", "optimizer.."]
)
def test_a_pattern_that_cannot_match_is_refused_with_an_example(pattern: str) -> None:
    with pytest.raises(BadPattern, match=r"for example 'optimizer\.\*'"):
        binding_key(pattern)


def shown(
    events: Iterable[Event], keys: tuple[str, ...] = ("optimizer.#",), **filters: Any
) -> list[tuple[str, str | None]]:
    choice = choice_of(keys, **{"agents": (), "types": (), "all_health": False, **filters})
    return [(e.type.removeprefix("optimizer."), e.agent) for e in events if choice.takes(e)]


def test_filters_choose_by_agent_and_type() -> None:
    events = [
        event("optimizer.cache.hit", agent="review-1"),
        event("optimizer.cache.miss", agent="review-2"),
        event("optimizer.call.completed", agent="tests"),
        event("optimizer.rate_limit"),
    ]

    assert shown(events, agents=["review-*"]) == [("cache.hit", "review-1"), ("cache.miss", "review-2")]
    assert shown(events, agents=["tests", "review-2"]) == [
        ("cache.miss", "review-2"),
        ("call.completed", "tests"),
    ]
    assert shown(events, types=["cache"]) == [("cache.hit", "review-1"), ("cache.miss", "review-2")]
    assert shown(events, types=["optimizer.cache.hit", "call.*"]) == [
        ("cache.hit", "review-1"),
        ("call.completed", "tests"),
    ]
    assert shown(events, types=["cache"], agents=["tests"]) == []
    assert len(shown(events)) == 4


def test_heartbeats_are_hidden_unless_they_are_asked_for() -> None:
    beats = [event("optimizer.worker.health")]

    assert shown(beats) == []
    assert shown(beats, ("optimizer.cache.#", "optimizer.#")) == []
    assert shown(beats, all_health=True)
    assert shown(beats, types=["worker.health"])
    assert shown(beats, ("optimizer.worker.#",))
    assert shown(beats, ("optimizer.worker.health",))


# Lines


def test_a_line_says_what_matters_of_its_type() -> None:
    completed = line(
        event(
            "optimizer.call.completed", agent="quality", provider="groq", model="llama", latency_s=0.8125,
            prompt_tokens=12, completion_tokens=None, cost_usd=0.000012, account="main", worker="w-1",
        )
    ).plain  # fmt: skip
    waits = line(
        event("optimizer.rate_limit", at=100.0, agent="quality", limit="agent's rate", until=102.5)
    ).plain

    assert completed.split()[1:] == [
        "call.completed", "quality", "model=groq/llama", "latency=0.812s", "tokens=12+?", "cost=$0.000012",
        "account=main",
    ]  # fmt: skip
    assert waits.endswith("""limit="agent's rate" wait=2.5s""")


def test_an_alert_is_a_loud_sentence_and_a_quiet_one_when_it_is_over() -> None:
    said = "groq: the quota is spent.\x1b[2J"
    fires, over = (
        line(
            event(
                "optimizer.alert.quota_gone", state=state, severity="critical", text=said, repeated=repeated
            )
        )
        for state, repeated in (("firing", True), ("resolved", False))
    )

    assert fires.plain.endswith(r" FIRING alert.quota_gone (still)   groq: the quota is spent.\x1b[2J")
    assert "bold white on red" in [span.style for span in fires.spans]
    assert " RESOLVED alert.quota_gone   groq" in over.plain
    assert {span.style for span in over.spans} == {"dim", "bold green"}


def test_an_unknown_price_is_no_zero_and_an_error_has_no_price() -> None:
    bought = line(event("optimizer.request.completed", status="ok", cost_usd=None)).plain
    failed = line(event("optimizer.request.completed", status="error", cost_usd=None)).plain

    assert bought.endswith("status=ok cost=unknown")
    assert failed.endswith("status=error")


def test_an_unknown_type_says_all_it_has() -> None:
    text = line(
        event("optimizer.alert.budget", spent_usd=1.5, who=["a", "b"], deep={"x": 1}, none=None)
    ).plain

    assert text.split()[1:] == [
        "alert.budget",
        "-",
        "spent_usd=1.5",
        "who=a,b",
        '{"x":1}'.join(("deep=", "")),
    ]


def test_no_text_of_an_event_can_steer_the_terminal_or_break_its_line() -> None:
    hostile = "two\nlines \x1b[2Jgone\x9b31m [red]x[/red] " + "long " * 100
    shown = line(event("optimizer.error", agent="a\x1b[0m", error="internal", message=hostile)).plain

    assert shown.isprintable()
    assert r"two\nlines" in shown
    assert "[red]x[/red]" in shown
    assert len(shown) < 400


@pytest.mark.parametrize("at", [1e300, -1e300])
def test_an_instant_beyond_the_calendar_is_shown_as_unknown(at: float) -> None:
    assert line(event("optimizer.dead", at=at)).plain.startswith("--:--:--.---")


def test_every_type_there_is_reads_as_one_line() -> None:
    assert all("\n" not in line(event(type_.value)).plain for type_ in EventType)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    hit, miss = event("optimizer.cache.hit"), event("optimizer.cache.miss")
    terminal, file = Terminal(), StringIO()

    for each in (hit, miss):
        text_lines(terminal)(each)
        text_lines(file)(each)

    assert "\x1b[32mcache.hit" in terminal.getvalue()
    assert "\x1b[34mcache.miss" in terminal.getvalue()
    assert "\x1b" not in file.getvalue()


# The tail


async def test_hits_misses_joins_calls_and_errors_are_shown_as_they_happen(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(latency={"median_s": 0.5})
    fleet = house.simulated(simulator.base_url)

    async with (
        house.workers(fleet),
        watching(house, "optimizer.*") as watched,
        house.agent("quality") as agent,
    ):
        await asyncio.gather(agent.chat("Twice at once"), agent.chat("Twice at once"))
        await agent.chat("Twice at once")
        with pytest.raises(NoModelAvailable):
            await agent.chat("Ask nobody", model="nobody/nothing")

        await until(lambda: watched.shows("error", "quality", "error=no_model_available"))
        await until(lambda: watched.shows("cache.hit", "quality", "why=fresh"))
        await until(lambda: watched.shows("request.completed", "source=dedupe"))

    assert watched.shows("cache.miss", "quality", "model=auto")
    assert watched.shows("dedupe.joined", "quality")
    assert watched.shows("call.completed", "model=simulated/sim-small", "latency=", "tokens=", "cost=$0.")
    assert not watched.shows("worker.health")
    assert watched.said == [watched.said[0]]
    assert watched.said[0].startswith("watching optimizer.# at amqp://")


async def test_heartbeats_are_shown_when_asked_for(house: House, simulator: SimulatorProcess) -> None:
    fleet = house.simulated(simulator.base_url)

    async with house.workers(fleet), watching(house, "optimizer.worker.*") as watched:
        await until(
            lambda: watched.shows("worker.health", "roles=front,backend:simulated", "simulated=0/40+0")
        )


async def test_only_what_the_patterns_match_is_delivered(house: House) -> None:
    await stand(house)

    async with watching(house, "optimizer.cache.*", "optimizer.error") as watched:
        types = ["cache.hit", "call.completed", "rate_limit", "cache.miss", "error"]
        await publish(house, [event(f"optimizer.{t}") for t in types])
        await until(lambda: watched.shows("error"))

    assert [shown.split()[1] for shown in watched.lines] == ["cache.hit", "cache.miss", "error"]


async def test_an_event_is_shown_once_and_what_is_no_event_not_at_all(house: House) -> None:
    await stand(house)
    once = event("optimizer.cache.hit")

    async with EventTail(house.amqp_url) as tail:
        assert await tail.wait_until_up(20)
        await publish(house, [once, once])
        async with Publisher(house.amqp_url, "test") as publisher:
            await publisher.publish(Outgoing(names.EVENTS, "optimizer.odd", b"\xc1"))
        await publish(house, [last := event("optimizer.dead")])

        assert [await anext(tail), await anext(tail)] == [once, last]


async def test_the_queue_of_a_tail_goes_with_it(house: House) -> None:
    await stand(house)

    async with EventTail(house.amqp_url) as tail:
        assert await tail.wait_until_up(20)
        queue = tail.queue
        assert await house.depth(queue) == 0

    with pytest.raises(Exception, match="NOT_FOUND"):
        await house.depth(queue)


async def test_it_goes_on_when_the_broker_has_been_away(house: House) -> None:
    await stand(house)

    async with watching(house) as watched:
        delete_vhost(house.management_url, house.vhost)
        await until(lambda: len(watched.said) == 2)
        create_vhost(house.management_url, house.vhost)
        await stand(house)
        await until(lambda: len(watched.said) == 3)
        await publish(house, [event("optimizer.cache.hit")])
        await until(lambda: watched.shows("cache.hit"))

    assert "lost RabbitMQ" in watched.said[1]
    assert "is back" in watched.said[2]


async def test_a_missing_topology_is_named_with_its_remedy_and_waited_for(house: House) -> None:
    async with watching(house) as watched:
        assert "run: optimizer topology apply" in watched.said[0]
        await stand(house)
        await until(lambda: len(watched.said) == 2)

    assert watched.said[1].startswith("watching")


# The command


async def test_the_command_prints_so_many_json_lines_and_ends(house: House) -> None:
    await stand(house)
    events = [event("optimizer.cache.hit", agent="größe", n=n, message="é\n") for n in range(5)]

    async with monitor(house, "optimizer.*", "--json", "--count", "3") as (process, header):
        await publish(house, [event("optimizer.worker.health"), *events])
        out, rest = await asyncio.wait_for(process.communicate(), 30)

    assert header.startswith("watching optimizer.# at amqp://")
    assert ":***@" in header
    assert (process.returncode, rest) == (0, b"")
    assert [json.loads(text) for text in out.splitlines()] == [e.model_dump() for e in events[:3]]


async def test_each_json_line_is_flushed_at_once(house: House) -> None:
    await stand(house)

    async with monitor(house, "--json") as (process, _):
        assert process.stdout is not None
        for type_ in ("optimizer.cache.hit", "optimizer.error"):
            await publish(house, [event(type_)])
            text = await asyncio.wait_for(process.stdout.readline(), 30)
            assert json.loads(text)["type"] == type_


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_quietly(house: House, number: signal.Signals) -> None:
    await stand(house)

    async with monitor(house) as (process, _):
        process.send_signal(number)
        out, rest = await asyncio.wait_for(process.communicate(), 30)

    assert (process.returncode, out, rest) == (0, b"", b"")


@pytest.mark.parametrize("form", [[], ["--json"]])
async def test_a_reader_that_leaves_ends_it_quietly(house: House, form: list[str]) -> None:
    await stand(house)
    reading, writing = os.pipe()

    async with monitor(house, *form, stdout=writing) as (process, _):
        os.close(writing)
        os.close(reading)
        await publish(house, [event("optimizer.cache.hit")])
        _, rest = await asyncio.wait_for(process.communicate(), 30)

    assert (process.returncode, rest) == (0, b"")


async def test_without_a_broker_it_says_so_once_and_still_ends_on_a_signal(house: House) -> None:
    async with monitor(house, "--url", "amqp://guest:secret@127.0.0.1:9/") as (process, said):
        process.send_signal(signal.SIGTERM)
        _, rest = await asyncio.wait_for(process.communicate(), 30)

    assert said.startswith("RabbitMQ at amqp://guest:***@127.0.0.1:9/ cannot be reached")
    assert (process.returncode, rest) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["cache.hit"], "'optimizer.cache.*'"),
        (["--url", "localhost:5672"], "amqp://user:password@host:5672/"),
        (["--url", "amqp://guest:secret@host:port/"], "amqp://user:password@host:5672/"),
    ],
)
async def test_a_misuse_is_one_line_with_its_remedy(house: House, arguments: list[str], remedy: str) -> None:
    async with monitor(house, *arguments) as (process, said):
        out, rest = await asyncio.wait_for(process.communicate(), 30)

    assert (process.returncode, out, rest) == (2, b"", b"")
    assert remedy in said
    assert "secret" not in said
