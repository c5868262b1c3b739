"""`optimizer doctor`: everything that has to be right, one line each, with what to do."""

import asyncio
import dataclasses
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from broker import declaring
from broker.managing import management_url_of
from console.commands import FLEET_FILE, MANAGEMENT_URL, configured_fleet, run
from console.doctor_findings import Finding, Verdict, fail, ok, print_findings
from console.doctor_keys import check_providers, count_keys
from console.doctor_rabbitmq import check_management, check_rabbitmq
from console.doctor_redis import check_redis
from console.status import gather_status
from console.watching import quiet_logging
from producer_sdk.settings import AMQP_URL, ENV_FILE, REDIS_URL, find_setting
from topology.declaration import declaration
from topology.fleet import Fleet
from topology.loading import ConfigurationError

DISTRIBUTION: Final = "api-resource-optimizer"

Progress = Callable[[str], None]


def doctor_command(
    config: Annotated[
        Path | None, typer.Option("--config", help="The fleet's file; default: fleet.toml, if there is one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    spend: Annotated[
        bool, typer.Option("--spend", help="Make one call of one token with each key; it may cost a little.")
    ] = False,
) -> None:
    """Go through everything that has to be right; exit 1 when something fails.

    One line for each check: ok, warn or fail, what was found, and what to do.

        optimizer doctor
        optimizer doctor --config fleet.toml --json

    Looked at: the configuration; RabbitMQ with its topology, alarms and policies;
    Redis, that it evicts nothing and writes to disk; the clocks; the living
    workers; each provider's keys and models. No key is ever shown, only where
    it is kept.

    A key is tried by asking for the list of models, which costs nothing. Where
    that proves nothing, a call does, outside of your limits:

        optimizer doctor --spend
    """
    quiet_logging()
    with _progress() as progress:
        findings = run(examine(config, spend=spend, progress=progress))
    failed = any(finding.verdict is Verdict.FAIL for finding in findings)
    if as_json:
        checks = [dataclasses.asdict(finding) for finding in findings]
        typer.echo(json.dumps({"healthy": not failed, "checks": checks}))
    else:
        print_findings(findings)
    if failed:
        raise typer.Exit(1)


async def examine(config: Path | None, *, spend: bool, progress: Progress) -> list[Finding]:
    """All findings, in the order in which one thing rests on another.

    Args:
        config: As for every command; None: `fleet.toml`, if there is one.
        spend: Whether keys may be proven by calls that cost something.
        progress: Is told what goes on, for people who wait.
    """
    fleet, configuration = _configuration(config)
    progress("asking RabbitMQ, Redis and the providers")
    brokers_and_keys = await asyncio.gather(_rabbitmq(fleet), _redis(), _keys(fleet, spend, progress))
    return [_versions(), configuration, *(f for findings in brokers_and_keys for f in findings)]


def _versions() -> Finding:
    return ok(
        "versions", f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}, Python {platform.python_version()}"
    )


def _configuration(config: Path | None) -> tuple[Fleet | None, Finding]:
    file = config or (FLEET_FILE if FLEET_FILE.is_file() else None)
    try:
        fleet = configured_fleet(config, secrets=False)
    except ConfigurationError as error:
        return None, fail("configuration", str(error), None if file else _other_file())
    where = str(file) if file else "no fleet.toml; providers whose key is in the environment"
    return fleet, ok("configuration", f"{where}: {', '.join(fleet.providers)}")


def _other_file() -> str:
    simulated = ENV_FILE.parent / FLEET_FILE
    if simulated.is_file():
        return f"`optimizer up --simulate` wrote one: --config {simulated}"
    return "or write a file: optimizer init"


async def _rabbitmq(fleet: Fleet | None) -> list[Finding]:
    amqp_url = find_setting(AMQP_URL)
    if amqp_url is None:
        return [_not_set("rabbitmq", AMQP_URL)]
    declared = declaration(fleet or Fleet())
    findings = await check_rabbitmq(declared, amqp_url)
    if len(findings) == 1:  # not reached
        return findings
    management_url = find_setting(MANAGEMENT_URL) or management_url_of(amqp_url)
    management, workers = await asyncio.gather(
        check_management(declared, declaring.virtual_host(amqp_url), management_url),
        _workers(amqp_url, fleet),
    )
    return [*findings, *management, *workers]


async def _workers(amqp_url: str, fleet: Fleet | None) -> list[Finding]:
    """Who lives. What is wrong with the topology is left to the check of its own."""
    status = await gather_status(amqp_url, None, fleet)
    problems = [reason for reason in status.unhealthy if not reason.startswith("topology:")]
    if problems:
        return [fail("workers", *_found_and_remedy(reason)) for reason in problems]
    fronts = sum("front" in worker.roles for worker in status.workers)
    pools = sorted({pool.provider for worker in status.workers for pool in worker.pools})
    return [ok("workers", f"{fronts} front, pools for {', '.join(pools)}")]


def _found_and_remedy(reason: str) -> tuple[str, str | None]:
    found, _, remedy = reason.partition("; ")
    return found, remedy or None


async def _redis() -> list[Finding]:
    redis_url = find_setting(REDIS_URL)
    return [_not_set("redis", REDIS_URL)] if redis_url is None else await check_redis(redis_url)


def _not_set(check: str, name: str) -> Finding:
    return fail(check, f"{name} is not set", "start `optimizer up` in this folder, or set it")


async def _keys(fleet: Fleet | None, spend: bool, progress: Progress) -> list[Finding]:
    providers = tuple(fleet.providers.values()) if fleet else ()
    whole, done = count_keys(providers), 0

    def on_key() -> None:
        nonlocal done
        done += 1
        progress(f"{done} of {whole} keys are checked")

    return await check_providers(providers, spend=spend, on_key=on_key)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A line on stderr that changes as the work goes on; nothing where no terminal is."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:
        yield status.update
