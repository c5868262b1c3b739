"""Waiting in the caller's own thread for calls that another thread carries."""

import threading
import time
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final, Self

from producer_sdk.asking import Asked
from producer_sdk.carrying import tell_waiting
from producer_sdk.core import Answered, Failed, HandedOver, Waits
from producer_sdk.drivers import Calls, Told
from producer_sdk.durable import Taking
from producer_sdk.errors import DeadlineExceeded, OptimizerError
from topology.messages import Reply

_GRACE_S: Final = 1.0
"""How much later than the driver a caller ends its call by itself."""


class Awaited:
    """The calls that one caller waits for. Leaving withdraws those that have not ended."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._told: SimpleQueue[Told] = SimpleQueue()
        self._waiting: dict[str, tuple[Asked, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for id_ in self._waiting:
            self._calls.forget(id_)

    def begin(self, asked: Asked) -> None:
        """Publishes one; errors as for `Calls.begin`."""
        self._calls.begin(asked, self._told)
        self._waiting[asked.request.id] = (asked, time.monotonic() + asked.patience_s + _GRACE_S)

    def next(self) -> tuple[str, Reply | OptimizerError]:
        """Waits for the next that ends: its id, and what it came to. `on_wait` is called from here."""
        ended = self._next()
        assert not isinstance(ended, HandedOver), "a durable request ends elsewhere"  # noqa: S101 - as it says
        return ended.id, ended.reply if isinstance(ended, Answered) else ended.error

    def handed_over(self) -> None:
        """Waits until a durable request is; raises what stands in the way."""
        ended = self._next()
        if isinstance(ended, Failed):
            raise ended.error

    def _next(self) -> Answered | HandedOver | Failed:
        while True:
            first, (asked, until) = next(iter(self._waiting.items()))  # all have the same timeout
            try:
                pause_s = min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX)
                told = self._told.get(timeout=pause_s)
            except Empty:
                self._calls.forget(first)
                told = Failed(first, _stuck(asked.patience_s))
            if told.id not in self._waiting:
                continue
            match told:
                case Answered() | HandedOver() | Failed():
                    del self._waiting[told.id]
                    return told
                case Waits(id=id_, waiting=waiting):
                    tell_waiting(self._waiting[id_][0].on_wait, waiting)


def take(calls: Calls, taking: Taking, *, keep: bool) -> Reply:
    """Waits for the reply of a durable request, and takes it, unless it is to be kept.

    Raises:
        OptimizerError: The reply is one, or there is none.
    """
    told: SimpleQueue[Reply | OptimizerError] = SimpleQueue()
    leave = calls.look(taking, told.put, keep=keep)
    try:
        outcome = told.get(timeout=min(taking.timeout + _GRACE_S, threading.TIMEOUT_MAX))
    except Empty:
        outcome = _stuck(taking.timeout)
    finally:
        leave()
    if isinstance(outcome, OptimizerError):
        raise outcome
    return outcome


def _stuck(timeout: float) -> OptimizerError:
    return DeadlineExceeded(
        f"no answer within {timeout:g} s, and the client's own thread did not say why: this process "
        "gets too little of the processor, or was stopped"
    )
