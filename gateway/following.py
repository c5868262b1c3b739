"""The configuration that a gateway works by: read again when the workers have read theirs again."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from producer_sdk.roster import Roster
from topology.fleet import Fleet
from topology.loading import ConfigurationError

log = logging.getLogger("optimizer.gateway")

_LOOK_EVERY_S: Final = 1.0


class Configured:
    """The fleet as it is now.

    The workers say in each heartbeat by which configuration they work. When that changes, as it does on
    `optimizer reload`, the file is read again: the list of models and `/health` follow. Where the gateway
    listens, and who may ask, stay as they were at its start.

    Args:
        fleet: As read at the start.
        load: Reads it again; None: it never changes.
    """

    def __init__(self, fleet: Fleet, load: Callable[[], Fleet] | None = None) -> None:
        self.fleet = fleet
        self._load = load
        self._known: set[str] = set()

    async def follow(self, roster: Roster) -> None:
        """Looks each second, until cancelled."""
        while self._load is not None:
            await asyncio.sleep(_LOOK_EVERY_S)
            configs = {str(report["config"]) for report in roster.workers() if report.get("config")}
            if configs and configs != self._known:
                self._known = configs
                self._read_again(self._load)

    def _read_again(self, load: Callable[[], Fleet]) -> None:
        try:
            fleet = load()
        except ConfigurationError as error:
            log.warning("configuration refused, going on with the old one", extra={"error": str(error)})
            return
        self.fleet = fleet.model_copy(update={"gateway": self.fleet.gateway})
