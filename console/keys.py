"""`optimizer keys`: accounts and keys, what is left of their limits, and which of them are in use."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.keys import Keys, KeyStanding
from broker.opening import open_redis
from console.adding_keys import add_command
from console.commands import FLEET_FILE, broker_urls, errors_for_people, run
from console.telling_workers import fail, line_to_workers
from topology.fleet import Fleet, Provider
from topology.loading import load_fleet
from topology.messages import Control, new_id

keys_app = typer.Typer(
    no_args_is_help=True, help="Accounts and keys: what is left of them, and which are in use."
)

_TIMEOUT_S: Final = 10.0
_PIPED_WIDTH: Final = 200

Config = Annotated[
    Path | None, typer.Option("--config", help="The fleet's file; default: fleet.toml, if there is one.")
]
ProviderName = Annotated[str, typer.Argument(metavar="PROVIDER", help="Its name, as under [providers].")]
KeyName = Annotated[
    str,
    typer.Argument(metavar="KEY", help="Where a key is kept, as `env:GROQ_API_KEY`; or an account's name."),
]


@keys_app.command("list")
def list_command(
    provider: Annotated[str | None, typer.Option("--provider", help="This one alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one object a line.")] = False,
    config: Config = None,
) -> None:
    """Show every key: whether it is in use, its account's calls today, and what is left of its limits now.

    A closed key is tried by one call when its time is over. Keys themselves are never shown.
    """

    async def look() -> list[KeyStanding]:
        async with open_redis(broker_urls()[1], _TIMEOUT_S) as redis:
            keys = Keys(redis, fleet)
            return [one for chosen in providers for one in await keys.standings(chosen)]

    with errors_for_people():
        fleet = _fleet(config)
        providers = [_provider(fleet, provider)] if provider else list(fleet.providers.values())
        found = run(look())
    if as_json:
        for one in found:
            typer.echo(json.dumps(asdict(one)))
    else:
        _show(found)


keys_app.command("add")(add_command)


@keys_app.command("disable")
def disable_command(provider: ProviderName, key: KeyName, config: Config = None) -> None:
    """Start no more calls with a key or an account until `optimizer keys enable`, restarts included."""
    _change(provider, key, config, lambda keys, of: keys.disable(of, key), "disabled")


@keys_app.command("enable")
def enable_command(provider: ProviderName, key: KeyName, config: Config = None) -> None:
    """Use a key or an account again, at once, whoever closed it."""
    _change(provider, key, config, lambda keys, of: keys.enable(of, key), "enabled")


@keys_app.command("probe")
def probe_command(provider: ProviderName, key: KeyName, config: Config = None) -> None:
    """Have the next call try a closed key or account now; how that call ends decides for all."""
    _change(provider, key, config, lambda keys, of: keys.probe(of, key), "to be tried by the next call")


def _change(
    provider: str,
    key: str,
    config: Path | None,
    change: Callable[[Keys, Provider], Awaitable[list[str]]],
    done: str,
) -> None:
    async def work() -> list[str]:
        amqp_url, redis_url = broker_urls()
        async with open_redis(redis_url, _TIMEOUT_S) as redis, line_to_workers(amqp_url, redis_url) as line:
            changed = await change(Keys(redis, fleet), of)
            if changed:
                await line.tell(Control(id=new_id(), action="open"))
            return changed

    with errors_for_people():
        fleet = _fleet(config)
        of = _provider(fleet, provider)
        changed = run(work())
    if not changed:
        there = ", ".join(f"{a.name} ({', '.join(k.origin for k in a.api_keys)})" for a in of.quota_owners)
        fail([f"{provider} has no key or account {key!r}; there are: {there or 'none'}"])
    typer.echo(f"{provider}: {', '.join(changed)} {done}")


def _fleet(config: Path | None) -> Fleet:
    return load_fleet(config or (FLEET_FILE if FLEET_FILE.is_file() else None), secrets=False)


def _provider(fleet: Fleet, name: str) -> Provider:
    if name not in fleet.providers:
        fail([f"{name!r} is no provider of this fleet; there are: {', '.join(fleet.providers) or 'none'}"])
    return fleet.providers[name]


def _show(found: list[KeyStanding]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED_WIDTH)
    table = Table("provider", "account", "key", "state", "calls today", "left now", box=None, pad_edge=False)
    for one in found:
        state = one.state if one.until is None else f"closed until {_clock(one.until)}"
        left = ", ".join(
            f"{limit.left:g} of {limit.amount:g} {limit.name.rpartition(' ')[2]}" for limit in one.left
        )
        cells = (one.provider, one.account, one.key, state, str(one.used_today), left or "no limit is known")
        table.add_row(*map(Text, cells))
    console.print(table)


def _clock(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
