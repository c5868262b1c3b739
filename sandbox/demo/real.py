"""The demo with a real provider: a ceiling that is announced and kept, and a workload that fits under it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from sandbox.demo.errors import Unusable
from sandbox.demo.fleet import fleet_agents
from sandbox.demo.workload import Ask, Workload, in_order
from topology.loading import catalogue

CEILING_CALLS: Final = 20
CEILING_USD: Final = 0.05
CEILING_WINDOW_S: Final = 86400

_QUESTIONS: Final = (
    "What is a lease in a distributed system? One sentence.",
    "What is a token bucket? One sentence.",
    "What does idempotent mean? One sentence.",
    "What is a quorum? One sentence.",
    "What is backpressure? One sentence.",
    "What is a dead letter queue? One sentence.",
    "What is a fencing token? One sentence.",
    "What is exponential backoff? One sentence.",
)
"""Fewer than the ceiling, which leaves calls for retries, and for a second run on the same day."""
_ROUNDS: Final = 5
_MAX_TOKENS: Final = 60


@dataclass(frozen=True)
class RealProvider:
    """A provider of the catalogue, and what the demo will ask it.

    Attributes:
        key_env: The environment variable that holds the key; None where it takes none.
        model: The cheapest model whose price is known; without a price no ceiling in USD can be kept.
        limits: What the catalogue says of the provider as a whole; the ceiling stands beside it.
    """

    name: str
    key_env: str | None
    model: str
    limits: tuple[Mapping[str, Any], ...] = ()


def find_provider(name: str, key_env: str | None, environ: Mapping[str, str]) -> RealProvider:
    """A provider of the catalogue whose key is in the environment.

    Args:
        name: As in the catalogue, such as `groq`.
        key_env: The variable that holds the key; None: the catalogue's.
        environ: The environment variables.

    Raises:
        Unusable: There is no such provider, no key for it, or no model of known price.
    """
    shelf = catalogue()
    entry = shelf.get(name)
    if entry is None:
        raise Unusable(f"--provider: {name!r} is not in the catalogue; there are {', '.join(shelf)}")
    variable = None if entry.get("keyless") else key_env or entry.get("key_env")
    if variable is None and not entry.get("keyless"):
        raise Unusable(f"--provider {name}: say with --key-env which variable holds its key")
    if variable is not None and not environ.get(variable, "").strip():
        raise Unusable(
            f"--provider {name}: the environment has no {variable}; set it to your key, "
            "or name another variable with --key-env"
        )
    return RealProvider(name, variable, _cheapest(name, entry), tuple(entry.get("limits", ())))


def write_fleet(provider: RealProvider, path: Path) -> None:
    """Writes the `fleet.toml` that names this provider alone, with the ceiling among its limits."""
    limits = [
        *provider.limits,
        {"requests": CEILING_CALLS, "window_s": CEILING_WINDOW_S},
        {"usd": CEILING_USD, "window_s": CEILING_WINDOW_S},
    ]
    lines = [
        f"# Written by the demo: {provider.name} alone, with a ceiling. The key stays in the environment.",
        f"[providers.{provider.name}]",
        *([f'api_keys = ["env:{provider.key_env}"]'] if provider.key_env else []),
        "limits = [",
        *(f"    {_inline(limit)}," for limit in limits),
        "]",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def real_workload(provider: RealProvider, seed: int, seconds: float) -> Workload:
    """Eight questions, asked by 28 agents in five rounds, each at once by all who have it."""
    random, agents = Random(f"{seed}:real"), fleet_agents()
    asks = [
        Ask(
            at_s=round_ * seconds / _ROUNDS,
            agent=agent,
            prompt=random.choice(_QUESTIONS),
            model=f"{provider.name}/{provider.model}",
            params=(("max_tokens", _MAX_TOKENS),),
        )
        for round_ in range(_ROUNDS)
        for agent in agents
    ]
    return Workload(
        title=f"fleet, small: {len(agents)} agents with {len(_QUESTIONS)} questions for {provider.name}",
        agents=agents,
        asks=in_order(asks),
        notes=(
            f"model {provider.model}, answers of at most {_MAX_TOKENS} tokens",
            f"ceiling: {CEILING_CALLS} calls and {CEILING_USD} USD in 24 h, for all runs in this folder",
            "figures are counted from the replies; the provider's own bill is what counts",
        ),
    )


def _cheapest(name: str, entry: Mapping[str, Any]) -> str:
    priced: dict[str, float] = {
        model["id"]: (3 * model["input_usd_per_mtok"] + model["output_usd_per_mtok"]) / 4
        for model in entry.get("models", ())
        if {"input_usd_per_mtok", "output_usd_per_mtok"} <= model.keys()
        and model.get("tasks") != ["embedding"]
    }
    if not priced:
        raise Unusable(f"--provider {name}: the catalogue has no model of known price, which a ceiling needs")
    return min(priced, key=lambda model: priced[model])


def _inline(table: Mapping[str, Any]) -> str:
    """A flat table in TOML; JSON's strings and numbers are TOML's."""
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + " }"
