"""The `optimizer` command."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from broker import declaring
from console.applying import apply_topology, say_retired
from console.budgets import budgets_command
from console.cancel import cancel_command
from console.commands import (
    MANAGEMENT_URL,
    broker_url,
    broker_urls,
    configured_fleet,
    errors_for_people,
    run,
    says,
)
from console.control import drain_command, pause_command, resume_command
from console.dead import dead_app
from console.doctor import doctor_command
from console.event_monitor import events_command
from console.exporting import export_command
from console.gateway import gateway_command
from console.heartbeat import beating
from console.init import init_command
from console.keys import keys_app
from console.logs import log_to_stderr
from console.reloading import reload_command
from console.reports import reports_app
from console.stats import stats_command
from console.status import health_command, status_command
from console.top import top_command
from console.up import up_command
from producer_sdk import AsyncOptimizer, Reply
from producer_sdk.asking import DEFAULT_TIMEOUT_S
from producer_sdk.settings import AMQP_URL, REDIS_URL, find_setting
from sandbox.simulator import Settings
from sandbox.simulator import run as run_simulator
from topology.declaration import declaration
from topology.fleet import Fleet
from topology.names import Priority
from workers.running import ALL, BACKEND, run_roles, stop_on_signals

app = typer.Typer(
    name="optimizer",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals can hold keys
    help="Coordinates the AI API calls of a fleet of agents: nothing accepted is lost, nothing is "
    "paid twice, waiting beats failing.",
)
topology_app = typer.Typer(no_args_is_help=True, help="Exchanges, queues and policies in RabbitMQ.")
app.add_typer(topology_app, name="topology")
app.add_typer(dead_app, name="dead")
app.add_typer(keys_app, name="keys")
app.add_typer(reports_app, name="report")
topology_app.command("export")(export_command)
app.command("up")(up_command)
app.command("gateway")(gateway_command)
app.command("events")(events_command)
app.command("status")(status_command)
app.command("health")(health_command)
app.command("top")(top_command)
app.command("stats")(stats_command)
app.command("budgets")(budgets_command)
app.command("doctor")(doctor_command)
app.command("pause")(pause_command)
app.command("resume")(resume_command)
app.command("drain")(drain_command)
app.command("reload")(reload_command)
app.command("cancel")(cancel_command)
app.command("init")(init_command)

Config = Annotated[
    Path | None, typer.Option("--config", help="The fleet's file; default: fleet.toml, if there is one.")
]


@app.command("worker")
def worker_command(
    roles: Annotated[
        list[str], typer.Argument(help="front, undertaker, recorder, alerts, backend:<provider>, backend:all")
    ],
    config: Config = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run one process with these roles, until SIGTERM or Ctrl-C, which drain it.

        optimizer worker front
        optimizer worker backend:groq backend:openai

    Any number may run, on any machine that reaches the brokers: limits are shared.
    """
    log_to_stderr(verbose=verbose)
    with errors_for_people():
        fleet = configured_fleet(config, secrets=_whose_keys(roles))
        amqp_url, redis_url = broker_urls()

        async def work() -> None:
            stop = asyncio.Event()
            stop_on_signals(stop)
            ready = asyncio.Event()

            def on_ready() -> None:
                says("ready")
                ready.set()

            await _check_topology(fleet, amqp_url)
            async with beating(ready):
                await run_roles(
                    roles, fleet, amqp_url, redis_url, stop=stop, on_ready=on_ready,
                    load=lambda: configured_fleet(config, secrets=_whose_keys(roles)),
                )  # fmt: skip

        run(work())


def _whose_keys(roles: list[str]) -> bool | set[str]:
    """The providers that these roles call; True for all. A worker is given no key that it does not use."""
    called = {role.removeprefix(f"{BACKEND}:") for role in roles if role.startswith(f"{BACKEND}:")}
    return True if ALL in called else called


