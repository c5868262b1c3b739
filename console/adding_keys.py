"""`optimizer keys add`: one more key in the fleet's file, which keeps its comments and its order."""

from pathlib import Path
from typing import Annotated, Any, Final

import tomlkit
import typer

from console.commands import FLEET_FILE, errors_for_people
from console.telling_workers import fail
from topology.loading import ConfigurationError, catalogue, load_fleet

_OWN: Final = "an account of its own"


def add_command(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="Its name, as under [providers].")],
    key: Annotated[
        str, typer.Argument(metavar="ORIGIN", help="Where the key is kept: env:NAME or file:PATH.")
    ],
    account: Annotated[
        str | None,
        typer.Option(help="The account whose quota it shares; a new name makes a new account."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The fleet's file; default: fleet.toml.")] = None,
) -> None:
    """Write one more key into the fleet's file. `optimizer reload` then makes the workers use it.

    Without --account it has a quota of its own. Keys that the provider counts together, as most count all
    keys of one customer, belong to one account: else each is given the whole quota, and the provider refuses.
    """
    file = config or FLEET_FILE
    if not file.is_file():
        fail([f"{file}: no such file; `optimizer init` writes one"])
    with errors_for_people():
        document = tomlkit.parse(file.read_text("utf-8"))
        table = _table_of(document, provider)
        if key in _origins(table):
            fail([f"{provider} has {key} already"])
        if account is None:
            table.setdefault("api_keys", tomlkit.array()).append(key)
        else:
            _account_of(table, account).setdefault("api_keys", tomlkit.array()).append(key)
        _replace(file, tomlkit.dumps(document))
    whose = _OWN if account is None else f"account {account}"
    typer.echo(f"{provider}: {key} added to {file}, as {whose}\nnext: optimizer reload")


def _table_of(document: Any, provider: str) -> Any:
    providers = document.setdefault("providers", tomlkit.table(is_super_table=True))
    if provider not in providers and provider not in catalogue():
        known = ", ".join(sorted({*providers, *catalogue()}))
        fail([f"{provider!r} is in neither the file nor the catalogue; there are: {known}"])
    return providers.setdefault(provider, tomlkit.table())


def _account_of(table: Any, name: str) -> Any:
    accounts = table.setdefault("accounts", tomlkit.aot())
    for one in accounts:
        if one.get("name") == name:
            return one
    accounts.append(tomlkit.item({"name": name}))
    return accounts[-1]


def _origins(table: Any) -> set[str]:
    lists = [table.get("api_keys", []), *(one.get("api_keys", []) for one in table.get("accounts", []))]
    return {origin for origins in lists for origin in origins}


def _replace(file: Path, text: str) -> None:
    """Nothing is written that the workers would refuse."""
    draft = file.with_name(f".{file.name}.new")
    try:
        draft.write_text(text, "utf-8")
        draft.chmod(file.stat().st_mode)
        load_fleet(draft, secrets=False)
        draft.replace(file)
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace(str(draft), str(file))) from None
    finally:
        draft.unlink(missing_ok=True)
