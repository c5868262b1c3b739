"""Posting alerts to webhooks: tried again with full jitter for a while, then given up and logged."""

import base64
import hashlib
import hmac
import json
import logging
import os
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from topology.alerts import Severity, State
from topology.loading import ConfigurationError, kept_elsewhere
from topology.messages import Event
from topology.sections import AlertsSection, Webhook

log = logging.getLogger("optimizer.alerts")

_TIMEOUT_S: Final = 10.0
_TRIED_FOR_S: Final = 600.0
_LONGEST_PAUSE_S: Final = 60.0
_MAY_PASS: Final = frozenset({408, 425, 429})
_BASE64_PREFIX: Final = "whsec_"
_MARKS: Final = {Severity.CRITICAL: ":red_circle:", Severity.WARNING: ":large_yellow_circle:"}
_WELL: Final = ":large_green_circle:"


@dataclass(frozen=True)
class Target:
    """A webhook with its secrets.

    Attributes:
        name: Safe to print: where its URL is kept, or the URL's host.
        id: The same as long as it is the same webhook.
    """

    name: str
    id: str
    format: Literal["json", "slack"]
    url: str = field(repr=False)
    signing_key: bytes | None = field(repr=False)


_posting: ContextVar[bool] = ContextVar("posting", default=False)
# httpx logs each request with its URL, and these are secrets.
logging.getLogger("httpx").addFilter(lambda _: not _posting.get())


class _NotNow(Exception):
    """It was not taken; the next try may succeed."""


def targets_of(section: AlertsSection, environ: Mapping[str, str] = os.environ) -> tuple[Target, ...]:
    """The webhooks with their secrets.

    Raises:
        ConfigurationError: One is missing, or is no URL; the text does not repeat it.
    """
    return tuple(
        _target(webhook, f"alerts.webhooks.{n}", environ) for n, webhook in enumerate(section.webhooks)
    )


async def post(http: httpx.AsyncClient, target: Target, event: Event, age_s: float) -> None:
    """Posts an alert until it is taken, or cannot be, or ten minutes have passed since it was told.

    Args:
        http: Not closed here.
        target: Where to.
        event: The alert.
        age_s: How old it is: one try is made whatever its age.
    """
    body = _slack(event) if target.format == "slack" else event.model_dump(mode="json")
    tries = AsyncRetrying(
        retry=retry_if_exception_type(_NotNow),
        wait=wait_random_exponential(max=_LONGEST_PAUSE_S),  # full jitter
        stop=stop_after_delay(max(0.0, _TRIED_FOR_S - age_s)),
        reraise=True,
    )
    facts = {"webhook": target.name, "alert": event.type}
    try:
        await tries(_post_once, http, target, event, json.dumps(body).encode())
    except _NotNow as why:
        log.warning("a webhook did not take an alert; given up", extra={**facts, "error": str(why)})


async def _post_once(http: httpx.AsyncClient, target: Target, event: Event, body: bytes) -> None:
    headers = {"content-type": "application/json", **_signed(target, event, body)}
    quiet = _posting.set(True)
    try:
        answer = await http.post(target.url, content=body, headers=headers, timeout=_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise _NotNow(type(error).__name__) from None  # its text could hold the URL
    finally:
        _posting.reset(quiet)
    if answer.is_success:
        return
    if answer.is_server_error or answer.status_code in _MAY_PASS:
        raise _NotNow(f"HTTP {answer.status_code}")
    facts = {"webhook": target.name, "alert": event.type, "status": answer.status_code}
    log.warning("a webhook refuses an alert; is its URL right?", extra=facts)


def _signed(target: Target, event: Event, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks; with the first, a receiver knows what comes twice.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    headers = {"webhook-id": event.id, "webhook-timestamp": str(int(time.time()))}  # of this try
    if target.signing_key is not None:
        signed = b".".join([event.id.encode(), headers["webhook-timestamp"].encode(), body])
        digest = hmac.new(target.signing_key, signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _slack(event: Event) -> dict[str, Any]:
    facts = event.model_extra or {}
    firing = facts["state"] == State.FIRING
    mark = _MARKS.get(facts["severity"], _WELL) if firing else _WELL
    again = " (still)" if facts["repeated"] else ""
    text = facts["text"].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": f"{mark} *{facts['name']}* {facts['state']}{again}\n{text}"}


def _target(webhook: Webhook, where: str, environ: Mapping[str, str]) -> Target:
    origin = webhook.url.get_secret_value()
    url = kept_elsewhere(webhook.url, f"{where}.url", environ)
    host = urlsplit(url).hostname if url.startswith(("https://", "http://")) else None
    if host is None:
        raise ConfigurationError(f"{where}.url: this is no URL; it looks like https://host/path")
    key = webhook.signing_key
    secret = kept_elsewhere(SecretStr(key.origin), f"{where}.signing_key", environ) if key else None
    return Target(
        name=host if origin == url else origin,
        id=hashlib.sha256(f"{url} {webhook.format}".encode()).hexdigest()[:12],
        format=webhook.format,
        url=url,
        signing_key=_key_bytes(secret, where) if secret else None,
    )


def _key_bytes(secret: str, where: str) -> bytes:
    if not secret.startswith(_BASE64_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_BASE64_PREFIX), validate=True)
    except ValueError:
        raise ConfigurationError(f"{where}.signing_key: after {_BASE64_PREFIX} comes base64") from None
