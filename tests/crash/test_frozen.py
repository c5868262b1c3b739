"""A worker is frozen past its lease, or cut off from RabbitMQ, and comes back."""

import asyncio
from urllib.parse import urlsplit, urlunsplit

import pytest

from sandbox.simulator import SimulatorProcess
from tests.crash.scene import LEASE_S, POOL, scene
from tests.support.house import House, echo_of
from tests.support.proxy import proxy_to
from tests.support.waiting import until


@pytest.mark.parametrize("late_end", ["result", "error"])
async def test_a_worker_frozen_past_its_lease_is_overtaken_and_its_late_end_changes_nothing(
    house: House, simulator: SimulatorProcess, late_end: str
) -> None:
    # With one slot each, the frozen worker holds its one job and is given no other.
    async with scene(house, simulator, latency_s=0.3, concurrency=1) as s, house.agent("next") as other:
        simulator.change(script=["ok" if late_end == "result" else "server_error"])
        await s.nursery.start("front", backoff_s=1.0)
        frozen = await s.nursery.start(POOL, lease_s=LEASE_S)
        await frozen.arm("backend.in_call", do="stop")
        asked = s.ask("Frozen")
        await frozen.fired()
        await until(lambda: all(call.finished_at for call in s.calls()) and bool(s.calls()))
        await s.nursery.start(POOL)
        await s.lease_ends()
        replies = await asyncio.gather(asked, other.chat("Frozen", timeout=30))
        assert {reply.text[:21] for reply in replies} == {echo_of("Frozen")}
        frozen.cont()
        await s.ends_with(calls=2, doubtful=1, duplicate=1 if late_end == "result" else 0)


@pytest.mark.parametrize("workers", ["one", "two"])
async def test_the_connection_to_rabbitmq_lost_during_a_call_costs_nothing(
    house: House, simulator: SimulatorProcess, workers: str
) -> None:
    amqp = urlsplit(house.amqp_url)
    async with (
        proxy_to(amqp.hostname or "", amqp.port or 5672) as proxy,
        scene(house, simulator, latency_s=1.5) as s,
    ):
        way = amqp._replace(netloc=f"{amqp.username}:{amqp.password}@127.0.0.1:{proxy.port}")
        await s.nursery.start("front")
        await s.nursery.start(POOL, environ={"OPTIMIZER_AMQP_URL": urlunsplit(way)})
        asked = s.ask("Cut off in the middle")
        await until(lambda: len(s.calls()) == 1)
        proxy.cut()
        if workers == "two":  # it is handed the job, and finds it busy
            await s.nursery.start(POOL)
        else:
            proxy.restore()  # the same worker is handed the job again, and finds its own call
        await until(lambda: s.calls()[0].finished_at is not None)
        proxy.restore()
        assert (await asked).text.startswith(echo_of("Cut off in the middle"))
        await s.ends_with(calls=1)
