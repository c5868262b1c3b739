"""Alarms of RabbitMQ: low on memory or on disk, it reads nothing more from whoever publishes."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from producer_sdk.outgoing import Outgoing
from topology import names

if TYPE_CHECKING:
    from aiormq.abc import AbstractConnection

WHY: Final = "RabbitMQ takes no messages at present (an alarm: low on memory, or on disk)"
KNOCK: Final = Outgoing(names.EVENTS, names.KNOCK, b"", mandatory=False)
"""A message to nobody. RabbitMQ speaks of an alarm only to those who publish."""
_LOOK_EVERY_S: Final = 0.5


async def follow_alarms(connection: "AbstractConnection", changed: Callable[[bool], None]) -> None:
    """Tells when an alarm begins (True) and ends (False), until cancelled.

    aiormq calls nobody then, but its connection is not ready.
    """
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        ready = asyncio.ensure_future(connection.ready())
        try:
            done, _ = await asyncio.wait({ready}, timeout=_LOOK_EVERY_S)
            if not done:
                changed(True)
                await ready
                changed(False)
        finally:
            ready.cancel()
