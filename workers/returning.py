"""Sending jobs back to the entrance: whoever waits for one is admitted again, on a fresh route."""

from contextlib import suppress

from broker.flights import Flights, StateAway
from broker.sweeping import Onward
from producer_sdk.transport import Outgoing
from topology import names
from topology.errors import Refused
from topology.messages import Envelope, Job
from topology.names import RetryTier
from workers.keeping import kept
from workers.replies import parked


async def returned(job: Job, flights: Flights | None, tier: RetryTier | None = None) -> list[Outgoing]:
    """One message for each request that waits for the job's flight, its own first.

    The others have no message of their own anywhere: where the front has to say no, each must be told.

    Args:
        job: What nobody here can execute.
        flights: Where the others are remembered; None: only the job's own request is sent back.
        tier: How long they wait on the way; None: not at all.
    """
    waiters = {job.waiter.key: job.waiter}
    if flights is not None:
        with suppress(StateAway):  # then their agents' retransmissions find out
            waiters |= {w.key: w for w in await flights.waiters(job.fingerprint) if w.key not in waiters}
    messages = []
    for waiter in waiters.values():
        body = Envelope(request=job.request, waiter=waiter).to_bytes()
        queue = names.requests_queue(waiter.priority)
        messages.append(
            parked(tier, queue, body, waiter.id)
            if tier
            else Outgoing(names.JOBS, queue, body, correlation_id=waiter.id)
        )
    return messages


def onward_from(queue: str, flights: Flights | None) -> Onward:
    """`returned` for the bodies of a queue; what cannot be read is kept for people."""

    async def onward(body: bytes) -> list[Outgoing]:
        try:
            job = Job.from_bytes(body)
        except Refused as refused:
            return [kept(queue, body, refused.message)]
        return await returned(job, flights)

    return onward
