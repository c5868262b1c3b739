"""RabbitMQ is restarted under many threads of one blocking client."""

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pytest

from producer_sdk import Optimizer, Overloaded, Waiting
from sandbox.simulator import SimulatorProcess
from tests.support.clients import desk
from tests.support.house import House
from tests.support.processes import worker_processes
from tests.support.restarting import Restartable, restartable_rabbitmq, set_memory_alarm
from tests.support.waiting import until

THREADS = 40


@dataclass(frozen=True)
class Held:
    """What this process holds, between calls."""

    threads: int
    files: int
    memory_bytes: int


def held() -> Held:
    """Counted: threads, descriptors, and what pika and the client have allocated and keep."""
    gc.collect()
    traces = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.Filter(True, "*/pika/*"), tracemalloc.Filter(True, "*/producer_sdk/*")]
    )
    memory_bytes = sum(statistic.size for statistic in traces.statistics("filename"))
    # asyncio's own pool, which the test waits in, grows when it likes.
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
    return Held(len(threads), len(list(Path("/proc/self/fd").iterdir())), memory_bytes)


class Callers:
    """Threads that call without a pause, each prompt once."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.answered = [0] * THREADS
        self.errors: list[Exception] = []
        self._optimizer = optimizer
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(number,), daemon=True) for number in range(THREADS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)

    def all_get(self, more: int) -> Callable[[], bool]:
        """Whether each thread has got so many answers more than now."""
        wanted = [answered + more for answered in self.answered]
        return lambda: all(now >= then for now, then in zip(self.answered, wanted, strict=True))

    def _call(self, number: int) -> None:
        try:
            while not self._enough.is_set():
                prompt = f"{id(self)}-{number}-{self.answered[number]}"
                assert self._optimizer.chat(prompt, timeout=110, cache="off").text
                self.answered[number] += 1
        except Exception as error:  # noqa: BLE001 - the test shows it
            self.errors.append(error)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restartable]:
    """A RabbitMQ that may be stopped, or have its alarms set off."""
    with restartable_rabbitmq(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture
async def fleet_there(node: Restartable, own_redis: House, simulator: SimulatorProcess) -> House:
    """A house whose RabbitMQ is that one."""
    house = replace(own_redis, amqp_url=node.amqp_url, management_url=node.management_url, vhost="/")
    await house.declare(house.simulated(simulator.base_url))
    return house


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("traced")
async def test_restarts_under_forty_threads_cost_no_answer_and_leave_nothing_behind(
    node: Restartable, fleet_there: House
) -> None:
    config = fleet_there.folder / "fleet.toml"
    after: list[Held] = []

    async with worker_processes(fleet_there, config, ["front", "backend:all"]):
        with Optimizer("tester", url=node.amqp_url) as optimizer:
            for _ in range(3):
                with Callers(optimizer) as callers:
                    await until(callers.all_get(2), 100)
                    await asyncio.to_thread(node.stop)
                    await asyncio.to_thread(node.start)
                    await until(callers.all_get(2), 100)
                assert callers.errors == []
                after.append(held())

    first, last = after[0], after[-1]
    assert (last.threads, last.files) == (first.threads, first.files), after
    assert last.memory_bytes < first.memory_bytes + 50_000, after


async def test_under_an_alarm_callers_are_told_and_afterwards_answered(
    node: Restartable, fleet_there: House
) -> None:
    told: list[Waiting] = []

    async with desk(node.amqp_url) as front:
        with Optimizer("tester", url=node.amqp_url) as optimizer:
            await asyncio.to_thread(optimizer.chat, "Before", timeout=60)
            await asyncio.to_thread(set_memory_alarm, node, on=True)
            with pytest.raises(Overloaded, match=r"takes no messages at present \(low on memory\)"):
                await asyncio.to_thread(optimizer.chat, "Given up", timeout=2)
            call = asyncio.create_task(
                asyncio.to_thread(optimizer.chat, "Patient", timeout=100, on_wait=told.append)
            )
            await until(lambda: bool(told))
            await asyncio.to_thread(set_memory_alarm, node, on=False)

            assert (await call).text == "Patient"
    assert "low on memory" in told[0].waits_for
    assert [asked.prompt for asked in front.asked].count("Patient") == 1
