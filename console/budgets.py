"""`optimizer budgets`: what the fleet and its agents may spend, and what they have spent."""

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from broker.declaring import BrokerAway
from broker.flights import StateAway
from broker.opening import open_redis
from broker.spending import Spending, spendings
from console.commands import broker_url, configured_fleet, errors_for_people, run
from console.watching import quiet_logging
from producer_sdk.settings import REDIS_URL, masked

_TIMEOUT_S: Final = 10.0
_PIPED_WIDTH: Final = 160


def budgets_command(
    config: Annotated[
        Path | None, typer.Option("--config", help="The fleet's file; default: fleet.toml, if there is one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one object a line.")] = False,
) -> None:
    r"""Show what the fleet and its agents have spent today and this month, and what is left.

    Budgets stand under \[budgets] in fleet.toml. What running calls are expected to cost counts as spent.
    Whoever has spent his waits for the next day or month, or gets the error budget_exhausted at once, where
    his deadline comes first.
    """

    async def look() -> list[Spending]:
        url = broker_url(REDIS_URL)
        try:
            async with open_redis(url, _TIMEOUT_S) as redis:
                return await spendings(redis, fleet)
        except StateAway as error:
            raise BrokerAway(f"Redis at {masked(url)} cannot be reached ({error})") from error

    with errors_for_people():
        quiet_logging()
        fleet = configured_fleet(config, secrets=False)
        found = run(look())
    if as_json:
        for one in found:
            typer.echo(json.dumps(asdict(one)))
    elif found:
        _show(found)
    else:
        typer.echo("no budgets: set usd_per_day or agent_usd_per_day under [budgets] in fleet.toml")


def _show(found: list[Spending]) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(width=_PIPED_WIDTH, highlight=False, markup=False, emoji=False)
    table = Table("of", "for a", box=None, pad_edge=False, header_style="bold")
    for column in ("USD", "spent", "left", "used", "begins anew"):
        table.add_column(column, justify="right")
    for one in found:
        share, left = one.spent_usd / one.usd, max(0.0, one.usd - one.spent_usd)
        hours = (one.resets_at - time.time()) / 3600.0
        table.add_row(
            one.agent or "the fleet",
            one.window,
            f"{one.usd:,.2f}",
            f"{one.spent_usd:,.4f}",
            f"{left:,.4f}",
            f"{share:.0%}",
            f"{datetime.fromtimestamp(one.resets_at, UTC):%Y-%m-%d %H:%M} UTC (in {hours:,.0f} h)",
            style="red" if left <= 0 else None,
        )
    console.print(table)
