"""What only the blocking client does: threads, closing, the end of the process."""

import asyncio
import gc
import inspect
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from producer_sdk import AsyncOptimizer, Cancelled, DeadlineExceeded, InvalidRequest, Optimizer, Reply
from producer_sdk.pika_calls import PikaCalls
from tests.support import house as houses
from tests.support.clients import Asked, desk, echo, nothing, said
from tests.support.house import House
from tests.support.processes import ROOT
from tests.support.waiting import until

NOWHERE = "amqp://127.0.0.1:9"


def io_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("optimizer sdk")]


def driver_of(optimizer: Optimizer) -> PikaCalls:
    driver = optimizer._driver()
    assert isinstance(driver, PikaCalls)
    return driver


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_")}


def test_both_clients_have_the_same_methods_arguments_and_words() -> None:
    blocking, asyncio_ = public(Optimizer), public(AsyncOptimizer)

    assert set(blocking) - set(asyncio_) == {"close"}  # the other one is left by its `async with`
    assert set(asyncio_) <= set(blocking)
    for name in asyncio_.keys() - {"reply_to"}:
        assert inspect.signature(blocking[name]) == inspect.signature(asyncio_[name])
        assert inspect.getdoc(blocking[name]) == inspect.getdoc(asyncio_[name])
    assert inspect.signature(Optimizer) == inspect.signature(AsyncOptimizer)


async def test_it_opens_with_the_first_call_and_is_closed_by_hand(declared: House) -> None:
    before = io_threads()
    optimizer = Optimizer("tester", url=declared.amqp_url)
    assert io_threads() == before

    async with desk(declared.amqp_url):
        assert (await asyncio.to_thread(optimizer.chat, "Hello", timeout=60)).text == "Hello"
    assert len(io_threads()) == len(before) + 1
    await asyncio.to_thread(optimizer.close)

    assert io_threads() == before
    optimizer.close()
    for call in (optimizer.chat, optimizer.map):
        with pytest.raises(RuntimeError, match="closed"):
            call("Again")
    with pytest.raises(RuntimeError, match="closed"), optimizer:
        pass
    assert not optimizer.cancel("any")


async def test_calls_that_wait_while_it_is_closed_end_in_cancelled(declared: House) -> None:
    async with desk(declared.amqp_url, nothing) as front:
        optimizer = Optimizer("tester", url=declared.amqp_url)
        calls = [asyncio.create_task(asyncio.to_thread(optimizer.chat, f"Prompt {n}")) for n in range(3)]
        await until(lambda: len(front.asked) == 3)
        await asyncio.to_thread(optimizer.close)

        for call in calls:
            with pytest.raises(Cancelled, match="closed"):
                await call
    assert front.withdrawn == []  # what was published is done all the same


async def test_one_client_serves_any_number_of_threads(declared: House) -> None:
    def ask(number: int) -> list[str]:
        return [optimizer.chat(f"{number}-{n}", timeout=60).text for n in range(20)]

    async with desk(declared.amqp_url):
        with Optimizer("tester", url=declared.amqp_url) as optimizer:
            texts = await asyncio.gather(*(asyncio.to_thread(ask, number) for number in range(40)))

    assert texts == [[f"{number}-{n}" for n in range(20)] for number in range(40)]


async def test_a_client_that_nobody_holds_any_more_ends_its_thread(declared: House) -> None:
    before = io_threads()

    async with desk(declared.amqp_url):
        await asyncio.to_thread(lambda: Optimizer("tester", url=declared.amqp_url).chat("Hello", timeout=60))
        gc.collect()
        await until(lambda: io_threads() == before)


def test_the_timeout_holds_though_the_clients_own_thread_is_stuck() -> None:
    stuck = threading.Event()

    def wait() -> None:
        stuck.wait(60)

    with Optimizer("tester", url=NOWHERE) as optimizer:
        driver_of(optimizer)._do(wait)
        with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s, and the client's own thread"):
            optimizer.chat("Hello", timeout=0.2)
        stuck.set()


async def test_a_fault_in_the_event_loop_costs_nobody_an_answer(
    declared: House, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async with desk(declared.amqp_url, nothing) as front:
        with Optimizer("tester", url=declared.amqp_url) as optimizer:
            call = asyncio.create_task(asyncio.to_thread(optimizer.chat, "Hello", timeout=60))
            await until(lambda: len(front.asked) == 1)
            driver_of(optimizer)._do(fail)
            await until(lambda: len(front.asked) == 2)
            await front.reply(front.asked[1], said(front.asked[1], "all the same"))

            assert (await call).text == "all the same"
            assert await asyncio.to_thread(optimizer.cancel, "nobody") is False
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "the event loop failed; beginning anew"
    ]
    gc.collect()


