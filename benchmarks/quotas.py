"""Quotas of a day, spent to the last request and never beyond, whatever is restarted.

`python -m benchmarks.quotas`: 50 accounts of 50 requests a day and 4,000 requests that wait; then ten keys
of one account. The day is shortened to some minutes. In the middle everything is restarted: workers, Redis,
RabbitMQ. The provider's ledger says what was used. Exits with 1 when a figure is off.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.fleet import Stand, stand
from producer_sdk import AsyncOptimizer
from sandbox.simulator import Account, Latency, Limit, Settings, SimulatorProcess

_FLEET = """
[fleet]
requests_per_minute = 1e6
agent_requests_per_minute = 1e6
max_deadline_s = 1e6
[providers.simulated]
base_url = "{base_url}"
concurrency = 60
{accounts}
[[providers.simulated.models]]
id = "sim-small"
"""
_ACCOUNT = """
[[providers.simulated.accounts]]
name = "{name}"
api_keys = [{keys}]
limits = [{{ requests = {amount}, window_s = {window_s}, counting = "fixed" }}]
"""


@dataclass(frozen=True)
class Plan:
    """What is asked of whom."""

    accounts: dict[str, list[str]]
    """Names to keys."""
    amount: int
    requests: int

    @property
    def in_a_window(self) -> int:
        """All that may be answered before the quotas open again."""
        return len(self.accounts) * self.amount


@dataclass
class Run:
    """One plan, carried out."""

    plan: Plan
    window_s: int
    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    async def ask(self, optimizer: AsyncOptimizer, prompt: str) -> None:
        try:
            await optimizer.chat(prompt, timeout=10 * self.window_s)
            self.answered += 1
        except Exception as error:  # noqa: BLE001 - a figure of the account
            self.errors[type(error).__name__] += 1

    async def until(self, answered: int) -> None:
        began = time.monotonic()
        while self.answered < answered:
            await asyncio.sleep(0.5)
            if time.monotonic() - began > self.window_s:
                raise SystemExit(f"only {self.answered} of {answered} were answered within a window")

    async def carry_out(self, whole: Stand) -> None:
        prefix = f"{time.time()}"
        async with AsyncOptimizer("bench", url=whole.rabbitmq.amqp_url) as optimizer:
            asked = [
                asyncio.create_task(self.ask(optimizer, f"{prefix} {n}")) for n in range(self.plan.requests)
            ]
            await self.until(self.plan.in_a_window * 2 // 5)
            print(f"  {self.answered} answered; everything is restarted", flush=True)
            await asyncio.to_thread(whole.end_workers, kill=False)
            await whole.restart(whole.redis)
            await whole.restart(whole.rabbitmq)
            start_workers(whole)
            await self.until(self.plan.in_a_window)
            print(f"  {self.answered} answered; the quotas are spent", flush=True)
            if self.plan.requests <= 2 * self.plan.in_a_window:
                await asyncio.gather(*asked)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


def start_workers(whole: Stand) -> None:
    whole.start_worker("front")
    for _ in range(2):
        whole.start_worker("backend:all")


def window_that_begins_now() -> int:
    """Of some minutes; windows are counted from the epoch."""
    while True:
        now = time.time()
        for window_s in range(240, 400):
            if 1.5 <= now % window_s <= 4:
                return window_s
        time.sleep(0.5)


def measure(title: str, plan: Plan) -> bool:
    """Whether all figures are right."""
    print(f"{title}: {plan.requests} requests, {plan.in_a_window} fit", flush=True)
    keys = {key: f"sk-{key}" for keys in plan.accounts.values() for key in keys}
    with stand() as whole:
        window_s = window_that_begins_now()
        daily = Limit(requests=plan.amount, window_s=window_s, counting="fixed")
        accounts = tuple(
            Account(name=name, keys=tuple(keys[key] for key in own), limits=(daily,))
            for name, own in plan.accounts.items()
        )
        latency = Latency(kind="uniform", low_s=0.05, high_s=0.3)
        with SimulatorProcess(Settings(accounts=accounts, latency=latency)) as provider:
            text = "".join(
                _ACCOUNT.format(
                    name=name, keys=", ".join(f'"env:{key}"' for key in own), amount=plan.amount,
                    window_s=window_s,
                )
                for name, own in plan.accounts.items()
            )  # fmt: skip
            whole.configure(_FLEET.format(base_url=provider.base_url, accounts=text), **keys)
            start_workers(whole)
            run = Run(plan, window_s)
            asyncio.run(run.carry_out(whole))
            ledger = provider.ledger()
    first = min(int(call.arrived_at // window_s) for call in ledger)
    used = Counter((int(call.arrived_at // window_s) - first, call.account) for call in ledger)
    each = [[used[n, name] for name in plan.accounts] for n in range(2)]
    outcomes = Counter(call.outcome for call in ledger)
    print(f"  answered {run.answered}, errors {dict(run.errors) or 'none'}, calls {dict(outcomes)}")
    for n, counts in enumerate(each):
        print(f"  window {n + 1}: {sum(counts)} calls, {min(counts)} to {max(counts)} for each account")
    return (
        set(outcomes) == {"ok"}
        and not run.errors
        and each[0] == [plan.amount] * len(plan.accounts)
        and max(each[1]) <= plan.amount
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quotas", description=__doc__)
    parser.add_argument("--accounts", type=int, default=50)
    parser.add_argument("--amount", type=int, default=50, help="requests a day, for each account")
    parser.add_argument("--requests", type=int, default=4000)
    options = parser.parse_args(arguments)
    many = {f"a{n}": [f"KEY_{n}"] for n in range(options.accounts)}
    one = {"one": [f"KEY_{n}" for n in range(10)]}
    right = [
        measure("Many accounts", Plan(many, options.amount, options.requests)),
        measure("Ten keys of one account", Plan(one, options.amount, 4 * options.amount)),
    ]
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
