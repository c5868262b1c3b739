"""`optimizer cancel`: an operator calls a request off."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from redis.asyncio import Redis

from broker.answers import CalledOff
from broker.declaring import BrokerAway
from broker.finding import find_waiters
from broker.flights import Flights, StateAway
from broker.opening import open_redis
from console.commands import broker_urls, errors_for_people, run
from console.telling_workers import fail
from console.watching import one_line, quiet_logging
from producer_sdk.settings import masked
from producer_sdk.transport import Publisher
from topology.errors import ErrorType
from topology.messages import Waiter
from workers.cancelling import renew_now
from workers.events import Clock, Events
from workers.replies import Answer, Replies, error_outcome

_ANSWER_S: Final = 10.0
_MESSAGE: Final = "called off by an operator"


def cancel_command(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="Its id, as in the events.")],
    agent: Annotated[
        str | None, typer.Option(help="Only this agent's; default: whoever asked under this id.")
    ] = None,
) -> None:
    """Call off a request that waits: its caller gets the error `cancelled`.

    A call to a provider that nobody else waits for is cut; it may be billed all the same.
    """
    with errors_for_people():
        amqp_url, redis_url = broker_urls()
        done = run(_cancel(amqp_url, redis_url, request, agent))
        if not done:
            whose = f" of agent {agent!r}" if agent else ""
            fail([f"no request{whose} waits under the id {one_line(request)!r}"])
        for line in done:
            typer.echo(line)


async def _cancel(amqp_url: str, redis_url: str, request_id: str, agent: str | None) -> list[str]:
    async with _open(amqp_url, redis_url) as line:
        try:
            found = await find_waiters(line.redis, line.flights.prefix, request_id)
            keys = [key for key in found if agent is None or key.partition("/")[0] == agent]
            return [await _call_off(line, key, found[key]) for key in keys]
        except StateAway as error:
            raise BrokerAway(f"Redis at {masked(redis_url)} cannot be reached ({error})") from error


async def _call_off(line: "_Line", key: str, waiter: Waiter | None) -> str:
    """The caller first: once it is settled, nobody would tell it."""
    if waiter is None:
        await line.flights.cancel([key])
        return f"{key}: called off; its caller is told when it comes back from the limit that it waits for"
    await line.tell(waiter)
    [answer] = await line.flights.cancel([key])
    cut = renew_now(answer) if isinstance(answer, CalledOff) else None
    if cut is None:
        return f"{key}: called off"
    await line.publisher.publish(cut, _ANSWER_S)
    return f"{key}: called off; nobody else waits for the call that runs, and it is cut"


@dataclass(frozen=True)
class _Line:
    redis: Redis
    flights: Flights
    publisher: Publisher
    events: Events
    clock: Clock

    async def tell(self, waiter: Waiter) -> None:
        answer = Answer(waiter, error_outcome(ErrorType.CANCELLED, _MESSAGE), None)
        if not await Replies(self.publisher, self.events, self.clock).send([answer]):
            raise BrokerAway(f"{self.publisher.why_down()}; {waiter.key} still waits")
        await self.events.flush()


@asynccontextmanager
async def _open(amqp_url: str, redis_url: str) -> AsyncIterator[_Line]:
    quiet_logging()
    async with (
        open_redis(redis_url, _ANSWER_S) as redis,
        Publisher(amqp_url, f"cancel-{secrets.token_hex(6)}") as publisher,
    ):
        flights, clock = Flights(redis), Clock()
        try:
            clock.set(await flights.now())
        except StateAway as error:
            raise BrokerAway(f"Redis at {masked(redis_url)} cannot be reached ({error})") from error
        if not await publisher.wait_until_up(_ANSWER_S):
            raise BrokerAway(publisher.why_down())
        yield _Line(redis, flights, publisher, Events(publisher, clock), clock)
