"""Reading the configuration: catalogue, `fleet.toml`, environment; then validated as one."""

import os
import tomllib
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr, ValidationError

from topology.fleet import Account, Fleet, Provider
from topology.limits import collect_short_forms
from topology.sections import ApiKey

_PREFIX: Final = "OPTIMIZER_"
_PRICES: Final = frozenset({"input_usd_per_mtok", "output_usd_per_mtok"})
_SECTIONS: Final = (
    "fleet",
    "cache",
    "learning",
    "budgets",
    "priorities",
    "gateway",
    "recorder",
    "alerts",
    "providers",
)


class ConfigurationError(Exception):
    """The configuration cannot be used; the text names the key and says how to mend it."""


class VariableMissing(ConfigurationError):
    """A key is to come from an environment variable that is not set."""


def load_fleet(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    secrets: bool | Collection[str] = True,
) -> Fleet:
    """The fleet that a file, the environment and the catalogue describe together.

    Without a file, a provider of the catalogue is enabled when its key is in the environment. With
    one, exactly the providers that it names, each inheriting the catalogue entry of its name.
    `OPTIMIZER_<SECTION>__<KEY>` overrides single values.

    Args:
        path: The `fleet.toml`; None for none.
        environ: The environment variables.
        secrets: Whether to resolve keys, or the providers whose keys to resolve. Only the workers that
            call a provider need its keys.

    Raises:
        ConfigurationError: An unknown key, an impossible value, a missing file or secret.
    """
    shelf = catalogue()
    table = _read(path) if path is not None else _from_environment(shelf, environ)
    _override(table, environ)
    _inherit(table, shelf)
    try:
        fleet = Fleet.model_validate(table)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, path)) from None
    return _with_secrets(fleet, environ, secrets)


def catalogue() -> dict[str, dict[str, Any]]:
    """The providers we know, each as the table that its file in `providers/catalogue` holds."""
    folder = resources.files("topology").joinpath("providers/catalogue")
    return {
        entry.name.removesuffix(".toml"): tomllib.loads(entry.read_text("utf-8"))
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; `optimizer up` runs without one, too") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None


def _from_environment(shelf: Mapping[str, dict[str, Any]], environ: Mapping[str, str]) -> dict[str, Any]:
    enabled = {
        name: {"api_keys": [f"env:{entry['key_env']}"]}
        for name, entry in shelf.items()
        if entry.get("key_env") and environ.get(entry["key_env"])
    }
    return {"providers": enabled}


def _override(table: dict[str, Any], environ: Mapping[str, str]) -> None:
    for name, text in environ.items():
        path = name.removeprefix(_PREFIX).lower().split("__")
        if not name.startswith(_PREFIX) or len(path) < 2 or path[0] not in _SECTIONS:
            continue
        target = table
        for key in path[:-1]:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise ConfigurationError(f"{name}: {key} is no table that a variable can reach into")
        target[path[-1]] = _value(text)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _inherit(table: dict[str, Any], shelf: Mapping[str, dict[str, Any]]) -> None:
    providers = table.get("providers")
    if not isinstance(providers, dict):
        return
    for name, own in providers.items():
        entry = shelf.get(name)
        if entry is None or not isinstance(own, dict):
            continue
        models = [{**model, "fallback_price": True} for model in entry.get("models", ())]
        known = {model["id"]: model for model in models}
        merged = _merged({**entry, "models": models}, own)
        if not (own.keys() & {"api_keys", "accounts", "keyless"}) and entry.get("key_env"):
            merged["api_keys"] = [f"env:{entry['key_env']}"]
        if isinstance(own.get("account"), dict):
            merged["account"] = _merged(entry.get("account", {}), own["account"])
        if isinstance(own.get("models"), list):
            merged["models"] = [
                _own_model(known.get(str(m.get("id")), {}), m) if isinstance(m, dict) else m
                for m in own["models"]
            ]
        providers[name] = merged


def _own_model(known: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A price that the file states is what is charged, and no fallback."""
    if own.keys() & _PRICES:
        known = {key: value for key, value in known.items() if key != "fallback_price"}
    return _merged(known, own)


def _merged(known: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The known table with one's own values over it; stating any limit replaces all that were known."""
    if "limits" in collect_short_forms(dict(own)):
        known = {key: value for key, value in known.items() if key != "limits"}
    return {**known, **own}


def _explain(error: ValidationError, path: Path | None) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in item["loc"]) or "the file"
        said = item["msg"].removeprefix("Value error, ")
        hint = "unknown key; check its spelling" if item["type"] == "extra_forbidden" else said
        lines.append(f"{key}: {hint}")
    return f"{path or 'configuration'}: " + "; ".join(lines)


def _with_secrets(fleet: Fleet, environ: Mapping[str, str], secrets: bool | Collection[str]) -> Fleet:
    wanted: Collection[str] = secrets if not isinstance(secrets, bool) else fleet.providers if secrets else ()
    resolved = {n: _unlock(p, environ) if n in wanted else p for n, p in fleet.providers.items()}
    return fleet.model_copy(update={"providers": resolved})


def _unlock(provider: Provider, environ: Mapping[str, str]) -> Provider:
    if not (provider.api_keys or provider.accounts or provider.keyless):
        hint = f'api_keys = ["env:{provider.key_env or "NAME"}"]'
        raise ConfigurationError(f"providers.{provider.name}: no key; add {hint}, or keyless = true")
    where = f"providers.{provider.name}.api_keys"
    accounts = tuple(
        account.model_copy(update={"api_keys": _secrets(account, where, environ)})
        for account in provider.accounts
    )
    keys = tuple(with_secret(key, where, environ) for key in provider.api_keys)
    return provider.model_copy(update={"api_keys": keys, "accounts": accounts})


def _secrets(account: Account, where: str, environ: Mapping[str, str]) -> tuple[ApiKey, ...]:
    return tuple(with_secret(key, f"{where} ({account.name})", environ) for key in account.api_keys)


def recorder_url(fleet: Fleet, environ: Mapping[str, str] = os.environ) -> str:
    """The URL of the recorder's database, with its password.

    Raises:
        ConfigurationError: It is kept in a variable or a file that is missing.
    """
    return kept_elsewhere(fleet.recorder.url, "recorder.url", environ)


def kept_elsewhere(text: SecretStr, where: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text itself, or what it leads to as `env:NAME` or `file:PATH`; errors as for `with_secret`."""
    plain = text.get_secret_value()
    if not plain.startswith(("env:", "file:")):
        return plain
    secret = with_secret(ApiKey(origin=plain), where, environ).secret
    return secret.get_secret_value() if secret else ""


def with_secret(key: ApiKey, where: str, environ: Mapping[str, str] = os.environ) -> ApiKey:
    """The key with its secret, read from where it is kept.

    Raises:
        ConfigurationError: There is none; the text begins with `where` and never holds the key.
    """
    kind, _, name = key.origin.partition(":")
    if kind == "env":
        text = environ.get(name, "")
        missing = f"{where}: the environment has no {name}; set it, or take this key out"
    else:
        try:
            text = Path(name).expanduser().read_text("utf-8")
        except OSError as error:
            raise ConfigurationError(f"{where}: {name} cannot be read: {error.strerror}") from None
        missing = f"{where}: {name} is empty"
    if not text.strip():
        raise (VariableMissing if kind == "env" else ConfigurationError)(missing)
    return key.model_copy(update={"secret": SecretStr(text.strip())})
