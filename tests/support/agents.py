"""A process full of agents that all ask at once. Prints what each request came to, as JSON."""

import asyncio
import json
import sys
from typing import Any

from producer_sdk import AsyncOptimizer, OptimizerError


async def ask(optimizer: AsyncOptimizer, prompt: str, options: dict[str, Any]) -> dict[str, Any]:
    try:
        reply = await optimizer.chat(prompt, **options)
    except OptimizerError as error:
        return {"agent": optimizer.agent, "prompt": prompt, "error": f"{type(error).__name__}: {error}"}
    return {
        "agent": optimizer.agent,
        "prompt": prompt,
        "id": reply.id,
        "text": reply.text,
        "source": reply.source,
        "error": None,
    }


async def main(plan: dict[str, Any]) -> list[dict[str, Any]]:
    agents = [AsyncOptimizer(name) for name in plan["agents"]]
    for agent in agents:
        await agent.__aenter__()
    try:
        return await asyncio.gather(
            *(
                ask(agent, prompt, plan["options"])
                for agent, prompts in zip(agents, plan["prompts"], strict=True)
                for prompt in prompts
            )
        )
    finally:
        await asyncio.gather(*(agent.__aexit__(None, None, None) for agent in agents))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))  # noqa: T201 - its output
