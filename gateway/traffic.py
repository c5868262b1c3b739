"""What is under way in the gateway, and whether more of it is taken."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Traffic:
    """Counts the calls that wait for their answers."""

    def __init__(self) -> None:
        self.is_closing = False
        self._calls = 0
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return self._calls

    @contextmanager
    def call(self) -> Iterator[None]:
        """One call, from its arrival to its answer."""
        self._calls += 1
        self._none.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._none.set()

    async def drain(self, timeout: float) -> None:
        """Takes nothing more from now on, and waits for what is under way, at most `timeout` seconds."""
        self.is_closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._none.wait()
