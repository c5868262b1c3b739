"""Webhooks, over real HTTP."""

import base64
import hashlib
import hmac
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.webhooks import receiving
from topology.alerts import AlertName
from topology.loading import ConfigurationError, load_fleet
from topology.messages import Event
from workers.alerts.webhooks import Target, post, targets_of

ALERT = Event(
    id="0190", type="optimizer.alert.quota_low", at=1_800_000_000.0, name="quota_low", state="firing",
    severity="warning", text="groq: 87 <of> 1000 & falling.", value=87.0, threshold=100.0,
    since=1_800_000_000.0, repeated=False, provider="groq",
    account=None, model=None, limit="requests-86400s", key=None,
)  # fmt: skip
LONG_AGO_S = 3600.0


def target(url: str, environ: dict[str, str] | None = None, **options: Any) -> Target:
    alerts = {"alerts": {"webhooks": [{"url": url, **options}]}}
    section = load_fleet(None, {}).model_validate(alerts).alerts
    [found] = targets_of(section, environ or {})
    return found


async def send(to: Target, age_s: float = 0.0) -> None:
    async with httpx.AsyncClient() as http:
        await post(http, to, ALERT, age_s)


async def test_json_is_the_event_as_it_is_published() -> None:
    with receiving() as receiver:
        await send(target(receiver.url))

    [got] = receiver.posts
    assert got.said == ALERT.model_dump(mode="json")
    assert got.headers["content-type"] == "application/json"
    assert "webhook-signature" not in got.headers


async def test_slack_gets_a_text_that_it_cannot_mistake_for_markup() -> None:
    with receiving() as receiver:
        await send(target(receiver.url, format="slack"))

    [got] = receiver.posts
    assert got.said == {
        "text": ":large_yellow_circle: *quota_low* firing\ngroq: 87 &lt;of&gt; 1000 &amp; falling."
    }


@pytest.mark.parametrize(
    "secret", [b"hunter2 hunter2", "whsec_" + base64.b64encode(b"\x00\xff key").decode()]
)
async def test_a_delivery_is_signed_as_standard_webhooks_has_it(secret: bytes | str) -> None:
    key = secret if isinstance(secret, bytes) else b"\x00\xff key"
    kept = secret.decode() if isinstance(secret, bytes) else secret
    with receiving() as receiver:
        await send(target(receiver.url, {"SIGNING": kept}, signing_key="env:SIGNING"))

    [got] = receiver.posts
    signed = f"0190.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert (got.headers["webhook-id"], got.headers["webhook-signature"]) == ("0190", f"v1,{expected}")


async def test_one_in_trouble_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    with receiving(503, 429) as receiver:
        await send(target(receiver.url))

    assert len(receiver.posts) == 3
    assert len({got.headers["webhook-id"] for got in receiver.posts}) == 1
    assert caplog.messages == []


@pytest.mark.parametrize("answers", [[404], [503, 200]])
async def test_what_is_refused_or_too_old_is_given_up_and_logged_without_the_url(
    answers: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with receiving(*answers) as receiver:
        await send(target("env:HOOK", {"HOOK": receiver.url}), LONG_AGO_S)

    assert len(receiver.posts) == 1
    [record] = [record for record in caplog.records if record.name == "optimizer.alerts"]
    assert (record.levelname, record.__dict__["webhook"]) == ("WARNING", "env:HOOK")
    assert "secret-path" not in str([record.__dict__ for record in caplog.records])


async def test_nobody_there_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    await send(target("http://127.0.0.1:9/secret-path"), LONG_AGO_S)

    [record] = caplog.records
    assert (record.__dict__["webhook"], record.__dict__["error"]) == ("127.0.0.1", "ConnectError")


# Configuration


def configured(tmp_path: Path, alerts: str) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(f"[alerts]\n{alerts}\n", "utf-8")
    return path


def test_urls_are_masked_wherever_they_are_printed(tmp_path: Path) -> None:
    fleet = load_fleet(configured(tmp_path, 'webhooks = [{ url = "https://hooks.example/T0/hunter2" }]'), {})
    [found] = targets_of(fleet.alerts, {})

    assert "hunter2" not in repr(fleet) + repr(found)
    assert (found.name, found.url) == ("hooks.example", "https://hooks.example/T0/hunter2")


@pytest.mark.parametrize(
    ("alerts", "says"),
    [
        ('webhooks = [{ url = "hunter2" }]', r"alerts\.webhooks\.0\.url: write https://"),
        (
            'webhooks = [{ url = "env:A", format = "teams" }]',
            r"alerts\.webhooks\.0\.format: .*'json' or 'slack'",
        ),
        ('webhooks = [{ url = "env:A", signing_key = "hunter2" }]', r"signing_key: a key is written as"),
        ('silence = ["noise"]', r"alerts\.silence\.0: .*'quota_low'"),
        ("quota_low = 10", r"alerts\.quota_low: .*less than 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_not_repeated(tmp_path: Path, alerts: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        load_fleet(configured(tmp_path, alerts), {})

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(("kept", "says"), [("", "has no HOOK"), ("hooks.example/hunter2", "this is no URL")])
def test_a_url_that_is_kept_elsewhere_must_be_there(kept: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"alerts\.webhooks\.0\.url: .*{says}") as refused:
        target("env:HOOK", {"HOOK": kept})

    assert "hunter2" not in str(refused.value)


def test_thresholds_come_from_the_file_and_the_environment(tmp_path: Path) -> None:
    path = configured(tmp_path, 'quota_low = 0.25\nsilence = ["latency"]')
    section = load_fleet(path, {"OPTIMIZER_ALERTS__ERROR_RATE": "0.5"}).alerts

    assert (section.quota_low, section.error_rate, section.silence) == (0.25, 0.5, (AlertName.LATENCY,))
