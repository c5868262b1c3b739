"""What the blocking client needs of what carries its calls."""

from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

from producer_sdk.asking import Asked
from producer_sdk.core import Answered, Failed, HandedOver, Waits
from producer_sdk.durable import Submitted, Taking
from producer_sdk.errors import OptimizerError
from topology.messages import Reply

Told = Answered | HandedOver | Failed | Waits
OnEnded = Callable[[Reply | OptimizerError], None]


class Calls(Protocol):
    """What the blocking client needs of a driver. Every method may be called from any thread."""

    reply_to: str

    def start(self) -> None:
        """Opens what it needs, without waiting for it; `begin` does so too."""

    def begin(self, asked: Asked, told: SimpleQueue[Told]) -> None:
        """Publishes the request; `told` gets what becomes of it: any number of `Waits`, then its end.

        Raises:
            OptimizerError: It cannot be published, or its id waits already.
            RuntimeError: The driver is closed.
        """

    def forget(self, request_id: str) -> None:
        """Its caller has gone: it is withdrawn, and nobody is told."""

    def cancel(self, request_id: str) -> bool:
        """Ends a call in `Cancelled`; False when none of that id waits."""

    def look(self, taking: Taking, told: OnEnded, *, keep: bool) -> Callable[[], None]:
        """Looks for the reply of a durable request; `told` gets what that comes to, once.

        Returns:
            What ends the look before.

        Raises:
            RuntimeError: The driver is closed.
        """

    def withdraw_job(self, job: Submitted) -> bool:
        """Says that nobody wants a durable request any more; False: that has to wait for a connection."""

    def close(self) -> None:
        """Ends what still waits in `Cancelled`."""
