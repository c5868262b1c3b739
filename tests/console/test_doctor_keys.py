import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override  # in typing from Python 3.12

from console.doctor_findings import Finding, Verdict
from console.doctor_keys import check_providers
from sandbox.simulator import SimulatorProcess
from topology.fleet import Fleet, Provider

KEY = "sk-very-secret-0123456789"
MODELS = {"data": [{"id": "models/small"}, {"id": "large:latest"}, {"id": "x-1", "aliases": ["x-latest"]}]}
Answers = dict[str, tuple[int, Any]]


@contextmanager
def serving(
    with_key: Answers, without: tuple[int, Any] = (401, {}), headers: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A provider that answers what it is told to, by path, to whoever brings the key."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            knows = KEY in (self.headers.get("authorization") or "")
            status, body = with_key.get(self.path.removeprefix("/v1"), (404, {})) if knows else without
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**(headers or {}), "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - http.server's name

        @override
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serves = threading.Thread(target=server.serve_forever)
    serves.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        serves.join()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSE_KEY", KEY)


def provider(
    base_url: str, name: str = "house", models: tuple[str, ...] = ("small",), **more: Any
) -> Provider:
    table = {
        "base_url": base_url,
        "api_keys": ["env:HOUSE_KEY"],
        "models": [{"id": model} for model in models],
        **more,
    }
    return Fleet.model_validate({"providers": {name: table}}).providers[name]


async def examine(one: Provider, *, spend: bool = False) -> list[Finding]:
    findings = await check_providers([one], spend=spend, on_key=lambda: None)
    assert KEY not in repr(findings)
    return findings


async def the_key(one: Provider, *, spend: bool = False) -> Finding:
    return (await examine(one, spend=spend))[0]


async def test_a_key_that_is_taken_is_ok() -> None:
    with serving({"/models": (200, MODELS)}) as url:
        key, models = await examine(provider(url, models=("small", "large", "x-latest")))

    assert (key.check, key.verdict, key.found) == ("key house env:HOUSE_KEY", Verdict.OK, "accepted")
    assert (models.check, models.verdict) == ("models house", Verdict.OK)


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, {}), (403, {}), (400, [{"error": {"message": f"API key not valid: {KEY}"}}])],
)
async def test_a_refused_key_fails_and_is_named_by_its_origin_alone(status: int, body: Any) -> None:
    with serving({"/models": (status, body)}) as url:
        key = await the_key(provider(url))

    assert (key.check, key.verdict) == ("key house env:HOUSE_KEY", Verdict.FAIL)
    assert key.found == f"refused by house ({status})"


async def test_what_the_provider_says_is_left_is_told() -> None:
    told = {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-remaining-tokens": "5999",
        "x-ratelimit-reset-requests": "2m59.56s",
    }
    with serving({"/models": (200, MODELS)}, headers=told) as url:
        key = await the_key(provider(url))

    assert key.found == "accepted, 14,370 of 14,400 requests left, 5,999 tokens left"
    assert key.verdict is Verdict.OK


async def test_a_quota_that_is_used_up_is_a_warning() -> None:
    told = {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "0"}
    with serving({"/models": (200, MODELS)}, headers=told) as url:
        key = await the_key(provider(url))

    assert (key.verdict, key.found) == (Verdict.WARN, "accepted, 0 of 50 requests left")


async def test_openrouter_tells_its_tier_and_what_is_left() -> None:
    standing = {
        "is_free_tier": True,
        "limit": 5,
        "limit_remaining": 4.8984,
        "free_model_daily_requests": {"limit": 50, "remaining": 12, "used": 38},
    }
    answers: Answers = {"/models": (200, MODELS), "/key": (200, {"data": standing})}
    with serving(answers, without=(200, MODELS)) as url:
        key = await the_key(provider(url, "openrouter"))

    assert key.verdict is Verdict.OK
    assert key.found == "accepted, free tier, 12 of 50 free requests left today, 4.90 of 5 USD left"


async def test_openrouter_refuses_a_key_although_its_models_are_open() -> None:
    with serving({"/key": (401, {})}, without=(200, MODELS)) as url:
        key = await the_key(provider(url, "openrouter"))

    assert (key.verdict, key.found) == (Verdict.FAIL, "refused by openrouter (401)")


@pytest.mark.parametrize(("status", "without"), [(200, 200), (404, 404), (405, 405)])
async def test_where_only_a_call_can_prove_a_key_that_is_said(status: int, without: int) -> None:
    with serving({"/models": (status, MODELS)}, without=(without, MODELS)) as url:
        key = await the_key(provider(url))

    assert key.verdict is Verdict.WARN
    assert key.remedy is not None
    assert "optimizer doctor --spend" in key.remedy


