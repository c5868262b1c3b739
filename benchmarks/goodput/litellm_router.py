"""LiteLLM's Router, in an environment of its own: `python -m benchmarks.goodput.litellm_router`.

Reads what to ask from stdin and writes what became of it to stdout, both as JSON. It imports nothing of the
project but plain Python, and calls the providers over HTTP.

The Router counts in minutes of the clock and pauses for fixed times. Its minutes and its cool-downs are
shortened by the factor by which all else is (its back-off is in `router.py`), and `retry-after-ms` counts in
place of the whole seconds that it reads: they would be too coarse.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from litellm import router, utils  # type: ignore[import-not-found]
from litellm.router_strategy import lowest_tpm_rpm_v2  # type: ignore[import-not-found]

from benchmarks.goodput.asks import Answered, Ask, ask_all

_COOLDOWN_S = 5.0


def _hurry(faster: float) -> None:
    """Makes LiteLLM's time pass so many times as fast."""

    def now() -> datetime:
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() * faster, UTC)

    def retry_after(headers: Any = None) -> float:
        if not headers or "retry-after" not in headers:
            return -1.0
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000.0
        return float(headers["retry-after"]) / faster  # its own, for when its minute is used up

    for module in (router, lowest_tpm_rpm_v2):
        module.get_utc_datetime = now
    utils._get_retry_after_from_exception_header = retry_after  # noqa: SLF001


def _deployment(provider: dict[str, Any], model: str, key: str) -> dict[str, Any]:
    params = {"model": f"openai/{model}", "api_base": provider["base_url"], "api_key": key}
    return {"model_name": model, "litellm_params": params | provider["limits"]}


async def _ask(plan: dict[str, Any]) -> list[Answered]:
    asking = router.Router(
        model_list=[_deployment(provider, plan["model"], plan["key"]) for provider in plan["providers"]],
        routing_strategy=plan["strategy"],
        num_retries=plan["retries"],
        cooldown_time=_COOLDOWN_S / plan["faster"],
    )

    async def ask(asked: Ask, left_s: float) -> None:
        async with asyncio.timeout(left_s):
            await asking.acompletion(
                model=plan["model"],
                messages=[{"role": "user", "content": asked.prompt}],
                max_tokens=asked.max_tokens,
            )

    return await ask_all([Ask(**asked) for asked in plan["asks"]], ask)


def main() -> None:
    plan = json.load(sys.stdin)
    answers, sys.stdout = sys.stdout, sys.stderr  # it may print
    _hurry(plan["faster"])
    answered = asyncio.run(_ask(plan))
    json.dump([asdict(one) for one in answered], answers)


if __name__ == "__main__":
    main()
