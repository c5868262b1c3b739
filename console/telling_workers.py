"""What the commands that steer running workers share: telling them, and listening to how they take it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, NoReturn

import typer

from broker.controls import Controls, Said
from broker.declaring import BrokerAway
from broker.flights import Flights, StateAway
from broker.opening import open_redis
from console.commands import says
from console.watching import one_line, quiet_logging
from producer_sdk.roster import BEAT_S, Report, Roster
from producer_sdk.settings import masked
from producer_sdk.transport import Outgoing, Published, Publisher, Subscriber
from topology import names
from topology.messages import Control

ANSWER_S: Final = 10.0
_POLL_S: Final = 0.25


@dataclass(frozen=True)
class Line:
    """The line to the workers.

    Attributes:
        controls: What outlives them.
        flights: Who waits for which job.
    """

    controls: Controls
    flights: Flights
    redis_url: str
    _publisher: Publisher
    _roster: Roster

    def workers(self) -> list[Report]:
        """What each living worker said last, in the order of their names."""
        return sorted(self._roster.workers(), key=lambda report: str(report.get("worker")))

    async def read(self) -> Said:
        """What is written down.

        Raises:
            BrokerAway: Redis is.
        """
        try:
            return await self.controls.read()
        except StateAway as error:
            raise self._away(error) from error

    async def write(self, writing: Awaitable[None]) -> None:
        """Writes down what outlives the workers.

        Raises:
            BrokerAway: Redis is; nothing was written.
        """
        try:
            await writing
        except StateAway as error:
            raise self._away(error) from error

    def _away(self, error: StateAway) -> BrokerAway:
        return BrokerAway(f"Redis at {masked(self.redis_url)} cannot be reached ({error})")

    async def tell(self, control: Control) -> None:
        """Makes all workers look at once. They would find out by themselves, a few seconds later."""
        body = control.to_bytes()
        message = Outgoing(names.CONTROL, "", body, mandatory=False)
        if await self._publisher.publish(message, ANSWER_S) is not Published.CONFIRMED:
            says("RabbitMQ did not take the message; the workers find out by themselves within seconds")

    async def until(self, settled: Callable[[Report], bool], within_s: float) -> list[Report]:
        """Waits until all workers that live have settled; returns those that have not in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not all(map(settled, self.workers())):  # noqa: ASYNC110 - reports come one by one
                    await asyncio.sleep(_POLL_S)
        return [report for report in self.workers() if not settled(report)]


@asynccontextmanager
async def line_to_workers(amqp_url: str, redis_url: str) -> AsyncIterator[Line]:
    """Opens the line and listens for as long as it takes to hear everyone who lives.

    Raises:
        BrokerAway: RabbitMQ cannot be reached.
    """
    quiet_logging()
    name = f"control-{secrets.token_hex(6)}"
    roster = Roster(name)
    async with (
        open_redis(redis_url, ANSWER_S) as redis,
        Subscriber(amqp_url, name) as subscriber,
        Publisher(amqp_url, name) as publisher,
    ):
        await roster.listen(subscriber)
        if not await subscriber.wait_until_up(ANSWER_S) or not await publisher.wait_until_up(ANSWER_S):
            raise BrokerAway(subscriber.why_down())
        await asyncio.sleep(1.5 * BEAT_S)
        flights = Flights(redis)
        yield Line(Controls(redis, flights.prefix), flights, redis_url, publisher, roster)


def named(report: Report) -> str:
    """A worker, for people."""
    return one_line(f"{report.get('worker')} on {report.get('host')}")


def fail(reasons: Iterable[str]) -> NoReturn:
    """Ends the command with its reasons, a line each, and exit status 1."""
    for reason in reasons:
        typer.echo(f"optimizer: {reason}", err=True)
    raise typer.Exit(1)
