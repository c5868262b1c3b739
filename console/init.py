"""`optimizer init`: a first `fleet.toml`, for the providers at hand, that explains itself."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from console.commands import FLEET_FILE, errors_for_people, says
from topology.fleet import Fleet, Provider
from topology.limits import Limit
from topology.loading import ConfigurationError, catalogue

FREE_TIERS: Final = ("groq", "openrouter", "gemini")
"""Providers that can be tried without paying; offered where no key is at hand."""

_KEY_PAGES: Final = {
    "groq": "https://console.groq.com/keys",
    "openrouter": "https://openrouter.ai/settings/keys",
    "gemini": "https://aistudio.google.com/apikey",
}
_WINDOWS: Final[dict[float, str]] = {
    1: "second",
    60: "minute",
    3600: "hour",
    86_400: "day",
    30 * 86_400: "month",
}

_HEAD: Final = """\
# Who may be called, and how much. Read at start and on `optimizer reload`, validated whole.
# A key that is left out has its default; docs/configuration.md lists all of them.
# After a change: optimizer reload. When in doubt: optimizer doctor.

[fleet]
# requests_per_minute = 300          # all agents together; answers from the cache are free
# agent_requests_per_minute = 30     # each agent; over it, a request waits its turn
# concurrency = 50                   # calls in flight, over all providers
timeout_s = 600                      # the deadline of a request that names none

[cache]
ttl_s = 600                          # identical requests share an answer for this long; 0 stores none
dedupe_window_s = 5                  # for requests with cache = "join"

[priorities]                         # shares, when all three have something waiting; none starves
high = 8
normal = 3
batch = 1

# A key is never written here, only where it is kept: "env:NAME" or "file:PATH".
# Each key in api_keys is an account of its own. Keys that share one quota belong together:
#   [[providers.NAME.accounts]]
#   name = "main"
#   api_keys = ["env:KEY_1", "env:KEY_2"]
# Limits come from the catalogue, with their source and date. Compare them with your plan; what you
# state at the same place replaces them, such as requests_per_minute = 30 or requests_per_day = 50.
"""


def init_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = FLEET_FILE,
    provider: Annotated[
        list[str] | None,
        typer.Option("--provider", metavar="NAME", help="A provider of the catalogue; may be given often."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a fleet.toml that explains itself, and say what to do next.

    It names the providers whose key is in the environment, or those that you
    name. Where there are none, it shows how to get a key for three that can be
    tried for free. It holds no key, only where each one is kept.

        GROQ_API_KEY=... optimizer init
        optimizer init --provider openai --provider ollama
        optimizer init -o staging.toml
    """
    with errors_for_people():
        shelf = known_providers()
        names = _chosen(shelf, provider or (), os.environ)
        _write(output, fleet_text(shelf, names), force=force)
        says(f"written: {output}")
        for line in _next_steps(shelf, names, output, os.environ):
            says(line)


def known_providers() -> dict[str, Provider]:
    """The catalogue, by name."""
    return Fleet.model_validate({"providers": catalogue()}).providers


def fleet_text(shelf: Mapping[str, Provider], names: Sequence[str]) -> str:
    """The file for these providers; with none, the free tiers are there as comments."""
    if names:
        return "\n".join([_HEAD, *(_section(shelf[name]) for name in names)])
    intro = "# No provider is enabled yet. These three can be tried for free: get a key, put it into the\n"
    intro += "# environment, and take the first # away from the section's two lines.\n"
    return "\n".join([_HEAD, intro, *(_commented(shelf[name]) for name in FREE_TIERS)])


def _chosen(shelf: Mapping[str, Provider], named: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    wanted = list(dict.fromkeys(named))
    unknown = [name for name in wanted if name not in shelf]
    if unknown:
        raise ConfigurationError(
            f"--provider {', '.join(unknown)}: the catalogue has {', '.join(shelf)}; any other that speaks "
            "OpenAI's protocol needs a section with its base_url, as in docs/configuration.md"
        )
    return wanted or [name for name, one in shelf.items() if one.key_env and environ.get(one.key_env)]


def _section(provider: Provider) -> str:
    lines = [f"[providers.{provider.name}]"]
    if provider.keyless:
        lines.append(f"# needs no key; it is looked for at {provider.base_url}")
    else:
        lines.append(_keys_line(provider))
    return "\n".join([*lines, *_limit_lines(provider)]) + "\n"


def _commented(provider: Provider) -> str:
    lines = [f"# Get a key: {_KEY_PAGES[provider.name]}, then: export {provider.key_env}=..."]
    lines += [f"# [providers.{provider.name}]", f"# {_keys_line(provider)}", *_limit_lines(provider)]
    return "\n".join(lines) + "\n"


def _keys_line(provider: Provider) -> str:
    return f'api_keys = ["env:{provider.key_env}"]'


def _limit_lines(provider: Provider) -> list[str]:
    """Its limits as the catalogue states them, as comments."""
    places = [("all accounts", provider.limits), ("each account", provider.account.limits)]
    places += [(model.id, model.limits) for model in provider.models]
    stated = [(place, limits) for place, limits in places if limits]
    if not stated and provider.keyless:
        return []
    if not stated:
        return [f"# The catalogue knows no limits: they depend on your plan. See {provider.docs_url}"]
    lines = [f"# {place}: {', '.join(map(_limit_text, limits))}" for place, limits in stated]
    return [
        "# Limits of the catalogue:",
        *lines,
        *_sources(limit for _, limits in stated for limit in limits),
    ]


def _limit_text(limit: Limit) -> str:
    amount = f"{limit.amount:,.0f}" if limit.amount.is_integer() else f"{limit.amount:,g}"
    window = _WINDOWS.get(limit.window_s)
    return f"{amount} {limit.unit} " + (f"a {window}" if window else f"in {limit.window_s:g} s")


def _sources(limits: Iterable[Limit]) -> list[str]:
    """Where they were read, and when, one line for each page."""
    dates: dict[str, list[str]] = {}
    for limit in limits:
        if limit.source:
            dates.setdefault(limit.source, []).append(limit.as_of or "an unknown day")
    return [f"# Read at {page}, {_span(days)}" for page, days in dates.items()]


def _span(days: Sequence[str]) -> str:
    first, last = min(days), max(days)
    return first if first == last else f"{first} to {last}"


def _write(file: Path, text: str, *, force: bool) -> None:
    try:
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise ConfigurationError(f"{file} is there already; --force overwrites it") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from None


def _next_steps(
    shelf: Mapping[str, Provider], names: Sequence[str], file: Path, environ: Mapping[str, str]
) -> list[str]:
    option = "" if file == FLEET_FILE else f" --config {file}"
    if not names:
        return ["next: enable a provider in it, or try it without a key: optimizer up --simulate"]
    variables = [shelf[name].key_env for name in names]
    absent = [name for name in variables if name and not environ.get(name)]
    exports = [f"first: export {name}=..." for name in absent]
    return [*exports, f"next: optimizer up{option}"]
