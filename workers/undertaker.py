"""The undertaker: answers for whatever would otherwise never be answered.

It consumes `dead`: what was handed out too often, what expired, what was for a queue that is gone. It is a
backend that never calls. Each message leaves a copy with the reason for people, and then goes where
somebody has its answer, or gives it one. Nothing is acknowledged before what follows from it is confirmed;
whoever dies in between leaves it to be handed out, copied (under the same id) and decided again.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from broker.answers import Attended, Busy, Done, Expired, Idle, Own, Spent
from broker.flights import StateAway
from producer_sdk.transport import Delivery, Subscription
from topology import names
from topology.errors import ErrorType, Refused
from topology.events import EventType
from topology.messages import Envelope, Job, Outcome, Waiter
from topology.names import Priority
from workers.burial import Death, death_of
from workers.cancelling import Cancelling, Withdrawal
from workers.keeping import kept
from workers.moving import AGAIN_S, Moving
from workers.reading import Readable, Reader, Unfit
from workers.replies import Answer, Replies, error_outcome, jobs_queue_of, parked, report_of
from workers.telling import Telling
from workers.worker import Worker

log = logging.getLogger("optimizer.undertaker")

PREFETCH: Final = 20
DRAIN_GRACE_S: Final = 10.0
_OWN_S: Final = 5.0
_REQUESTS: Final = frozenset(names.requests_queue(priority) for priority in Priority)


@dataclass(frozen=True)
class _Plan:
    """What becomes of a message.

    Attributes:
        became: A word for programs, as in `docs/events.md`.
        word: A sentence for people.
        carry_out: Does it, once the copy is kept, and acknowledges.
        waiter: Whose request it is, where it could be read.
        flight: Whose job it is.
    """

    became: str
    word: str
    carry_out: Callable[[], Awaitable[object]]
    waiter: Waiter | None = None
    flight: str | None = None


class Undertaker:
    """The role `undertaker`. Owns its buffer and the tasks of the messages in its hands."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._moving = Moving(worker)
        self._telling = Telling(worker, self._moving)
        self._cancelling = Cancelling(worker)
        self._replies = Replies(worker.publisher, worker.events, worker.clock)
        self._subscription = Subscription(names.DEAD_QUEUE, PREFETCH, self._take)
        self._buffer: deque[Delivery] = deque()
        self._stirred = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        worker.on_lost.append(self._buffer.clear)

    async def start(self) -> None:
        """Consumes from now on."""
        await self._worker.subscriber.add(self._subscription)

    async def run(self) -> None:
        """Buries what comes, until cancelled."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            while self._buffer:
                task = asyncio.create_task(self._bury(self._buffer.popleft()), name="bury")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Stops consuming, hands back what was not begun, and finishes what was; for a bounded time.

        What is abandoned after that is handed out again.
        """
        await self._worker.subscriber.drop(self._subscription)
        while self._buffer:
            self._buffer.popleft().give_back()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_GRACE_S)
        for task in list(self._tasks):
            task.cancel()

    def _take(self, delivery: Delivery) -> None:
        self._buffer.append(delivery)
        self._stirred.set()

    async def _bury(self, delivery: Delivery) -> None:
        try:
            death = death_of(delivery)
            plan = await self._decide(delivery, death)
            if plan is not None and await self._note(delivery, death, plan):
                await plan.carry_out()
        except Exception as error:  # a fault of ours; one message must not stop the others, nor be lost
            log.exception("a burial failed unexpectedly")
            await self._moving.keep(delivery, f"internal: {type(error).__name__}")

    async def _decide(self, delivery: Delivery, death: Death | None) -> _Plan | None:
        """What is to become of it; None: the broker has taken it back."""
        if death is None:
            return _only_kept(delivery, "it was published to optimizer.dead itself: nobody knows for whom")
        if death.queue in _REQUESTS:
            return self._request(delivery, death)
        if not names.is_jobs_queue(death.queue):
            return _only_kept(delivery, "no worker has a queue of this name")
        if not death.is_from_inside:
            return _only_kept(delivery, f"exchange: jobs are believed from {names.JOBS} alone")
        try:
            job = Job.from_bytes(delivery.body)
        except Refused as refused:
            return _only_kept(delivery, refused.message)
        if job.hedges is not None:  # the flight has a job of its own
            delivery.ack()
            return None
        token = secrets.token_hex(12)
        attended = await self._attend(delivery, job, token)
        return None if attended is None else self._job(delivery, job, death, token, attended)

    async def _attend(self, delivery: Delivery, job: Job, token: str) -> Attended | None:
        """Asks as long as Redis is away and the message is ours."""
        while delivery.is_held:
            if self._worker.may_claim():
                try:
                    return await self._worker.flights.attend(
                        job.fingerprint,
                        job.waiter,
                        worker=self._worker.id,
                        token=token,
                        max_spends=self._worker.fleet.fleet.max_spends,
                    )
                except StateAway as error:
                    log.warning("Redis is away, burying nothing", extra={"error": str(error)})
                    self._worker.redis_failed()
            await asyncio.sleep(AGAIN_S)
        return None

    def _job(self, delivery: Delivery, job: Job, death: Death, token: str, attended: Attended) -> _Plan:
        telling, moving = self._telling, self._moving
        match attended:
            case Done():
                became, word = "answered", "its answer is there, and all who have not got it get it now"
                then = partial(telling.tell, delivery, job, attended)
            case Own():  # a pool of this process; or a claim for the error, whose answer was lost on the way
                became, word = "parked", "its call is running, so it waits"
                then = partial(moving.park, delivery, job, _OWN_S)
            case Busy(until=until):
                became, word = "parked", "its call is running, so it waits"
                then = partial(moving.park, delivery, job, until - self._worker.clock.now())
            case Spent(spends=spends):
                became = "answered"
                word = f"{_bought(spends)} without a known end, which max_spends bounds: all waiters are told"
                then = partial(telling.tell_spent, delivery, job, token, attended)
            case Expired():
                became, word = "expired", "nobody waits for it any more"
                then = partial(telling.tell_expired, delivery, job, attended)
            case Idle(spends=spends) if self._is_homeless(job, death):
                became = "entrance"
                word = f"{_bought(spends)}, and nobody runs it: back to the entrance, for a fresh route"
                then = partial(moving.back_to_entrance, delivery, job)
            case Idle(spends=spends, park_s=park_s):
                became = "parked"
                word = f"{_bought(spends)}, and nobody runs it: back to its queue in {park_s:.0f} s"
                then = partial(moving.park, delivery, job, park_s)
        return _Plan(became, word, then, job.waiter, job.fingerprint)

    def _is_homeless(self, job: Job, death: Death) -> bool:
        """Whether its queue is gone, or nobody offers its model any more."""
        provider = self._worker.fleet.providers.get(job.candidate.provider)
        offered = provider is not None and provider.model(job.candidate.model) is not None
        return not offered or not death.cause or not self._is_its_queue(job, death.queue)

    def _is_its_queue(self, job: Job, queue: str) -> bool:
        home = jobs_queue_of(self._worker.fleet, job.candidate, job.waiter.priority)
        return names.common_queue(queue) == home

    def _request(self, delivery: Delivery, death: Death) -> _Plan:
        """Read as a front reads it; the routing key, which says who speaks, is the one it was sent with."""
        expired = death.cause == "expired" and not death.is_from_inside
        match Reader(self._worker).read(delivery, death.exchange):
            case Withdrawal() as withdrawal:
                done = partial(self._cancelling.carry_out, [withdrawal])
                return _Plan("done", "it calls a request off, and that is done", done)
            case Unfit(waiter=None, refused=refused):
                return _only_kept(delivery, refused.message)
            case Unfit(waiter=waiter, refused=refused):
                assert waiter is not None  # noqa: S101 - for the type checker
                error = Outcome(status="error", error=report_of(refused))
                return self._answer(delivery, waiter, _expired(death) if expired else error)
            case Readable(waiter=waiter) if expired:
                return self._answer(delivery, waiter, _expired(death))
            case Readable(request=request, waiter=waiter):
                tier = names.largest_tier_within(waiter.deadline - self._worker.clock.now())
                body = Envelope(request=request, waiter=waiter).to_bytes()
                home = parked(tier, names.requests_queue(waiter.priority), body, waiter.id)
                back = partial(self._moving.send_on, delivery, home)
                return _Plan("parked", f"back to the entrance in {tier.delay_s:.0f} s", back, waiter)

    def _answer(self, delivery: Delivery, waiter: Waiter, outcome: Outcome) -> _Plan:
        assert outcome.error is not None  # noqa: S101 - for the type checker
        word = f"its sender is told {outcome.error.type}: {outcome.error.message}"
        return _Plan("answered", word, partial(self._told, delivery, waiter, outcome), waiter)

    async def _told(self, delivery: Delivery, waiter: Waiter, outcome: Outcome) -> None:
        while delivery.is_held:
            if await self._replies.send([Answer(waiter, outcome, None)]):
                delivery.ack()
            else:
                await asyncio.sleep(AGAIN_S)

    async def _note(self, delivery: Delivery, death: Death | None, plan: _Plan) -> bool:
        """Keeps a copy and says so; False: the broker has taken the message back."""
        queue, deaths = (death.queue, death.deaths) if death else (delivery.queue, 0)
        reason = f"{death}; {plan.word}" if death else plan.word
        copy = kept(queue, delivery.body, reason, delivery=delivery, waiter=plan.waiter, deaths=deaths)
        if not await self._moving.published(delivery, copy):
            return False
        headers = copy.headers or {}
        self._worker.events.emit(
            EventType.DEAD,
            agent=headers.get("x-agent"),
            request_id=headers.get("x-request-id"),
            flight=plan.flight,
            kept=headers["x-id"],
            queue=queue,
            became=plan.became,
            reason=headers["x-reason"],
            deaths=deaths,
        )
        return True


def _only_kept(delivery: Delivery, word: str) -> _Plan:
    """Nobody can be answered about it: the copy is its end."""

    async def acknowledge() -> None:
        delivery.ack()

    return _Plan("kept", word, acknowledge)


def _bought(spends: int) -> str:
    return f"it was bought {spends} times" if spends != 1 else "it was bought once"


def _expired(death: Death) -> Outcome:
    return error_outcome(
        ErrorType.DEADLINE_EXCEEDED,
        f"expiration: the AMQP expiration that this message was sent with ran out in {death.queue}; leave it "
        "out, and say in the field `deadline` (`timeout=` in the SDK) how long the request may wait",
        retryable=True,
    )
