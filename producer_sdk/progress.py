"""The bar that `map` shows on stderr."""

from types import TracebackType
from typing import NoReturn, Self

from tqdm import tqdm

from topology.messages import Reply, Source


class Progress:
    """Counts what has ended: how many, how many of them for nothing, how many in errors, and the cost.

    Args:
        total: How many there are.
        shown: Whether there is a bar at all.
    """

    def __init__(self, total: int, *, shown: bool) -> None:
        self._bar: tqdm[NoReturn] = tqdm(total=total, disable=not shown, unit="call")
        self._shared = 0
        self._errors = 0
        self._cost_usd = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def answered(self, reply: Reply) -> None:
        """A call has its reply."""
        self._shared += reply.source in {Source.CACHE, Source.DEDUPE}
        self._cost_usd += reply.cost_usd or 0.0
        self._step()

    def failed(self) -> None:
        """A call has ended in an error."""
        self._errors += 1
        self._step()

    def _step(self) -> None:
        self._bar.set_postfix(
            shared=self._shared, errors=self._errors, cost=f"{self._cost_usd:.4f} USD", refresh=False
        )
        self._bar.update()
