import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from sandbox.simulator import Entry, Faults, Latency, Settings, SimulatorProcess
from sandbox.simulator.faults import draw

SETTINGS = Settings(latency=Latency(median_s=0.0))
LONG_S = 60.0
ROOT = Path(__file__).parents[2]


def connect(simulator: SimulatorProcess) -> httpx.Client:
    headers = {"authorization": "Bearer any"}
    return httpx.Client(base_url=simulator.base_url, headers=headers, trust_env=False)


def chat(client: httpx.Client, text: str = "Hello", **more: object) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    return client.post("/chat/completions", json={"model": "sim-small", "messages": messages, **more})


def hold(simulator: SimulatorProcess) -> HTTPConnection:
    """A call sent, its answer not awaited; closing the connection is leaving."""
    connection = HTTPConnection(urlsplit(simulator.base_url).netloc)
    messages = [{"role": "user", "content": "Hello"}]
    body = json.dumps({"model": "sim-small", "messages": messages})
    connection.request("POST", "/v1/chat/completions", body, {"authorization": "Bearer any"})
    return connection


def entry_when(simulator: SimulatorProcess, condition: Callable[[Entry], bool]) -> Entry:
    """The first entry once it meets the condition; each look is a round trip."""
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        for entry in simulator.ledger():
            if condition(entry):
                return entry
    raise AssertionError(f"not in time: {simulator.ledger()}")


