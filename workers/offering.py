"""Offering a call that takes long to a second provider; there `workers/hedging.py` takes it up."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from producer_sdk.transport import Outgoing
from topology import names
from topology.messages import CacheMode, Control, Job, new_id
from topology.names import Priority
from workers.claims import Call
from workers.latencies import Latencies
from workers.moving import Moving
from workers.replies import job_message
from workers.worker import Worker

_MOST_SAVED: Final = 5.0
"""So many offers can be saved up, for when a provider grows slow."""
_ACTING: Final = ("tools", "functions", "web_search_options")
"""With these an answer can have effects, or is to have some."""


def may_be_asked_twice(job: Job) -> bool:
    """Whether a second call does no harm but to the bill, and its priority is worth that."""
    request = job.request
    acts = any(request.params.get(name) for name in _ACTING)
    return job.waiter.priority is Priority.HIGH and request.cache is not CacheMode.OFF and not acts


class Offers:
    """One provider's pool offers what takes long; it learns how long its calls last.

    Each call that may be offered earns `[hedging] share` of an offer: no larger part of them is made twice.
    """

    def __init__(self, worker: Worker, moving: Moving) -> None:
        self._worker = worker
        self._moving = moving
        self._latencies = Latencies()
        self._saved = 0.0

    @contextmanager
    def watching(self, call: Call) -> Iterator[None]:
        """While the provider is asked: once that lasts longer than it mostly does, the call is offered."""
        after_s = self._after_s(call)
        if after_s is None:
            yield
            return
        timer = asyncio.get_running_loop().call_later(after_s, self._offer, call)
        try:
            yield
        finally:
            timer.cancel()

    def learn(self, call: Call, seconds: float) -> None:
        """The call was answered; or it was cut, and would have lasted longer."""
        self._latencies.note(call.model.id, seconds)

    def cut_other(self, call: Call) -> None:
        """The call has brought the answer: where another runs beside it, its worker finds out at once.

        It would when it renews its claim the next time, so this may get lost without harm.
        """
        mine = self._worker.underway.running.get(call.job.fingerprint)
        if call.hedges is not None or (mine is not None and mine.is_offered):
            control = Control(id=new_id(), action="renew", flight=call.job.fingerprint)
            message = Outgoing(names.CONTROL, "", control.to_bytes(), persistent=False, mandatory=False)
            self._worker.publisher.send(message, lambda _: None)

    def _after_s(self, call: Call) -> float | None:
        """After how many seconds it is offered; None: it is not."""
        share = self._worker.fleet.hedging.share
        if not share or call.hedges is not None or not may_be_asked_twice(call.job):
            return None
        self._saved = min(self._saved + share, _MOST_SAVED)
        return self._latencies.most_s(call.model.id)

    def _offer(self, call: Call) -> None:
        """A copy of its job for the next living candidate at another provider, and for no other."""
        job = call.job
        others = [o for o in self._moving.living(job) if o.candidate.provider != job.candidate.provider]
        mine = self._worker.underway.running.get(job.fingerprint)
        if not others or mine is None or self._saved < 1.0:
            return
        self._saved -= 1.0
        mine.is_offered = True
        copy = job.model_copy(
            update={
                "route": (others[0].candidate,),
                "position": 0,
                "hedges": call.terms.token,
                "waiter": job.waiter.model_copy(update={"tell_waits": False}),
            }
        )
        self._worker.publisher.send(job_message(self._worker.fleet, copy), lambda _: None)
