"""Whether the fleet is whole, from what is known already: no question is asked for it."""

from typing import Protocol

from gateway.following import Configured
from producer_sdk.roster import Report, Roster, what_is_missing


class Connection(Protocol):
    """A supervised connection to RabbitMQ."""

    @property
    def is_up(self) -> bool:
        """Whether it can be used right now."""

    def why_down(self) -> str:
        """One clause on why not."""


class Publishing(Connection, Protocol):
    """One that publishes."""

    def knock(self) -> None:
        """Finds out whether RabbitMQ takes messages; `is_up` tells, a moment later."""


class Health:
    """Judges by the connections' state and by what the workers say each second.

    Args:
        configured: Whose providers must have pools.
        roster: The workers that live.
        publisher: The connection to RabbitMQ that publishes.
        others: Those that do not.
    """

    def __init__(
        self, configured: Configured, roster: Roster, publisher: Publishing, *others: Connection
    ) -> None:
        self._configured = configured
        self._roster = roster
        self._publisher = publisher
        self._connections = (publisher, *others)

    def reasons(self) -> list[str]:
        """Why the fleet is not healthy; empty when it is."""
        for connection in self._connections:
            if not connection.is_up:  # then nothing is heard of the workers either
                return [connection.why_down()]
        if not self._roster.knows_anyone():  # heartbeats are held up by an alarm, too
            self._publisher.knock()
        return what_is_missing(self._roster.workers(), self._configured.fleet.providers)

    def workers(self) -> list[Report]:
        """What each living worker said last."""
        return self._roster.workers()
