"""`optimizer status` and `optimizer health`: who lives, what waits in the queues, what is wrong."""

import asyncio
import dataclasses
import json
import secrets
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from redis.exceptions import RedisError

from broker import declaring
from broker.opening import open_redis
from broker.sweeping import with_sides
from console.commands import FLEET_FILE, run
from console.readings import live_workers, measure, queue_names, status_of, unreachable
from console.request_status import show_request
from console.watching import amqp_url_or_exit, one_line, quiet_logging, refuse
from console.watching_tables import LivePool, LiveWorker, QueueDepth, Status, print_status
from producer_sdk import alarms
from producer_sdk.connecting import AWAY, connect
from producer_sdk.roster import BEAT_S, SILENCE_S, Report, Roster
from producer_sdk.settings import REDIS_URL, find_setting
from producer_sdk.transport import Published, Publisher, Subscriber
from topology import names
from topology.declaration import declaration
from topology.fleet import Fleet
from topology.loading import ConfigurationError, load_fleet
from workers.running import BACKEND, FRONT

__all__ = [
    "LivePool",
    "LiveWorker",
    "QueueDepth",
    "Status",
    "gather_status",
    "health_command",
    "status_command",
]

LISTEN_S: Final = 1.5 * BEAT_S
_ANSWER_S: Final = 5.0
_KNOCK_S: Final = 2.0


async def gather_status(amqp_url: str, redis_url: str | None, fleet: Fleet | None = None) -> Status:
    """Listens to the workers, measures the queues, and says what is wrong.

    Takes `LISTEN_S`; where no front or no pool is heard in that time, up to `SILENCE_S`, since only a
    role that is silent for so long is gone.

    Args:
        amqp_url: RabbitMQ.
        redis_url: Redis; None: not asked, but what the workers say of theirs counts.
        fleet: Whose providers must have queues and pools; None: those that live workers report.
    """
    status, redis_problems = await asyncio.gather(_ask_rabbitmq(amqp_url, fleet), _ask_redis(redis_url))
    return dataclasses.replace(status, unhealthy=[*status.unhealthy, *redis_problems])


async def _ask_rabbitmq(amqp_url: str, fleet: Fleet | None) -> Status:
    try:
        connection = await connect(amqp_url, _ANSWER_S)
        async with connection:
            missing = await declaring.missing(declaration(fleet or Fleet()), amqp_url)
            reports: list[Report] = [] if names.EVENTS in missing else await _listen(amqp_url)
            known = queue_names(live_workers(reports), fleet)
            queues = await measure(connection, await with_sides(connection, known))
    except AWAY as error:
        return Status((), (), [unreachable("RabbitMQ", amqp_url, error)])
    alarm = None if reports else await _alarm(amqp_url)  # which would hold up the heartbeats, too
    return status_of(reports, queues, fleet, missing=missing, alarm=alarm)


async def _alarm(amqp_url: str) -> str | None:
    """Why RabbitMQ takes no messages; None: it takes them."""
    async with Publisher(amqp_url, "optimizer status") as publisher:
        for _ in range(2):  # the first is still taken under an alarm, and what follows is not read
            if await publisher.publish(alarms.KNOCK, timeout=_KNOCK_S) is not Published.CONFIRMED:
                return publisher.why_down()
    return None


async def _ask_redis(redis_url: str | None) -> list[str]:
    if redis_url is None:
        return []
    try:
        async with open_redis(redis_url, _ANSWER_S) as redis:
            await redis.ping()
    except (RedisError, OSError, ValueError) as error:
        return [unreachable("Redis", redis_url, error)]
    return []


async def _listen(amqp_url: str) -> list[Report]:
    stirred = asyncio.Event()
    roster = Roster(f"status-{secrets.token_hex(6)}", stirred.set)
    async with Subscriber(amqp_url, "optimizer status") as subscriber:
        await roster.listen(subscriber)
        if not await subscriber.wait_until_up(_ANSWER_S):
            raise TimeoutError("no answer to a subscription")
        await asyncio.sleep(LISTEN_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(SILENCE_S - LISTEN_S):
                while not _is_manned(roster.workers()):
                    stirred.clear()
                    await stirred.wait()
        return roster.workers()


def _is_manned(reports: Iterable[Mapping[str, Any]]) -> bool:
    roles = [str(role) for report in reports for role in report.get("roles") or ()]
    return FRONT in roles and any(role.startswith(f"{BACKEND}:") for role in roles)


Config = Annotated[
    Path | None,
    typer.Option("--config", help="Whose providers must be served; default: fleet.toml, if there is one."),
]
AmqpUrl = Annotated[
    str | None,
    typer.Option("--url", metavar="AMQP_URL", help="RabbitMQ; default: OPTIMIZER_AMQP_URL, .optimizer/env."),
]
RedisUrl = Annotated[
    str | None,
    typer.Option("--redis-url", metavar="URL", help="Redis; default: OPTIMIZER_REDIS_URL, .optimizer/env."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def status_command(
    request: Annotated[
        str | None, typer.Argument(metavar="[REQUEST]", help="A request's id: where that one stands.")
    ] = None,
    config: Config = None,
    url: AmqpUrl = None,
    redis_url: RedisUrl = None,
    agent: Annotated[str | None, typer.Option(help="With REQUEST: only this agent's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the workers that live, what waits in the queues, and what is wrong.

    With a request's id: where it waits, how many of its class are before it,
    and when it is expected to start; exit status 1 where nobody waits under it.
    Else the exit status is 0 whatever it shows; `optimizer health` is for checks.
    """
    if request is not None:
        show_request(request, agent, config, redis_url, as_json=as_json)
        return
    status = _status_of(config, url, redis_url)
    if as_json:
        typer.echo(
            json.dumps({**dataclasses.asdict(status), "notes": status.notes, "healthy": status.is_healthy})
        )
    else:
        print_status(status, sys.stdout)


def health_command(
    config: Config = None, url: AmqpUrl = None, redis_url: RedisUrl = None, as_json: AsJson = False
) -> None:
    """Print `healthy`, or why not and exit 1.

    Healthy is: RabbitMQ and Redis answer, the topology stands, a front and a
    backend live (with --config, a backend for each of its providers), and
    every worker reaches Redis.
    """
    status = _status_of(config, url, redis_url)
    if as_json:
        facts = {"healthy": status.is_healthy, "unhealthy": status.unhealthy, "notes": status.notes}
        typer.echo(json.dumps(facts))
    else:
        typer.echo("\n".join(map(one_line, status.unhealthy)) or "healthy")
        for note in status.notes:
            typer.echo(f"note: {one_line(note)}")
    if not status.is_healthy:
        raise typer.Exit(1)


def _status_of(config: Path | None, url: str | None, redis_url: str | None) -> Status:
    amqp_url = amqp_url_or_exit(url)
    quiet_logging()
    file = config or (FLEET_FILE if FLEET_FILE.is_file() else None)
    try:
        fleet = load_fleet(file, secrets=False) if file else None
    except ConfigurationError as error:
        refuse(str(error))
    return run(gather_status(amqp_url, redis_url or find_setting(REDIS_URL), fleet))
