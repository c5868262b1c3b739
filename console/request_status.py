"""`optimizer status REQUEST`: where a request stands, and when it is expected to start."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import typer

from broker.declaring import BrokerAway
from broker.flights import StateAway
from broker.opening import open_redis
from broker.whereabouts import Tracer, Whereabouts
from console.commands import broker_url, configured_fleet, errors_for_people, run
from console.telling_workers import fail
from console.watching import one_line, quiet_logging
from producer_sdk.settings import REDIS_URL, masked
from topology import names

_ANSWER_S: Final = 10.0
_A_MINUTE_S: Final = 60.0
_AN_HOUR_S: Final = 3600.0


def show_request(
    request: str, agent: str | None, config: Path | None, redis_url: str | None, *, as_json: bool
) -> None:
    """Prints where it stands, for each agent that asked under this id; exits with 1 where nobody did."""
    with errors_for_people():
        quiet_logging()
        found, now = run(_find(request, agent, config, broker_url(REDIS_URL, redis_url)))
    if not found:
        whose = f" of agent {agent!r}" if agent else ""
        where = f"waits under the id {one_line(request)!r}"
        fail([f"no request{whose} {where}: it is answered, or was never asked"])
    if as_json:
        typer.echo(json.dumps([{**standing.facts(), "now": now} for standing in found]))
        return
    for standing in found:
        typer.echo(in_words(standing, now))


async def _find(
    request: str, agent: str | None, config: Path | None, redis_url: str
) -> tuple[list[Whereabouts], float]:
    fleet = configured_fleet(config, secrets=False)
    try:
        async with open_redis(redis_url, _ANSWER_S) as redis:
            return await Tracer(redis, fleet).of(request, agent), time.time()
    except StateAway as error:
        raise BrokerAway(f"Redis at {masked(redis_url)} cannot be reached ({error})") from error


def in_words(standing: Whereabouts, now: float) -> str:
    """A few lines for people."""
    lines = [f"{one_line(standing.request)} of {standing.agent}: {_state(standing, now)}"]
    if standing.state == "queued":
        lines += _expected(standing, now)
    if standing.attempts and standing.state != "running":
        lines.append(f"calls made so far: {standing.attempts}")
    if standing.shared_by > 1:
        lines.append(f"requests that wait for the same answer: {standing.shared_by}")
    if standing.deadline is not None:
        lines.append(f"deadline: {_instant(standing.deadline, now)}")
    return "\n  ".join(lines)


def _state(standing: Whereabouts, now: float) -> str:
    provider, until = standing.provider, _instant(standing.until, now)
    match standing.state:
        case "limited":
            return f"a rate at the entrance lets it pass {until}"
        case "parked":
            return f"it is tried again {until}"
        case "answered":
            return "its answer is on the way"
        case "running":
            since = _instant(standing.starts_at, now)
            return f"{provider}/{standing.model} was called {since} by {standing.worker}"
        case _ if provider is None:
            return "it is on its way to a provider's queue"
        case _:
            lane = "" if standing.lane == names.ANY_LANE else f", lane {standing.lane}"
            return f"it waits for {provider}{lane}, class {standing.priority}"


def _expected(standing: Whereabouts, now: float) -> list[str]:
    if standing.provider is None:
        return []
    lines = [f"before it, of its class: {standing.position}"]
    if standing.paused:
        return [
            *lines,
            f"an operator has paused {standing.provider}; run: optimizer resume {standing.provider}",
        ]
    if standing.starts_at is None:
        return [*lines, "expected to start: not known yet, since no call of this provider has ended lately"]
    lines.append(f"expected to start: {_instant(max(standing.starts_at, now), now)}")
    if standing.deadline is not None and standing.starts_at > standing.deadline:
        lines.append("its deadline comes first: give it more time, or a higher priority")
    return lines


def _instant(instant: float | None, now: float) -> str:
    """Such as `2026-11-21 12:00:03 UTC (in 2 min 10 s)`."""
    if instant is None:
        return "at an instant that is not known"
    distance_s = instant - now
    words = f"in {_span(distance_s)}" if distance_s >= 0 else f"{_span(-distance_s)} ago"
    return f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%d %H:%M:%S} UTC ({words})"


def _span(seconds: float) -> str:
    if seconds < _A_MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _AN_HOUR_S:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