@pytest.mark.parametrize(
    ("status", "verdict", "found"),
    [
        (200, Verdict.OK, "accepted"),
        (401, Verdict.FAIL, "refused by house (401)"),
        (402, Verdict.WARN, "accepted, but without credit (402)"),
        (404, Verdict.WARN, "accepted, but the call of small was not (404)"),
        (429, Verdict.WARN, "the limit is reached (429)"),
    ],
)
async def test_a_call_proves_a_key(status: int, verdict: Verdict, found: str) -> None:
    answers: Answers = {"/models": (404, {}), "/chat/completions": (status, {})}
    with serving(answers, without=(404, {})) as url:
        key = await the_key(provider(url), spend=True)

    assert (key.verdict, key.found) == (verdict, found)


@pytest.mark.parametrize("status", [302, 418, 429, 500, 503])
async def test_an_answer_that_says_nothing_of_the_key_is_a_warning(status: int) -> None:
    with serving({"/models": (status, {})}) as url:
        key = await the_key(provider(url))

    assert key.verdict is Verdict.WARN
    assert str(status) in key.found


async def test_a_provider_that_nobody_answers_for_fails() -> None:
    key = await the_key(provider("http://127.0.0.1:9/v1"))

    assert (key.verdict, key.found) == (Verdict.FAIL, "house cannot be reached")


async def test_a_configured_model_that_is_not_offered_is_named() -> None:
    with serving({"/models": (200, MODELS)}) as url:
        _, models = await examine(provider(url, models=("small", "gone-1", "gone-2")))

    assert (models.verdict, models.found) == (Verdict.WARN, "not offered: gone-1, gone-2")


async def test_a_key_that_is_not_there_is_told_with_its_place() -> None:
    key = await the_key(provider("http://127.0.0.1:9/v1", api_keys=["env:ABSENT_KEY"]))

    assert (key.check, key.verdict) == ("key house env:ABSENT_KEY", Verdict.FAIL)
    assert "the environment has no ABSENT_KEY" in key.found


@pytest.mark.parametrize("text", [f"{KEY}\nsecond", f"{KEY}\u2019", f"{KEY} {KEY}"])
async def test_a_key_that_was_pasted_badly_is_told_without_being_sent(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text, "utf-8")

    key = await the_key(provider("http://127.0.0.1:9/v1", api_keys=[f"file:{tmp_path / 'key'}"]))

    assert (key.verdict, key.found) == (Verdict.FAIL, "holds characters that no key has")


async def test_one_key_under_two_names_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAME_KEY", KEY)
    with serving({"/models": (200, MODELS)}) as url:
        first, second, _ = await examine(provider(url, api_keys=["env:HOUSE_KEY", "env:SAME_KEY"]))

    assert first.verdict is Verdict.OK
    assert (second.check, second.verdict) == ("key house env:SAME_KEY", Verdict.WARN)
    assert second.found.startswith("the same key as env:HOUSE_KEY")


async def test_a_server_without_keys_is_asked_whether_it_is_there() -> None:
    with serving({}, without=(200, MODELS)) as url:
        there, _ = await examine(provider(url, api_keys=[], keyless=True))
    gone = await the_key(provider("http://127.0.0.1:9/v1", api_keys=[], keyless=True))

    assert (there.check, there.verdict) == ("provider house", Verdict.OK)
    assert gone.verdict is Verdict.FAIL


async def test_a_provider_without_any_key_fails() -> None:
    with serving({}) as url:
        finding = await the_key(provider(url, api_keys=[]))

    assert (finding.verdict, finding.found) == (Verdict.FAIL, "no key")


async def test_nothing_is_spent_unless_it_is_wanted(simulator: SimulatorProcess) -> None:
    simulated = provider(simulator.base_url, models=("sim-large", "sim-small"))

    await the_key(simulated)
    before = simulator.summary()
    proven = await the_key(simulated, spend=True)
    after = simulator.summary()

    assert (before.calls, after.calls) == (0, 1)
    assert proven.verdict is Verdict.OK
    assert [entry.completion_tokens for entry in simulator.ledger()] == [1]


async def test_many_keys_are_all_checked(simulator: SimulatorProcess, tmp_path: Path) -> None:
    valid = [f"sk-simulated-{n}" for n in range(30)]
    simulator.change(accounts=[{"name": "house", "keys": valid}])
    for number, text in enumerate([*valid, "sk-unknown"]):
        (tmp_path / str(number)).write_text(text, "utf-8")
    done = []

    keys = [f"file:{tmp_path / str(number)}" for number in range(31)]
    one = provider(simulator.base_url, models=("sim-small",), api_keys=keys)
    *findings, _ = await check_providers([one], spend=False, on_key=lambda: done.append(1))

    assert [f.verdict for f in findings] == [Verdict.OK] * 30 + [Verdict.FAIL]
    assert len(done) == 31