@pytest.mark.parametrize(
    ("fault", "status", "billed"),
    [
        ("ok", 200, True),
        ("server_error", 500, False),
        ("unavailable", 503, False),
        ("rate_limited", 429, False),
        ("error_in_200", 200, False),
        ("no_finish_reason", 200, True),
        ("malformed", 200, True),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_scripted_fault_befalls_the_next_call(simulator, client, fault, status, billed, stream):
    simulator.change(script=[fault])
    response = chat(client, stream=stream)
    assert response.status_code == status
    (entry,) = simulator.ledger()
    assert (entry.outcome, entry.status, entry.billed) == (fault, status, billed)
    assert (entry.cost_usd > 0.0) == billed
    assert (entry.completion_tokens > 0) == billed
    assert chat(client).json()["choices"][0]["finish_reason"] == "stop"


def test_errors_have_openais_shape(simulator, client):
    simulator.change(script=["server_error", "unavailable", "rate_limited", "error_in_200"])
    for _ in range(4):
        response = chat(client)
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert ("retry-after" in response.headers) == (response.status_code == 429)


def test_faulty_bodies_are_what_they_are_called(simulator, client):
    simulator.change(script=["no_finish_reason", "malformed"])
    assert chat(client).json()["choices"][0]["finish_reason"] is None
    with pytest.raises(json.JSONDecodeError):
        chat(client).json()


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_closes_the_connection_in_mid_body(simulator, client, stream):
    simulator.change(script=["cut"])
    with pytest.raises(httpx.RemoteProtocolError):
        chat(client, stream=stream)
    entry = entry_when(simulator, lambda entry: entry.finished_at is not None)
    assert (entry.outcome, entry.status, entry.billed) == ("cut", 200, True)


def test_a_timeout_never_answers(simulator):
    simulator.change(script=["timeout"])
    connection = hold(simulator)
    entry_when(simulator, lambda entry: entry.outcome == "running")
    connection.close()
    entry = entry_when(simulator, lambda entry: entry.finished_at is not None)
    assert (entry.outcome, entry.status, entry.billed) == ("timeout", None, True)


def test_a_timeout_ends_with_504(simulator, client):
    simulator.change(script=["timeout"], faults={"hang_s": 0.05})
    assert chat(client).status_code == 504
    assert simulator.ledger()[0].outcome == "timeout"


def test_a_slow_answer_is_good_and_late(simulator, client):
    simulator.change(script=["slow"], faults={"slow_s": 0.2})
    assert chat(client).status_code == 200
    (entry,) = simulator.ledger()
    assert entry.outcome == "ok"
    assert entry.finished_at - entry.arrived_at >= 0.2


def test_a_call_in_progress_shows_and_a_client_that_leaves_is_noticed(simulator):
    simulator.change(latency={"median_s": LONG_S})
    connection = hold(simulator)
    running = entry_when(simulator, lambda entry: entry.outcome == "running")
    assert (running.finished_at, running.in_flight) == (None, 1)
    connection.close()
    gone = entry_when(simulator, lambda entry: entry.finished_at is not None)
    assert (gone.outcome, gone.status, gone.billed) == ("client_gone", None, True)
    assert simulator.summary().outcomes == {"client_gone": 1}


def test_a_client_that_leaves_a_stream_is_noticed(simulator, client):
    simulator.change(latency={"per_output_token_s": LONG_S})
    body = {"model": "sim-small", "messages": [{"role": "user", "content": "Hello"}]}
    with client.stream("POST", "/chat/completions", json={**body, "stream": True}) as response:
        assert next(response.iter_text()).startswith("data: ")
    gone = entry_when(simulator, lambda entry: entry.finished_at is not None)
    assert (gone.outcome, gone.status, gone.billed) == ("client_gone", 200, True)


def test_random_faults_follow_from_prompt_and_occurrence():
    faults, latency = Faults(server_error=0.3, slow=0.3), Latency(kind="lognormal")
    prompts = [(f"prompt {n}", nth) for n in range(50) for nth in (1, 2)]
    fates = {key: draw(faults, latency, 7, *key, None) for key in prompts}
    again = {key: draw(faults, latency, 7, *key, None) for key in reversed(prompts)}
    assert fates == again
    assert {fate.fault for fate in fates.values()} == {"ok", "server_error", "slow"}
    assert fates != {key: draw(faults, latency, 8, *key, None) for key in prompts}


@pytest.mark.parametrize("kind", ["constant", "uniform", "lognormal", "exponential"])
def test_latency_keeps_its_median_and_bounds(kind):
    latency = Latency(kind=kind, median_s=1.0, low_s=0.25, high_s=1.75)
    waits = sorted(draw(Faults(), latency, 0, str(n), 1, None).first_wait_s for n in range(2000))
    assert waits[1000] == pytest.approx(1.0, abs=0.1)
    assert waits[0] >= 0.25
    assert waits[-1] <= 1.75


def test_the_ledger_names_calls_by_their_request_id(simulator, client):
    client.headers["x-client-request-id"] = "call-7"
    chat(client)
    first = simulator.ledger()[0]
    assert first.request_id == "call-7"
    chat(client)
    assert [entry.seq for entry in simulator.ledger(since=first.seq)] == [first.seq + 1]


def test_the_invoice_has_a_line_for_each_call_that_was_billed_and_no_other(simulator, client):
    simulator.change(script=["ok", "server_error", "malformed"])
    for call in ("first", "second", "third"):
        client.headers["idempotency-key"] = call
        chat(client)

    lines = list(csv.DictReader(io.StringIO(simulator.invoice())))
    assert [line["call_id"] for line in lines] == ["first", "third"]
    billed = [entry.cost_usd for entry in simulator.ledger() if entry.billed]
    assert [float(line["cost_usd"]) for line in lines] == pytest.approx(billed)
    again = [json.loads(line) for line in simulator.invoice("jsonl").splitlines()]
    assert [{name: str(value or "") for name, value in line.items()} for line in again] == lines


def test_the_most_calls_in_flight_are_counted(simulator):
    simulator.change(latency={"median_s": LONG_S})
    connections = [hold(simulator) for _ in range(8)]
    entry_when(simulator, lambda entry: entry.in_flight == 8)
    for connection in connections:
        connection.close()
    assert simulator.summary().max_in_flight == 8


def test_a_wrong_change_changes_nothing(simulator, client):
    with pytest.raises(ValueError, match="latency"):
        simulator.change(seed=1, latency={"median_s": -1})
    with pytest.raises(ValueError, match="no_such"):
        simulator.change(no_such=1)
    assert chat(client).status_code == 200


def test_finished_calls_are_in_the_ledgers_file(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with SimulatorProcess(SETTINGS, ledger_path=path) as simulator, connect(simulator) as client:
        chat(client, "a secret prompt")
        chat(client, model="other")
        kept = simulator.ledger()
    text = path.read_text()
    assert [Entry.model_validate_json(line) for line in text.splitlines()] == kept
    assert "secret" not in text


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_promptly_with_calls_in_flight(tmp_path, ending):
    path = tmp_path / "ledger.jsonl"
    settings = SETTINGS.changed({"latency": {"median_s": LONG_S}})
    process = SimulatorProcess(settings, ledger_path=path)
    with process as simulator, connect(simulator) as client, ThreadPoolExecutor() as threads:
        call = threads.submit(chat, client)
        entry_when(simulator, lambda entry: entry.outcome == "running")
        began = time.monotonic()
        os.kill(simulator.pid, ending)
        with pytest.raises(httpx.RemoteProtocolError):
            call.result(timeout=10.0)
        assert simulator.stop() == 0
        assert time.monotonic() - began < 3.0
    assert json.loads(path.read_text())["outcome"] == "cut"


def test_what_cannot_start_says_so():
    with SimulatorProcess(SETTINGS) as running:
        port = int(running.base_url.split(":")[2].split("/")[0])
        with pytest.raises(RuntimeError, match="ended before it was ready"):
            SimulatorProcess(SETTINGS, port=port).start()


def test_a_simulator_ends_when_the_process_that_started_it_is_killed() -> None:
    code = (
        "import os, signal\n"
        "from sandbox.simulator import Settings, SimulatorProcess\n"
        "simulator = SimulatorProcess(Settings())\n"
        "simulator.start()\n"
        "print(simulator.base_url, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    parts = urlsplit(ended.stdout.strip())

    deadline = time.monotonic() + 30.0
    while _listens(parts.hostname or "", parts.port or 0):
        assert time.monotonic() < deadline


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0
