"""A plain client: OpenAI's own, one for each provider in turn, which tries again as that does.

After a 429 it waits for as long as the provider says (`retry-after-ms`), else with exponential back-off and
jitter. Its default of two retries would soon give up, so it gets more.
"""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from openai import AsyncOpenAI

from benchmarks.goodput.asks import Answered, Ask, ask_all
from benchmarks.goodput.offers import KEY, MODEL
from sandbox.simulator import SimulatorProcess


def ask_plainly(
    asks: Sequence[Ask], providers: Mapping[str, SimulatorProcess], *, retries: int
) -> list[Answered]:
    """Asks all of it; each request stays at the provider whose turn it was."""
    return asyncio.run(_ask(asks, [provider.base_url for provider in providers.values()], retries))


async def _ask(asks: Sequence[Ask], base_urls: Sequence[str], retries: int) -> list[Answered]:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncOpenAI(base_url=url, api_key=KEY, max_retries=retries))
            for url in base_urls
        ]
        turns = itertools.cycle(clients)

        async def ask(asked: Ask, left_s: float) -> None:
            async with asyncio.timeout(left_s):
                await next(turns).chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": asked.prompt}],
                    max_tokens=asked.max_tokens,
                )

        return await ask_all(asks, ask)
