"""LiteLLM's Router as it is driven from here: a process of another environment, with a plan on its stdin."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.goodput.asks import Answered, Ask
from benchmarks.goodput.offers import KEY, MODEL, Offer
from sandbox.simulator import SimulatorProcess

_ROOT = Path(__file__).parents[2]
_PAUSES_S = {"INITIAL_RETRY_DELAY": 0.5, "MAX_RETRY_DELAY": 8.0, "JITTER": 0.75}
"""What LiteLLM waits before it tries again where nobody says for how long: its defaults."""


def ask_router(
    asks: Sequence[Ask], providers: Mapping[str, SimulatorProcess], *,
    offers: Sequence[Offer], faster: float, python: Path, strategy: str, retries: int,
) -> list[Answered]:  # fmt: skip
    """Asks all of it through a Router that knows each provider's limits.

    Raises:
        subprocess.CalledProcessError: It failed; what it said is on stderr.
    """
    plan = {
        "model": MODEL,
        "key": KEY,
        "faster": faster,
        "strategy": strategy,
        "retries": retries,
        "providers": [{"base_url": providers[o.name].base_url, "limits": _limits(o)} for o in offers],
        "asks": [asdict(asked) for asked in asks],
    }
    command = [str(python), "-W", "ignore", "-m", "benchmarks.goodput.litellm_router"]
    environ = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }  # the prices that it carries: nothing is fetched
    environ |= {name: str(seconds / faster) for name, seconds in _PAUSES_S.items()}
    ran = subprocess.run(
        command, cwd=_ROOT, env=environ, input=json.dumps(plan), stdout=subprocess.PIPE, text=True, check=True
    )
    return [Answered(**one) for one in json.loads(ran.stdout)]


def _limits(offer: Offer) -> dict[str, Any]:
    limits = {
        "rpm": int(offer.requests_per_minute),
        "tpm": offer.tokens,
        "max_parallel_requests": offer.concurrency,
    }
    return {name: value for name, value in limits.items() if value is not None}
