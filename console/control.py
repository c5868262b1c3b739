"""`optimizer pause`, `resume` and `drain`: what a provider's pools do, on every worker at once."""

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from broker.controls import PauseMode
from broker.sweeping import depth, with_sides
from console.commands import FLEET_FILE, broker_urls, errors_for_people, run, says
from console.telling_workers import Line, fail, line_to_workers, named
from producer_sdk.connecting import CONNECT_TIMEOUT_S, connected
from producer_sdk.roster import Report
from topology import names
from topology.fleet import Fleet
from topology.loading import load_fleet
from topology.messages import Control, new_id
from topology.names import Priority

SETTLE_S: Final = 15.0
_POLL_S: Final = 0.5

ProviderName = Annotated[str, typer.Argument(metavar="PROVIDER", help="Its name, as under [providers].")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="The fleet's file, to know its providers; default: fleet.toml, if any."),
]


def pause_command(provider: ProviderName, config: Config = None) -> None:
    """Start no more calls at a provider, on any worker, until `optimizer resume`, restarts included.

    Running calls end as always. What waits for it stays in its queues, in order.
    New requests that other providers can answer go there.
    """
    with errors_for_people():
        run(_Steering(provider, config).pause("pause"))


def drain_command(provider: ProviderName, config: Config = None) -> None:
    """Pause a provider, move what waits there to other providers, and wait until nothing runs there.

    What no other provider can answer waits in its queues until `optimizer resume`.
    Ctrl-C ends the command, not the draining.
    """
    with errors_for_people():
        run(_Steering(provider, config).pause("drain"))


def resume_command(provider: ProviderName, config: Config = None) -> None:
    """Undo `optimizer pause` and `optimizer drain`, at once."""
    with errors_for_people():
        run(_Steering(provider, config).resume())


class _Steering:
    """One command about one provider."""

    def __init__(self, provider: str, config: Path | None) -> None:
        file = config or (FLEET_FILE if FLEET_FILE.is_file() else None)
        self._fleet = load_fleet(file, secrets=False) if file else Fleet()
        self._provider = provider
        self._amqp_url, self._redis_url = broker_urls()

    async def pause(self, mode: PauseMode) -> None:
        async with line_to_workers(self._amqp_url, self._redis_url) as line:
            self._check_name(line)
            await line.write(line.controls.pause(self._provider, mode))
            late = await self._tell(line, Control(id=new_id(), action=mode, provider=self._provider))
            done, counts = "paused", None
            if mode == "drain":
                counts = await self._watch(line)
                done = "drained" if counts else "paused, and no worker lives that could move it"
            self._say_standing(done, counts or await self._counts(line))
        fail_late(late, "nothing starts there all the same")

    async def resume(self) -> None:
        async with line_to_workers(self._amqp_url, self._redis_url) as line:
            if self._provider not in (await line.read()).paused:
                self._check_name(line)
            await line.write(line.controls.resume(self._provider))
            late = await self._tell(line, Control(id=new_id(), action="resume", provider=self._provider))
            self._say_standing("running", await self._counts(line))
        fail_late(late, "it finds out within seconds, if it lives")

    def _check_name(self, line: Line) -> None:
        known = {str(name) for report in line.workers() for name in report.get("providers") or ()}
        known |= self._fleet.providers.keys()
        if known and self._provider not in known:
            fail([f"no worker has a pool for {self._provider!r}; there are: {', '.join(sorted(known))}"])

    async def _tell(self, line: Line, control: Control) -> list[Report]:
        """Tells the workers; returns those that do not keep to it in time."""
        await line.tell(control)
        wanted = None if control.action == "resume" else control.action
        return await line.until(
            lambda report: (report.get("paused") or {}).get(self._provider) == wanted, SETTLE_S
        )

    async def _watch(self, line: Line) -> str | None:
        """Waits until nothing runs there and what can move has; None where nobody has a pool for it.

        Returns what is left, as two looks agree on: a worker that passes over a queue has its messages in
        hand for a moment.
        """
        said = ""
        while True:
            pools = self._pools(line)
            counts = await self._counts(line)
            if counts == said and all(pool.get("drained") for pool in pools):
                return counts if pools else None
            if counts != said:
                said = counts
                says(f"{self._provider} is draining: {counts}")
            await asyncio.sleep(_POLL_S)

    def _say_standing(self, state: str, counts: str) -> None:
        typer.echo(f"{self._provider} is {state}: {counts}")

    async def _counts(self, line: Line) -> str:
        running = sum(pool.get("running", 0) for pool in self._pools(line))
        waiting = sum(pool.get("waiting", 0) for pool in self._pools(line))
        async with connected(self._amqp_url, CONNECT_TIMEOUT_S) as connection:
            for queue in await with_sides(connection, self._queues(line)):
                found = await depth(connection, queue)
                waiting += found[0] if found else 0
        return f"calls running {running}, jobs waiting {waiting}"

    def _pools(self, line: Line) -> list[Report]:
        reports = [report.get("providers") or {} for report in line.workers()]
        return [report[self._provider] for report in reports if self._provider in report]

    def _queues(self, line: Line) -> list[str]:
        lanes = {lane for pool in self._pools(line) for lane in pool.get("lanes") or ()}
        if self._provider in self._fleet.providers:
            lanes.update(self._fleet.providers[self._provider].lanes)
        return [names.jobs_queue(self._provider, n, p) for n in lanes or {names.ANY_LANE} for p in Priority]


def fail_late(late: list[Report], but: str) -> None:
    """Names the workers that have not answered, if there are any, and ends with exit status 1."""
    if late:
        fail(f"{named(report)} has not said that it heard; {but}" for report in late)
