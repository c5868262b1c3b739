import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import ValidationError

from sandbox.simulator import Account, Latency, Limit, Settings, SimulatorProcess
from sandbox.simulator.limits import Limits
from sandbox.simulator.replies import go_duration

SETTINGS = Settings(latency=Latency(median_s=0.0))


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


def limits(*given: Limit, **more: Any) -> Limits:
    return Limits(Settings(limits=given, **more))


def wait_s(limits: Limits, now: float, tokens: int = 1, account: str = "a", model: str = "m") -> object:
    excess = limits.excess(account, model, tokens, now)
    if excess is None:
        limits.charge(account, model, tokens, now)
        return 0.0
    return pytest.approx(excess.wait_s)


def test_a_sliding_window_frees_each_charge_one_window_later():
    judged = limits(Limit(requests=2, window_s=10))
    assert wait_s(judged, 100.0) == 0.0
    assert wait_s(judged, 104.0) == 0.0
    assert wait_s(judged, 105.0) == 5.0
    assert wait_s(judged, 110.0) == 0.0
    assert wait_s(judged, 110.0) == 4.0


def test_a_fixed_window_ends_with_the_calendar():
    judged = limits(Limit(requests=2, window_s=10, counting="fixed"))
    assert wait_s(judged, 108.0) == 0.0
    assert wait_s(judged, 109.0) == 0.0
    assert wait_s(judged, 109.5) == 0.5
    assert wait_s(judged, 110.0) == 0.0


def test_a_bucket_refills_evenly():
    judged = limits(Limit(requests=10, window_s=10, counting="bucket", burst=2))
    assert [wait_s(judged, 100.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert wait_s(judged, 100.5) == 0.5
    assert wait_s(judged, 101.0) == 0.0
    assert judged.usage()[0].max_used == 2.0


def test_tokens_are_charged_and_a_refused_call_is_charged_nothing():
    judged = limits(Limit(tokens=100, window_s=10), Limit(requests=2, window_s=10))
    assert wait_s(judged, 100.0, tokens=80) == 0.0
    assert wait_s(judged, 101.0, tokens=30) == 9.0
    assert wait_s(judged, 102.0, tokens=20) == 0.0
    assert [usage.max_used for usage in judged.usage()] == [100.0, 2.0]


def test_a_call_larger_than_the_limit_is_never_admitted():
    judged = limits(Limit(tokens=100, window_s=10))
    assert wait_s(judged, 100.0, tokens=101) == 10.0


def test_a_scope_says_who_shares_a_limit():
    each = limits(
        Limit(requests=1, scope="account"),
        Limit(requests=2, scope="model"),
        accounts=(Account(name="b", keys=("k",), limits=(Limit(requests=3),)),),
    )
    assert wait_s(each, 0.0, account="a", model="m") == 0.0
    assert wait_s(each, 0.0, account="a", model="n") == 60.0
    assert wait_s(each, 0.0, account="b", model="m") == 0.0
    assert wait_s(each, 0.0, account="c", model="n") == 0.0
    assert wait_s(each, 0.0, account="d", model="m") == 60.0
    used = {(usage.amount, usage.max_used) for usage in each.usage()}
    assert max(used) == (3, 1.0)
    assert {most for amount, most in used if amount == 2} == {1.0, 2.0}


def test_a_changed_amount_keeps_what_was_used():
    judged = limits(Limit(requests=10))
    for _ in range(5):
        assert wait_s(judged, 0.0) == 0.0
    judged.settings = Settings(limits=(Limit(requests=5),))
    assert wait_s(judged, 1.0) == 59.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.12, "120ms"), (1.2, "1.2s"), (360, "6m0s"), (3661.5, "1h1m1.5s")],
)
def test_durations_read_like_go(seconds, text):
    assert go_duration(seconds) == text


@pytest.mark.parametrize("limit", [{}, {"requests": 1, "tokens": 1}, {"requests": 1, "burst": 2}])
def test_a_limit_that_makes_no_sense_is_no_setting(limit):
    with pytest.raises(ValidationError):
        Limit(**limit)


def test_a_refusal_says_when_to_come_again(simulator, client):
    simulator.change(limits=[{"requests": 2, "window_s": 100}, {"tokens": 1000}])
    answered = chat(client, max_tokens=99)
    assert answered.headers["x-ratelimit-limit-requests"] == "2"
    assert answered.headers["x-ratelimit-remaining-requests"] == "1"
    assert answered.headers["x-ratelimit-reset-requests"] == "1m40s"
    assert answered.headers["x-ratelimit-remaining-tokens"] == "900"
    chat(client)
    refused = chat(client)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    wait_ms = int(refused.headers["retry-after-ms"])
    assert 90_000 < wait_ms <= 100_000
    assert int(refused.headers["retry-after"]) == -(-wait_ms // 1000)
    assert f"Please try again in {wait_ms / 1000:.3f}s" in error["message"]
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert [entry.outcome for entry in simulator.ledger()] == ["ok", "ok", "rate_limited"]
    assert [entry.charged_tokens for entry in simulator.ledger()] == [100, 61, 0]


def test_hammering_gets_no_more_than_the_window_allows(simulator, client):
    simulator.change(limits=[{"requests": 1, "window_s": 0.05}])
    answered = 0
    while answered < 5:
        answered += chat(client).status_code == 200
    admitted = [entry.arrived_at for entry in simulator.ledger() if entry.outcome == "ok"]
    assert all(later - earlier >= 0.05 for earlier, later in itertools.pairwise(admitted))


def test_calls_over_the_concurrency_are_refused(simulator, client):
    simulator.change(concurrency=2, script=["timeout", "timeout"])
    connections = [hold(simulator) for _ in range(2)]
    while len(simulator.ledger()) < 2:
        pass
    refused = chat(client)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert "retry-after-ms" in refused.headers
    for connection in connections:
        connection.close()
    while chat(client).status_code != 200:
        pass
    assert simulator.summary().max_in_flight == 2


def test_reset_gives_limits_back(simulator, client):
    simulator.change(limits=[{"requests": 1}])
    assert [chat(client).status_code for _ in range(2)] == [200, 429]
    simulator.reset()
    assert chat(client).status_code == 200
    assert len(simulator.ledger()) == 1


def test_a_flood_never_exceeds_a_limit(simulator, client):
    simulator.change(limits=[{"requests": 20}], latency={"median_s": 0.01})
    with ThreadPoolExecutor(32) as threads:
        statuses = list(threads.map(lambda n: chat(client, str(n)).status_code, range(100)))
    assert (statuses.count(200), statuses.count(429)) == (20, 80)
    (usage,) = simulator.summary().limits
    assert (usage.capacity, usage.max_used) == (20, 20.0)
