"""What is watched and where: patterns as RabbitMQ binds them, the command line's filters, the URLs."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, NoReturn
from urllib.parse import urlsplit

import typer

from producer_sdk.amqp_url import node_urls
from producer_sdk.settings import AMQP_URL, find_setting, masked
from topology.events import EventType
from topology.messages import Event

ROOT: Final = "optimizer"
EVERYTHING: Final = f"{ROOT}.#"

_PATTERN: Final = re.compile(rf"{ROOT}(\.[\w*#-]+)*")
_LONGEST_KEY_BYTES: Final = 255
"""A routing key is an AMQP short string."""


class BadPattern(ValueError):
    """A pattern that no event can match; the text shows one that does."""


def binding_key(pattern: str) -> str:
    """The key that a pattern is bound with: a last word `*` means everything below, as people expect.

    Raises:
        BadPattern: It does not begin with `optimizer`, or is no topic pattern.
    """
    if not _PATTERN.fullmatch(pattern) or len(pattern.encode()) > _LONGEST_KEY_BYTES:
        raise BadPattern(
            f"pattern {pattern!r}: events are named optimizer.<...>, so a pattern begins with 'optimizer', "
            "for example 'optimizer.*', 'optimizer.cache.*' or 'optimizer.call.failed' (in quotes)"
        )
    if pattern == ROOT:
        return EVERYTHING
    return f"{pattern[:-1]}#" if pattern.endswith(".*") else pattern


@dataclass(frozen=True)
class Choice:
    """Which of the delivered events are shown.

    Attributes:
        agents: Names or shell-style patterns; empty: all, and events that no agent caused.
        types: Beginnings of types without `optimizer.`; empty: all.
        health: Whether the workers' heartbeats are shown though no type asks for them.
    """

    agents: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    health: bool = False

    def takes(self, event: Event) -> bool:
        """Whether this event is shown."""
        if self.types and not short_type(event.type).startswith(self.types):
            return False
        if self.agents and not any(fnmatchcase(event.agent or "", agent) for agent in self.agents):
            return False
        return event.type != EventType.WORKER_HEALTH or self.health or bool(self.types)


def choice_of(
    keys: Sequence[str], *, agents: Sequence[str], types: Sequence[str], all_health: bool
) -> Choice:
    """The filters of a command line; heartbeats are shown when a binding key names them."""
    named = any({"worker", "health"} & set(key.split(".")) for key in keys)
    return Choice(tuple(agents), tuple(_type_prefix(t) for t in types), all_health or named)


def short_type(type_: str) -> str:
    """An event's type without `optimizer.`."""
    return type_.removeprefix(f"{ROOT}.")


def one_line(text: str) -> str:
    """The text with whatever could break its line or steer a terminal made visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def amqp_url_or_exit(given: str | None) -> str:
    """RabbitMQ's URL from the option, the environment or `.optimizer/env`; exit 2 when it is no use."""
    url = given or find_setting(AMQP_URL)
    if url is None:
        refuse(f"where is RabbitMQ? Give --url, set {AMQP_URL}, or run `optimizer up` in this folder")
    try:
        nodes = [urlsplit(node) for node in node_urls(url)]
        usable = all(n.scheme in {"amqp", "amqps"} and n.hostname and n.port != 0 for n in nodes)
        shown = masked(url)
    except ValueError:  # a port that is no number, an unclosed bracket
        usable, shown = False, "the URL"
    if not usable:
        refuse(f"{shown} is not RabbitMQ's URL; it looks like amqp://user:password@host:5672/")
    return url


def refuse(message: str) -> NoReturn:
    """Ends the command with one line for people and exit status 2."""
    typer.echo(message, err=True)
    raise typer.Exit(2)


def quiet_logging() -> None:
    """Keeps connections' warnings off the terminal: what they say, these commands say in a line of their own.

    A handler of whoever runs us still gets them.
    """
    for name in ("optimizer", "aiormq", "aio_pika"):
        logging.getLogger(name).addHandler(logging.NullHandler())


def _type_prefix(type_: str) -> str:
    return short_type(type_).removesuffix("*").removesuffix("#").removesuffix(".")
