"""Putting the topology into RabbitMQ, and taking out the queues of providers that are gone."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from broker import declaring
from broker.flights import Flights
from broker.opening import open_redis
from broker.retiring import Retired, retire
from console.commands import says
from topology.declaration import Declaration
from workers.returning import onward_from

_ANSWER_S: Final = 10.0


async def apply_topology(
    whole: Declaration, amqp_url: str, management_url: str, redis_url: str | None
) -> list[Retired]:
    """Declares all of it, then removes job queues that nobody is configured for and nobody consumes.

    What waits in those goes back to the entrance first.

    Args:
        whole: What is to stand.
        amqp_url: RabbitMQ.
        management_url: Its management API.
        redis_url: Who joined a job that goes back is known there; None: they find out when they ask again.
    """
    await declaring.apply(whole, amqp_url, management_url)
    async with AsyncExitStack() as stack:
        flights = None
        if redis_url is not None:
            redis = await stack.enter_async_context(open_redis(redis_url, _ANSWER_S))
            flights = Flights(redis)
        return await retire(
            whole, amqp_url, management_url, lambda queue: onward_from(queue, flights), remove=True
        )


def say_retired(queues: Sequence[Retired]) -> None:
    """A line for each."""
    for queue in queues:
        if queue.removed:
            says(f"{queue.queue} is removed; jobs that went back to the entrance: {queue.moved}")
        else:
            says(f"{queue.queue} has no provider any more and is still consumed: run optimizer reload")
