"""The optimizer: private brokers, worker processes, and agents that ask through `producer_sdk`."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from random import Random

from benchmarks.fleet import Stand, stand
from benchmarks.goodput.asks import Answered, Ask, ask_all
from benchmarks.goodput.offers import KEY, MODEL, Offer
from producer_sdk import AsyncOptimizer
from sandbox.simulator import SimulatorProcess

_FLEET = """
[fleet]
requests_per_minute = 1e6
agent_requests_per_minute = 1e6
concurrency = 1000
"""
_PROVIDER = """
[providers.{name}]
base_url = "{base_url}"
api_keys = ["env:SIMULATED_KEY"]
concurrency = {concurrency}
limits = [{limits}]
[[providers.{name}.models]]
id = "{model}"
input_usd_per_mtok = {price}
output_usd_per_mtok = {price}
"""
_MANY_AT_ONCE = 40
"""Where the provider states no bound on the calls in flight."""


def fleet_toml(offers: Sequence[Offer], providers: Mapping[str, SimulatorProcess], faster: float) -> str:
    """The configuration: each provider with the limits that it states."""
    return _FLEET + "".join(
        _PROVIDER.format(
            name=offer.name, base_url=providers[offer.name].base_url, model=MODEL, price=offer.usd_per_mtok,
            concurrency=offer.concurrency or _MANY_AT_ONCE, limits=", ".join(_limits(offer, faster)),
        )
        for offer in offers
    )  # fmt: skip


def _limits(offer: Offer, faster: float) -> list[str]:
    return [
        f'{{ {limit.kind} = {limit.amount}, window_s = {limit.window_s}, counting = "{limit.counting}"'
        + (f", burst = {limit.burst} }}" if limit.burst else " }")
        for limit in offer.settings(faster).limits
    ]


def ask_ours(
    asks: Sequence[Ask],
    providers: Mapping[str, SimulatorProcess],
    *,
    offers: Sequence[Offer],
    faster: float,
    workers: int,
    dealt: bool,
) -> list[Answered]:
    """Asks all of it, once the workers work, and the quotas have given back what that took.

    For a bare model, which every provider has; where it is `dealt`, for that of one provider, by lot.
    """
    models = {asked.name: _lot(asked, offers) if dealt else MODEL for asked in asks}
    with stand() as whole:
        whole.configure(fleet_toml(offers, providers, faster), SIMULATED_KEY=KEY)
        whole.start_worker("front")
        whole.start_worker("undertaker")
        for _ in range(workers):
            whole.start_worker("backend:all")
        return asyncio.run(_ask(whole, asks, models, providers.values(), 1.2 * 60.0 / faster))


def _lot(asked: Ask, offers: Sequence[Offer]) -> str:
    offer = Random(asked.name).choices(offers, [offer.requests_per_minute for offer in offers])[0]
    return f"{offer.name}/{MODEL}"


async def _ask(
    whole: Stand,
    asks: Sequence[Ask],
    models: Mapping[str, str],
    providers: Iterable[SimulatorProcess],
    rest_s: float,
) -> list[Answered]:
    async with AsyncExitStack() as stack:
        agents = {
            name: await stack.enter_async_context(AsyncOptimizer(name, url=whole.rabbitmq.amqp_url))
            for name in sorted({asked.agent for asked in asks})
        }
        for name, agent in agents.items():
            await agent.chat(f"Is anybody there? {name}", model=MODEL, timeout=60)
        await asyncio.sleep(rest_s)
        for provider in providers:
            provider.reset()

        async def ask(asked: Ask, left_s: float) -> None:
            await agents[asked.agent].chat(
                asked.prompt, model=models[asked.name], priority=asked.priority, max_tokens=asked.max_tokens,
                request_id=asked.name, timeout=left_s,
            )  # fmt: skip

        return await ask_all(asks, ask)