async def _check_topology(fleet: Fleet, amqp_url: str) -> None:
    """A worker declares nothing; without its queues it could only wait in silence."""
    try:
        absent = await declaring.missing(declaration(fleet), amqp_url)
    except declaring.BrokerAway as error:
        says(f"waiting: {error}")
        return
    if absent:
        named = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise declaring.TopologyError(f"{named}: missing in RabbitMQ; run: optimizer topology apply")


@app.command("call")
def call_command(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option(help="provider/model, a bare model, or auto.")] = "auto",
    priority: Annotated[Priority, typer.Option(help="How urgent it is.")] = Priority.NORMAL,
    timeout: Annotated[float, typer.Option(help="Seconds within which it ends.")] = DEFAULT_TIMEOUT_S,
    cache: Annotated[str, typer.Option(help="use, refresh, join or off.")] = "use",
    agent: Annotated[str, typer.Option(help="Who asks.")] = "operator",
    max_tokens: Annotated[int | None, typer.Option(help="The most the answer may hold.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole reply, as JSON.")] = False,
) -> None:
    """Ask once, as an agent would, and print the answer.

    optimizer call "Say hello"
    optimizer call "Review this" --model groq/openai/gpt-oss-120b --priority high --json
    """
    params: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}

    async def ask() -> Reply:
        async with AsyncOptimizer(agent, url=broker_url(AMQP_URL)) as optimizer:
            return await optimizer.chat(
                prompt,
                model=model,
                priority=priority.value,
                timeout=timeout,
                cache=cache,  # type: ignore[arg-type]  # checked by the message itself
                **params,
            )

    with errors_for_people():
        reply = run(ask())
        typer.echo(json.dumps(reply.model_dump(mode="json")) if as_json else reply.text)
        if not as_json:
            cost = "unknown" if reply.cost_usd is None else f"{reply.cost_usd:.6f} USD"
            where = f"{reply.provider}/{reply.model}"
            says(f"[{reply.source}, {where}, {reply.timings.total_s:.2f} s, {cost}]")


@topology_app.command("apply")
def apply_command(config: Config = None) -> None:
    """Declare exchanges, queues, bindings and policies. Doing it again changes nothing.

    Job queues of providers that are gone are removed, once nobody consumes them; what waits there goes
    back to the entrance and is answered by another provider, or in an error.
    """
    with errors_for_people():
        fleet = configured_fleet(config, secrets=False)
        amqp_url, management_url = broker_url(AMQP_URL), broker_url(MANAGEMENT_URL)
        whole = declaration(fleet)
        retired = run(apply_topology(whole, amqp_url, management_url, find_setting(REDIS_URL)))
        counts = (len(whole.exchanges), len(whole.queues), len(whole.policies))
        typer.echo("{} exchanges, {} queues and {} policies stand".format(*counts))
        say_retired(retired)


@topology_app.command("check")
def check_command(config: Config = None) -> None:
    """Check, without changing anything, that all of it stands; exit 1 and name what does not."""
    with errors_for_people():
        fleet = configured_fleet(config, secrets=False)
        absent = run(declaring.missing(declaration(fleet), broker_url(AMQP_URL)))
    for name in absent:
        typer.echo(f"missing: {name}")
    if absent:
        says("run: optimizer topology apply")
        raise typer.Exit(1)
    typer.echo("all of it stands")


@app.command("simulate-provider")
def simulate_command(
    settings: Annotated[
        Path | None, typer.Option(help="A JSON file; python -m sandbox.simulator --help has more.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one.")] = 8300,
    ledger: Annotated[Path | None, typer.Option(help="Append a line for each call.")] = None,
) -> None:
    """Run an OpenAI-compatible provider with real limits, latency and faults, and a ledger of calls."""
    told = Settings.model_validate_json(settings.read_text("utf-8")) if settings else Settings()
    run_simulator(told, host, port, ledger, lambda url: typer.echo(json.dumps({"base_url": url})))


def main() -> None:
    """The entry point of the command."""
    app()


if __name__ == "__main__":
    main()
