"""`optimizer up`: all of it on this machine, until Ctrl-C."""

import asyncio
import json
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import SecretStr

from console.applying import apply_topology, say_retired
from console.commands import FLEET_FILE, configured_fleet, errors_for_people, run, says
from console.gateway import Beside, gateway_beside
from console.logs import log_to_stderr
from console.stats import RECORDER_URL
from hub import extra
from producer_sdk.settings import masked
from sandbox.nodes import Brokers, find_brokers
from sandbox.simulator import Latency, Settings, SimulatorProcess
from topology.declaration import declaration
from topology.fleet import Fleet
from topology.loading import ConfigurationError, load_fleet
from workers.running import run_roles, stop_on_signals

COMPOSE_FILE: Final = Path(__file__).parents[1] / "compose.yaml"

_CONCURRENCY: Final = 32
_SIMULATED_FLEET: Final = """\
# Written by `optimizer up --simulate`: one provider, simulated over real HTTP. Nothing real is called.
[providers.simulated]
title = "Simulated provider"
base_url = "{base_url}"
concurrency = {concurrency}

[[providers.simulated.accounts]]
name = "simulated"
api_keys = ["file:{key_file}"]

[[providers.simulated.models]]
id = "sim-small"
tasks = ["general", "code"]
capabilities = ["tools", "json"]
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.60

[[providers.simulated.models]]
id = "sim-large"
tasks = ["reasoning", "long_form", "general"]
capabilities = ["tools", "json"]
input_usd_per_mtok = 2.50
output_usd_per_mtok = 10.00
"""


