"""Where the brokers are: an argument, the environment, or what `optimizer up` wrote down."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from producer_sdk.errors import Overloaded

AMQP_URL: Final = "OPTIMIZER_AMQP_URL"
REDIS_URL: Final = "OPTIMIZER_REDIS_URL"
ENV_FILE: Final = Path(".optimizer/env")


def find_setting(
    name: str, environ: Mapping[str, str] = os.environ, folder: Path | None = None
) -> str | None:
    """A setting's value, from the environment or the nearest `.optimizer/env` at or above `folder`.

    Args:
        name: Such as `OPTIMIZER_AMQP_URL`.
        environ: The environment, which wins.
        folder: Where the search begins; None for the current folder.
    """
    if environ.get(name):
        return environ[name]
    start = (folder or Path.cwd()).resolve()
    for place in (start, *start.parents):
        file = place / ENV_FILE
        if file.is_file():
            return read_env_file(file).get(name)
    return None


def read_env_file(file: Path) -> dict[str, str]:
    """The `export NAME=value` lines of a file; anything else is passed over."""
    pairs = {}
    for line in file.read_text("utf-8").splitlines():
        name, sign, value = line.removeprefix("export ").partition("=")
        if sign and not line.lstrip().startswith("#"):
            pairs[name.strip()] = value.strip().strip("'\"")
    return pairs


def find_amqp_url(url: str | None) -> str:
    """The URL of RabbitMQ for an agent.

    Raises:
        Overloaded: None is known; the text says how to give one.
    """
    found = url or find_setting(AMQP_URL)
    if found is None:
        raise Overloaded(
            f"where is RabbitMQ? Pass url=, set {AMQP_URL}, or run `optimizer up` in this folder"
        )
    return found


def masked(url: str) -> str:
    """The URL without its passwords, fit to be printed, whatever else is wrong with it."""
    return re.sub(r"(password=)[^&#]*", r"\1***", re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url))