async def test_what_pika_says_about_each_attempt_is_not_said_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    with Optimizer("tester", url=NOWHERE) as optimizer:
        await until(lambda: any(record.name == "optimizer.transport" for record in caplog.records))
        assert optimizer.reply_to.startswith("reply.tester.")

    assert [record.name for record in caplog.records if record.name.startswith("pika")] == []


@pytest.mark.parametrize("kind", [Optimizer, AsyncOptimizer])
def test_a_url_that_is_none_is_refused_at_once(kind: type[Optimizer] | type[AsyncOptimizer]) -> None:
    with pytest.raises(InvalidRequest, match="url: "):
        kind("tester", url="amqp://user:secret@host:port/")


@asynccontextmanager
async def script(house: House, code: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """An agent in a process of its own, killed at the end should it still run."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, env=houses.test_environ(house),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def echo_but(unanswered: str) -> Callable[[Asked], Reply | None]:
    return lambda asked: None if asked.prompt == unanswered else echo(asked)


WAITING = """
from producer_sdk import Optimizer
optimizer = Optimizer("tester")
try:
    optimizer.chat("Wait", timeout=3600)
except KeyboardInterrupt:
    print("interrupted", optimizer.chat("Another", timeout=60).text)
"""


async def test_ctrl_c_withdraws_the_request_and_leaves_the_client_usable(declared: House) -> None:
    async with (
        desk(declared.amqp_url, echo_but("Wait")) as front,
        script(declared, WAITING) as process,
    ):
        await until(lambda: len(front.asked) == 1)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 60)

    assert (out, process.returncode) == (b"interrupted Another\n", 0), err
    assert front.withdrawn == [front.asked[0].request.id]


LEFT_OPEN = """
import threading, time
from producer_sdk import Optimizer
optimizer = Optimizer("tester")
threading.Thread(target=optimizer.chat, args=("Wait",), kwargs={"timeout": 3600}, daemon=True).start()
print(optimizer.chat("Hello", timeout=60).text)
"""
BROKER_AWAY = """
from producer_sdk import Optimizer, Overloaded
optimizer = Optimizer("tester", url="amqp://127.0.0.1:9")
try:
    optimizer.chat("Hello", timeout=0.3)
except Overloaded:
    print("Hello")
"""


@pytest.mark.parametrize("code", [LEFT_OPEN, BROKER_AWAY])
async def test_a_process_ends_though_its_client_was_left_open(declared: House, code: str) -> None:
    async with desk(declared.amqp_url, echo_but("Wait")), script(declared, code) as process:
        out, err = await asyncio.wait_for(process.communicate(), 60)

    assert (out, err, process.returncode) == (b"Hello\n", b"", 0)


FORKING = """
import multiprocessing, os, sys, threading
from producer_sdk import Optimizer

def child(optimizer):
    print("child", optimizer.chat("child", timeout=60).text, flush=True)

def main():
    fork = multiprocessing.get_context("fork")
    with Optimizer("tester") as optimizer:
        print("parent", optimizer.chat("before", timeout=60).text, flush=True)
        pending = threading.Thread(
            target=lambda: print("parent", optimizer.chat("pending", timeout=60).text, flush=True)
        )
        pending.start()
        sys.stdin.readline()
        children = [fork.Process(target=child, args=(optimizer,)) for _ in range(2)]
        for process in children:
            process.start()
        for process in children:
            process.join()
            assert process.exitcode == 0
        if os.fork() == 0:  # ends as a process does, with its exit functions, and leaves the block
            return
        os.wait()
        print("parent", optimizer.chat("after", timeout=60).text, flush=True)
        pending.join()

main()
"""


async def test_a_forked_child_has_connections_of_its_own_and_leaves_the_parents_alone(
    declared: House,
) -> None:
    async with (
        desk(declared.amqp_url, echo_but("pending")) as front,
        script(declared, FORKING) as process,
    ):
        await until(lambda: len(front.asked) == 2)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        await until(lambda: [asked.prompt for asked in front.asked].count("after") == 1)
        [pending] = [
            asked for asked in front.asked if asked.prompt == "pending"
        ]  # not sent again: undisturbed
        await front.reply(pending, said(pending, "pending"))
        out, err = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 0, err
    said_by = sorted(out.decode().split("\n"))
    assert said_by == ["", "child child", "child child", "parent after", "parent before", "parent pending"]
    queues = {asked.prompt: asked.reply_to for asked in front.asked}
    assert queues["before"] == queues["pending"] == queues["after"]
    assert len({asked.reply_to for asked in front.asked}) == 3
    assert front.withdrawn == []
