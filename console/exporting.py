"""`optimizer topology export`: a RabbitMQ definitions file, with users where they are wanted."""

import json
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from console.commands import configured_fleet, errors_for_people, says
from topology import names
from topology.declaration import declaration
from topology.definitions import (
    GATEWAY_USER,
    RESERVED_USERS,
    SALT_BYTES,
    WORKERS_USER,
    User,
    agent_user,
    definitions,
    gateway_user,
    password_hash,
    workers_user,
)
from topology.loading import ConfigurationError

_VARIABLE: Final = "OPTIMIZER_PASSWORD_"


def export_command(
    config: Annotated[
        Path | None, typer.Option("--config", help="The fleet's file; default: fleet.toml, if there is one.")
    ] = None,
    vhost: Annotated[str, typer.Option(help="The virtual host it is for.")] = "/",
    users: Annotated[
        bool, typer.Option("--users", help="Add users and permissions, so that RabbitMQ checks who speaks.")
    ] = False,
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", metavar="NAME", help="With --users: an agent; may be given often."),
    ] = None,
    passwords: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --users: a file for each user, named like it."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it here; default: to stdout.")
    ] = None,
) -> None:
    """Print a RabbitMQ definitions file: exchanges, queues, bindings and policies.

    It makes what `optimizer topology apply` makes, where definitions are how
    RabbitMQ is set up:

        optimizer topology export -o definitions.json
        rabbitmqctl import_definitions definitions.json

    With --users, RabbitMQ also checks who speaks. The user "workers" is for
    workers and operators, "gateway" for the gateway, and each agent has one:

        optimizer topology export --users --agent quality --agent tests

    An agent's user may publish requests of this agent, and read this agent's
    replies; all else is refused. The agent's process gets it in its URL,
    amqp://quality:PASSWORD@host:5672/

    You choose the passwords; none is invented. Each is read from a variable,
    such as OPTIMIZER_PASSWORD_QUALITY ("-" in a name is "_" there), or with
    --passwords FOLDER from the file FOLDER/quality. What is printed holds
    salted hashes, no password. Keep it to yourself all the same. A user of
    the same name that stands gets this password and these permissions.
    """
    with errors_for_people():
        if (agent or passwords) and not users:
            raise ConfigurationError("--agent and --passwords belong to --users; add it")
        fleet = configured_fleet(config, secrets=False)
        people = _people(agent or (), passwords) if users else ()
        text = json.dumps(definitions(declaration(fleet), vhost, people), indent=2) + "\n"
        if output is None:
            typer.echo(text, nl=False)
        else:
            _write(output, text)
            says(f"written: {output}; next: rabbitmqctl import_definitions {output}")


def _people(agents: Sequence[str], folder: Path | None) -> tuple[User, ...]:
    for name in agents:
        if not names.is_agent_name(name):
            raise ConfigurationError(f"--agent {name!r}: a name is 1 to 64 of a-z, 0-9, '_' and '-'")
        if name in RESERVED_USERS:
            raise ConfigurationError(f"--agent {name}: this user has another meaning; rename the agent")
    wanted = list(dict.fromkeys((WORKERS_USER, GATEWAY_USER, *agents)))
    hashes = {
        name: password_hash(password, secrets.token_bytes(SALT_BYTES))
        for name, password in _passwords(wanted, folder).items()
    }
    return (
        workers_user(hashes.pop(WORKERS_USER)),
        gateway_user(hashes.pop(GATEWAY_USER)),
        *(agent_user(name, hash_) for name, hash_ in hashes.items()),
    )


def _passwords(users: Sequence[str], folder: Path | None) -> dict[str, str]:
    """Each user's password; all that are missing are named in one error."""
    if folder is None:
        _refuse_one_variable_for_two(users)
        found: dict[str, str] = {name: os.environ.get(_variable(name), "") for name in users}
        missing = ", ".join(_variable(name) for name, password in found.items() if not password)
        remedy = "set them, or give --passwords FOLDER"
    else:
        found = {name: _first_line(folder / name) for name in users}
        missing = ", ".join(str(folder / name) for name, password in found.items() if not password)
        remedy = "write each user's password into its file, such as: openssl rand -hex 24 > FOLDER/NAME"
    if missing:
        raise ConfigurationError(f"--users needs a password for each user; missing: {missing}; {remedy}")
    return found


def _variable(user: str) -> str:
    return _VARIABLE + user.upper().replace("-", "_")


def _refuse_one_variable_for_two(users: Iterable[str]) -> None:
    shared = [name for name, count in Counter(map(_variable, users)).items() if count > 1]
    if shared:
        raise ConfigurationError(
            f"{', '.join(shared)}: two users would share this password; give --passwords FOLDER"
        )


def _first_line(file: Path) -> str:
    try:
        return file.read_text("utf-8").partition("\n")[0].strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read ({error})") from None


def _write(file: Path, text: str) -> None:
    try:
        file.touch(mode=0o600)  # it may hold hashes of passwords
        file.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from None
