"""Starting and stopping: the command, and `optimizer up --port`."""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx

from producer_sdk.settings import read_env_file
from sandbox.simulator import SimulatorProcess
from tests.support.gateways import NOWHERE, gateway_process
from tests.support.house import House, echo_of
from tests.support.processes import ROOT
from tests.support.waiting import until

OWN = '[providers.own]\nbase_url = "http://localhost/v1"\nkeyless = true\n'


def chat(prompt: str) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": prompt}]}


async def test_a_gateway_that_is_told_to_stop_gives_the_answers_under_way(
    house: House, simulator: SimulatorProcess
) -> None:
    simulator.change(latency={"median_s": 3.0})
    fleet = house.simulated(simulator.base_url)

    async with (
        house.workers(fleet),
        gateway_process(house) as gateway,
        httpx.AsyncClient(base_url=gateway.root_url, timeout=60) as http,
    ):
        asked = asyncio.create_task(http.post("/v1/chat/completions", json=chat("Still")))
        await until(lambda: len(simulator.ledger()) == 1)
        gateway.process.send_signal(signal.SIGTERM)

        async def drains() -> bool:
            answer = await http.get("/health")
            return answer.status_code == 503 and answer.json()["unhealthy"] == ["draining"]

        await until(drains)
        refused = await http.post("/v1/chat/completions", json=chat("Too late"))
        answered = await asked
        code = await asyncio.wait_for(gateway.process.wait(), 30)

    assert (refused.status_code, refused.headers["x-should-retry"]) == (503, "true")
    assert answered.status_code == 200
    assert answered.json()["choices"][0]["message"]["content"].startswith(echo_of("Still"))
    assert code == 0


async def test_what_is_not_answered_in_time_is_told_to_come_again_and_keeps_its_place(
    house: House, simulator: SimulatorProcess
) -> None:
    fleet = house.simulated(simulator.base_url)
    await house.declare(fleet)
    with (house.folder / "fleet.toml").open("a") as file:
        file.write("[gateway]\ndrain_s = 0.2\n")

    async def waits() -> bool:
        return await house.depth("requests.normal") == 1

    async with (
        gateway_process(house) as gateway,
        httpx.AsyncClient(base_url=gateway.root_url, timeout=60) as http,
    ):
        asked = asyncio.create_task(http.post("/v1/chat/completions", json=chat("Nobody works")))
        await until(waits)
        assert await gateway.stop() == 0
        answered = await asked

    assert (answered.status_code, answered.headers["x-should-retry"]) == (503, "true")
    assert await waits()  # not withdrawn


async def test_a_port_that_is_taken_is_one_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        alone = await optimizer(tmp_path, "gateway", "--port", port)
        beside = await optimizer(tmp_path, "up", "--port", port)

    for said in (alone, beside):
        assert (said[0], said[1].count("\n")) == (1, 1)
        assert f"port {port}: Address already in use; choose another with --port" in said[1]
    assert not (tmp_path / ".optimizer").exists()  # nothing was started


async def test_it_does_not_listen_to_the_network_unasked(tmp_path: Path) -> None:
    code, said = await optimizer(tmp_path, "gateway", "--host", "0.0.0.0", "--port", "0")  # noqa: S104 - it refuses

    assert (code, said.count("\n")) == (1, 1)
    assert "anybody on the network could spend your quotas" in said


async def optimizer(folder: Path, *arguments: str) -> tuple[int, str]:
    """A command that ends by itself, and what it says."""
    (folder / "fleet.toml").write_text(OWN)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "console.main", *arguments,
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "OPTIMIZER_AMQP_URL": NOWHERE},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_up_serves_beside_the_workers_and_says_where(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    without = {name: value for name, value in os.environ.items() if not name.startswith("OPTIMIZER_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "console.main", "up", "--simulate", "--port", "0",
        "--folder", str(tmp_path / "home"), "--ready-file", str(ready),
        cwd=ROOT, env={**without, "OPTIMIZER_BROKERS": "private"},
        stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    log = asyncio.create_task(process.stderr.read())
    await until(lambda: ready.exists() or process.returncode is not None, 90)
    url = json.loads(ready.read_text())["openai_base_url"]
    exported = read_env_file(tmp_path / "home" / "env")
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        answer = await http.post("/chat/completions", json=chat("Beside"))
        models = (await http.get("/models")).json()
    process.send_signal(signal.SIGTERM)
    code = await asyncio.wait_for(process.wait(), 60)

    assert answer.json()["choices"][0]["message"]["content"].startswith(echo_of("Beside"))
    assert [m["id"] for m in models["data"]] == ["auto", "simulated/sim-small", "simulated/sim-large"]
    assert exported["OPENAI_BASE_URL"] == url
    said = (await log).decode()
    assert (code, "Traceback" in said) == (0, False), said
    assert f"export OPENAI_BASE_URL='{url}'" in said