def up_command(
    config: Annotated[
        Path | None, typer.Option("--config", help="The fleet's file; default: fleet.toml, if there is one.")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="A simulated provider instead of real ones.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget queues, quotas and cache of earlier runs.")
    ] = False,
    folder: Annotated[Path, typer.Option("--folder", help="Where queues, quotas and cache are kept.")] = Path(
        ".optimizer"
    ),
    port: Annotated[
        int | None, typer.Option("--port", help="Serve OpenAI's protocol at this port, too; 0: a free one.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option("--ready-file", help="Write the URLs here, as JSON, once all is ready.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run all of it on this machine: brokers, a front and every provider's pool. Ctrl-C drains and stops.

    RabbitMQ and Redis are those of OPTIMIZER_AMQP_URL and OPTIMIZER_REDIS_URL, or Docker's, or private
    processes in .optimizer/, where queues, quota counters and cache stay until --fresh.

        optimizer up --simulate        try it without a key
        GROQ_API_KEY=... optimizer up  every provider whose key is in the environment
        optimizer up --config fleet.toml
        optimizer up --port 8080       OpenAI's protocol over HTTP, for clients of any kind
    """
    log_to_stderr(verbose=verbose)
    with errors_for_people(), _interruptible(), ExitStack() as stack:
        if simulate and config is not None:
            raise ConfigurationError("--simulate and --config exclude each other; leave one out")
        # A mistake in the file, or a port that is taken, shows before anything is started.
        known = load_fleet(secrets=False) if simulate else configured_fleet(config, secrets=True)
        gateway = stack.enter_context(gateway_beside(known, port))
        brokers = stack.enter_context(
            find_brokers(folder, os.environ, say=says, compose_file=COMPOSE_FILE, fresh=fresh)
        )
        simulators = {"simulated": stack.enter_context(_simulator(folder)).base_url} if simulate else {}
        path = _write_simulated(folder, simulators["simulated"]) if simulate else config

        def load() -> Fleet:
            return recorded_in(folder, configured_fleet(path, secrets=True))

        stack.enter_context(_env_file(folder, [*_exports(brokers, gateway), *_recorded(load())]))
        run(_serve(load, brokers, folder, simulators, ready_file, gateway))
    says("stopped; nothing that was accepted is lost, and the next start goes on from the queues")


@contextmanager
def _interruptible() -> Iterator[None]:
    """While brokers start and stop, SIGTERM unwinds like Ctrl-C; an interrupt is a wanted end."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        says("interrupted")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _simulator(folder: Path) -> SimulatorProcess:
    latency = Latency(kind="lognormal", median_s=0.3, sigma=0.5)
    settings = Settings(concurrency=_CONCURRENCY, latency=latency)
    return SimulatorProcess(settings, ledger_path=folder / "ledger.jsonl")


def _write_simulated(folder: Path, base_url: str) -> Path:
    """The file that makes the simulated provider known, also to workers started beside this one."""
    key_file = folder / "simulated.key"
    key_file.touch(mode=0o600)
    key_file.write_text(f"sk-simulated-{secrets.token_hex(8)}\n", "utf-8")
    path = folder / FLEET_FILE.name
    text = _SIMULATED_FLEET.format(base_url=base_url, key_file=key_file.resolve(), concurrency=_CONCURRENCY)
    path.write_text(text, "utf-8")
    return path


def recorded_in(folder: Path, fleet: Fleet) -> Fleet:
    """The fleet with its database in `folder`, beside the queues, where the configuration names none."""
    if "url" in fleet.recorder.model_fields_set:
        return fleet
    url = SecretStr(f"sqlite:///{folder.resolve() / 'optimizer.db'}")
    recorder = fleet.recorder.model_copy(update={"url": url})
    return fleet.model_copy(update={"recorder": recorder})


def _recorded(fleet: Fleet) -> list[str]:
    """Where `optimizer stats` finds it, from any folder below."""
    url = fleet.recorder.url.get_secret_value()
    return [f"export {RECORDER_URL}='{url}'"] if url.startswith("sqlite:///") else []


@contextmanager
def _env_file(folder: Path, exports: list[str]) -> Iterator[None]:
    """`folder/env`, which agents and commands read when nothing else is given; gone when we are."""
    path = folder / "env"
    path.touch(mode=0o600)
    path.write_text("".join(f"{line}\n" for line in exports), "utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _exports(brokers: Brokers, gateway: Beside | None) -> list[str]:
    urls = {
        "OPTIMIZER_AMQP_URL": brokers.amqp_url,
        "OPTIMIZER_REDIS_URL": brokers.redis_url,
        "OPTIMIZER_MANAGEMENT_URL": brokers.management_url,
        "OPENAI_BASE_URL": gateway.base_url if gateway else None,
    }
    return [f"export {name}='{url}'" for name, url in urls.items() if url]


async def _serve(
    load: Callable[[], Fleet],
    brokers: Brokers,
    folder: Path,
    simulators: dict[str, str],
    ready_file: Path | None,
    gateway: Beside | None,
) -> None:
    fleet = load()
    stop = asyncio.Event()
    stop_on_signals(stop)
    if brokers.management_url is None:
        raise ConfigurationError("OPTIMIZER_MANAGEMENT_URL is not set, and policies need it")
    whole = declaration(fleet)
    say_retired(await apply_topology(whole, brokers.amqp_url, brokers.management_url, brokers.redis_url))

    def ready() -> None:
        _announce(fleet, brokers, folder, gateway)
        if ready_file is not None:
            _write_ready(ready_file, brokers, simulators, gateway)

    async with AsyncExitStack() as stack:
        if gateway is not None:
            stop = await stack.enter_async_context(gateway.drained_first(fleet, brokers.amqp_url, stop, load))
        await run_roles(
            _roles(), fleet, brokers.amqp_url, brokers.redis_url,
            stop=stop, on_ready=ready, load=load,
        )  # fmt: skip


def _roles() -> list[str]:
    if extra.is_installed():
        return ["front", "backend:all", "undertaker", "alerts", "recorder"]
    says(f"nothing is recorded for `optimizer stats`: its libraries are not installed; {extra.REMEDY}")
    return ["front", "backend:all", "undertaker", "alerts"]


def _announce(fleet: Fleet, brokers: Brokers, folder: Path, gateway: Beside | None) -> None:
    own = brokers.origin == "private"  # the password of a private node is everybody's
    says("\nready. In an agent's shell, or nothing at all in this folder:\n")
    for line in _exports(brokers, gateway):
        says(f"  {line}" if own else f"  {masked_export(line)}")
    if not own:
        says(f"  (with passwords in {folder / 'env'})")
    says("")
    for provider in fleet.providers.values():
        models = ", ".join(model.id for model in provider.models[:4]) or "any model"
        more = " ..." if len(provider.models) > 4 else ""
        says(f"  {provider.name:<12} {models}{more}")
    if brokers.management_url:
        says(f"\n  RabbitMQ's own pages: {masked(brokers.management_url)}")
    says("  try: optimizer call 'Say hello'     watch: event_monitor 'optimizer.*'     stop: Ctrl-C\n")


def masked_export(line: str) -> str:
    """The line without its URL's password."""
    name, _, value = line.partition("=")
    return f"{name}='{masked(value.strip(chr(39)))}'"


def _write_ready(path: Path, brokers: Brokers, simulators: dict[str, str], gateway: Beside | None) -> None:
    facts: dict[str, Any] = {
        "amqp_url": brokers.amqp_url,
        "redis_url": brokers.redis_url,
        "management_url": brokers.management_url,
        "openai_base_url": gateway.base_url if gateway else None,
        "simulators": simulators,
    }
    unfinished = path.with_suffix(".part")  # whoever waits for the file never sees half of it
    unfinished.touch(mode=0o600)
    unfinished.write_text(json.dumps(facts), "utf-8")
    unfinished.rename(path)
