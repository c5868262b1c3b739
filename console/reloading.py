"""`optimizer reload`: every running worker reads its configuration again."""

from pathlib import Path
from typing import Annotated, Final

import typer

from broker import declaring
from broker.retiring import retire
from console.commands import (
    MANAGEMENT_URL,
    broker_url,
    broker_urls,
    configured_fleet,
    errors_for_people,
    run,
    says,
)
from console.telling_workers import Line, fail, line_to_workers, named
from producer_sdk.roster import Report
from topology.declaration import Declaration, declaration
from topology.digest import digest
from topology.fleet import Fleet
from topology.messages import Control, new_id
from workers.returning import onward_from

FOLLOW_S: Final = 60.0


def reload_command(
    config: Annotated[
        Path | None, typer.Option("--config", help="The fleet's file; default: fleet.toml, if there is one.")
    ] = None,
) -> None:
    """Make every running worker read its configuration again: providers, models, keys, limits, prices.

    Each worker reads the file that it was started with, so change that one everywhere first. This command
    checks it here, declares the queues of new providers, tells the workers, and waits for what they say.
    A worker that cannot use the file keeps what it has; exit status 1 names it and the reason.

    What waits for a provider that is gone is answered by another, or ends in an error that says so.
    A key in a file (`file:PATH`) is read again too. A running process gets no new environment variables.
    """
    with errors_for_people():
        fleet = configured_fleet(config, secrets=False)
        run(_reload(fleet, *broker_urls(), broker_url(MANAGEMENT_URL)))


async def _reload(fleet: Fleet, amqp_url: str, redis_url: str, management_url: str) -> None:
    whole, wanted = declaration(fleet), digest(fleet)
    await declaring.apply(whole, amqp_url, management_url)
    async with line_to_workers(amqp_url, redis_url) as line:
        id_ = new_id()
        await line.write(line.controls.reload(id_))
        await line.tell(Control(id=id_, action="reload"))
        late = await line.until(_Progress(id_), FOLLOW_S)
        reports = line.workers()
        reasons = [
            *(f"{named(report)} did not follow within {FOLLOW_S:g} s" for report in late),
            *(_refusal(report, wanted) for report in reports if report not in late),
        ]
        await _return_leftovers(line, whole, amqp_url, management_url)
    if any(reasons):
        fail(reason for reason in reasons if reason)
    if not reports:
        says("no worker is alive; the next to start reads it")
    typer.echo(f"workers that run {wanted}: {len(reports)}")


class _Progress:
    """Whether a worker has followed; says so once for each."""

    def __init__(self, id_: str) -> None:
        self._id = id_
        self._said: set[str] = set()

    def __call__(self, report: Report) -> bool:
        followed = report.get("reloaded") == self._id
        if followed and named(report) not in self._said:
            self._said.add(named(report))
            refused = "keeps" if report.get("config_error") else "runs"
            says(f"{named(report)} {refused} {report.get('config')}")
        return followed


def _refusal(report: Report, wanted: str) -> str | None:
    if error := report.get("config_error"):
        return f"{named(report)} keeps its configuration: {error}"
    if (runs := report.get("config")) != wanted:
        return (
            f"{named(report)} read another configuration ({runs}, here {wanted}): its file, or an OPTIMIZER_ "
            "variable in its environment, differs"
        )
    return None


async def _return_leftovers(line: Line, whole: Declaration, amqp_url: str, management_url: str) -> None:
    """The workers do the same for pools that they had; here also for those that nobody had."""
    retired = await retire(
        whole, amqp_url, management_url, lambda queue: onward_from(queue, line.flights), remove=False
    )
    if moved := sum(queue.moved for queue in retired):
        says(f"{moved} jobs of providers that are gone went back to the entrance")
    if retired:
        says(f"{len(retired)} queues have no provider any more; `optimizer topology apply` removes them")
