"""What the commands share: errors for people, where the brokers are, which configuration counts."""

import asyncio
import sys
from collections.abc import Collection, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import typer
import uvloop

from broker.declaring import TopologyError
from producer_sdk import OptimizerError
from producer_sdk.settings import AMQP_URL, REDIS_URL, find_setting
from sandbox.nodes import NodeError
from topology.fleet import Fleet
from topology.loading import ConfigurationError, load_fleet
from workers.prices import with_known_prices
from workers.running import UnknownRole

T = TypeVar("T")

FLEET_FILE: Final = Path("fleet.toml")
MANAGEMENT_URL: Final = "OPTIMIZER_MANAGEMENT_URL"
_EXPECTED: Final = (ConfigurationError, TopologyError, NodeError, UnknownRole, OptimizerError)


@contextmanager
def errors_for_people() -> Iterator[None]:
    """An error that we know the remedy of is one line and exit status 1, never a traceback."""
    try:
        yield
    except _EXPECTED as error:
        typer.echo(f"optimizer: {error}", err=True)
        raise typer.Exit(1) from None


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs on uvloop's event loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def configured_fleet(config: Path | None, *, secrets: bool | Collection[str]) -> Fleet:
    """The fleet of `--config`, of `fleet.toml` where it lies, else of catalogue and environment.

    `secrets` as for `load_fleet`.

    Raises:
        ConfigurationError: It cannot be used, or no provider is enabled.
    """
    path = config or (FLEET_FILE if FLEET_FILE.is_file() else None)
    fleet = with_known_prices(load_fleet(path, secrets=secrets))
    if not fleet.providers:
        raise ConfigurationError(
            "no provider is enabled: put a key into the environment (such as GROQ_API_KEY), name "
            "providers in fleet.toml, or try --simulate"
        )
    return fleet


def broker_url(name: str, given: str | None = None) -> str:
    """A broker's URL from an option, the environment or `.optimizer/env`.

    Raises:
        ConfigurationError: None is known.
    """
    url = given or find_setting(name)
    if url is None:
        raise ConfigurationError(f"{name} is not set; start `optimizer up` in this folder, or set it")
    return url


def broker_urls() -> tuple[str, str]:
    """RabbitMQ's and Redis's."""
    return broker_url(AMQP_URL), broker_url(REDIS_URL)


def says(text: str) -> None:
    """A line of progress, on stderr, so that stdout can be piped."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command's output
