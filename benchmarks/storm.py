"""Every key answers 429 for two minutes: what that costs, and how soon the limit is used again.

`python -m benchmarks.storm`: the provider allows 120 requests in a window, over five accounts. Then all is
refused for a while, with or without a word on how long (`--silent`). Exits with 1 when a figure is off: more
than one probe for each account and cool-down, an error for somebody with time left, less than 95 % of the
limit in the first window that begins after the storm.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count, pairwise

from benchmarks.fleet import Stand, stand
from producer_sdk import AsyncOptimizer
from sandbox.simulator import Account, Entry, Latency, Limit, Settings, SimulatorProcess

_REQUESTS = 120
_WAITING = 240
_ACCOUNTS = 5
_CONCURRENCY = 30
_NEARLY = 0.9
"""The provider's clock is that of arrivals: a probe may come a little sooner after the one before."""
_SHORTEST_S = 1.0
_FLEET = """
[fleet]
requests_per_minute = 1e6
agent_requests_per_minute = 1e6
max_spends = 5
[providers.simulated]
base_url = "{base_url}"
api_keys = [{keys}]
concurrency = {concurrency}
limits = [{{ requests = {requests}, window_s = {window_s} }}]
[[providers.simulated.models]]
id = "sim-small"
"""


class Load:
    """Keeps more requests waiting than the provider takes."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self._names = count()

    async def ask(self, optimizer: AsyncOptimizer) -> None:
        while True:
            try:
                await optimizer.chat(f"{time.time()} {next(self._names)}", timeout=3600)
            except Exception as error:  # noqa: BLE001 - a figure of the account
                self.errors[type(error).__name__] += 1


async def storm(
    whole: Stand, provider: SimulatorProcess, options: argparse.Namespace
) -> tuple[Load, float, float]:
    """The load, and when the storm began and ended."""
    load = Load()
    async with AsyncOptimizer("bench", url=whole.rabbitmq.amqp_url) as optimizer:
        asking = [asyncio.create_task(load.ask(optimizer)) for _ in range(_WAITING)]
        while not provider.ledger():  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.2)
        await asyncio.sleep(1.5 * options.window)
        began = time.time()
        told = {} if options.silent else {"retry_after_s": options.cool_down}
        provider.change(faults={"rate_limited": 1.0, **told})
        await asyncio.sleep(options.seconds)
        provider.change(faults={"rate_limited": 0.0})
        ended = time.time()
        await asyncio.sleep(2.5 * options.window)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return load, began, ended


def probes_too_many(refused: Sequence[Entry], cool_down_s: float) -> int:
    """Calls that came within the cool-down of the one before, apart from those under way together."""
    wrong = 0
    for account in {call.account for call in refused}:
        calls = [call for call in refused if call.account == account]
        together = calls[0].arrived_at + _SHORTEST_S
        later = [call.arrived_at for call in calls if call.arrived_at > together]
        wrong += sum(after - before < _NEARLY * cool_down_s for before, after in pairwise(later))
    return wrong


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="for how long all is refused; default 120"
    )
    parser.add_argument("--window", type=float, default=60.0, help="seconds; default 60")
    parser.add_argument("--cool-down", type=float, default=5.0, help="what the provider says; default 5 s")
    parser.add_argument("--silent", action="store_true", help="it says nothing of how long")
    options = parser.parse_args(arguments)
    keys = {f"KEY_{n}": f"sk-{n}" for n in range(_ACCOUNTS)}
    settings = Settings(
        limits=(Limit(requests=_REQUESTS, window_s=options.window),),
        accounts=tuple(Account(name=name, keys=(secret,)) for name, secret in keys.items()),
        latency=Latency(kind="uniform", low_s=0.2, high_s=2.0),
    )
    with SimulatorProcess(settings) as provider, stand() as whole:
        text = _FLEET.format(
            base_url=provider.base_url, keys=", ".join(f'"env:{name}"' for name in keys),
            concurrency=_CONCURRENCY, requests=_REQUESTS, window_s=options.window,
        )  # fmt: skip
        whole.configure(text, **keys)
        whole.start_worker("front")
        for _ in range(2):
            whole.start_worker("backend:all")
        load, began, ended = asyncio.run(storm(whole, provider, options))
        ledger = provider.ledger()
    refused = [call for call in ledger if call.outcome == "rate_limited"]
    in_storm = [call for call in refused if began <= call.arrived_at <= ended]
    first = [
        call for call in ledger if call.outcome == "ok" and ended <= call.arrived_at < ended + options.window
    ]
    wrong = probes_too_many(in_storm, _SHORTEST_S if options.silent else options.cool_down)
    used = len(first) / _REQUESTS
    print(f"refused in {ended - began:.0f} s: {len(in_storm)} calls; too soon after another: {wrong}")
    print(f"refused before and after: {len(refused) - len(in_storm)}; errors: {dict(load.errors) or 'none'}")
    print(f"the first window after it: {used:.1%} of the limit")
    sys.exit(0 if not wrong and not load.errors and used >= 0.95 and len(refused) == len(in_storm) else 1)


if __name__ == "__main__":
    main()
