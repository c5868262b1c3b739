"""The blocking client's driver: one thread runs pika's event loop for any number of calling threads."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

from producer_sdk.amqp_url import AmqpUrl
from producer_sdk.asking import Asked, request_message
from producer_sdk.carrying import Carrier
from producer_sdk.core import FIRST_SILENCE_S, Effect, Failed, Waits, Withdraw
from producer_sdk.drivers import OnEnded, Told
from producer_sdk.durable import Submitted, Taking
from producer_sdk.errors import Cancelled, InvalidRequest
from producer_sdk.pika_connection import THREAD_NAME, EventLoop
from producer_sdk.pika_job_queues import PikaJobQueues
from producer_sdk.pika_transport import PikaPublisher, PikaSubscriber
from producer_sdk.transport import Outgoing

log = logging.getLogger("optimizer.sdk")

_CLOSE_S: Final = 2.0
_AFTER_FAULT_S: Final = 1.0
_SAY_S: Final = 1.0


@dataclass(eq=False)
class _Call:
    message: Outgoing
    durable: bool
    begun_at: float
    timeout: float
    told: SimpleQueue[Told]
    on_the_way: bool = False


class PikaCalls(Carrier[_Call]):
    """Publishes requests and waits for their replies on one callback queue, in a thread of its own.

    The thread starts with the first call. It alone touches pika and the core; others hand it what is to
    be done. A call is over for whoever takes it out of `calls`, which is one step.

    Args:
        url: RabbitMQ's URL.
        name: Names the connections, for RabbitMQ's own pages, and the thread.
        reply_to: The callback queue, of a name that is this client's alone; declared here. It has another
            name once its node in a cluster is down.
    """

    publisher: PikaPublisher
    subscriber: PikaSubscriber

    def __init__(self, url: AmqpUrl, name: str, reply_to: str) -> None:
        super().__init__(time.monotonic, reply_to)
        self.pid = os.getpid()
        self._url = url
        self._name = name
        self._thread = threading.Thread(target=self._run, name=f"{THREAD_NAME} {name}", daemon=True)
        self._starting = threading.Lock()
        self._started = False
        self._closed = False
        self._to_do: deque[Callable[[], None]] = deque()
        self._job_queues = PikaJobQueues()
        self._loop: EventLoop | None = None
        self._timer: Any = None
        self._wakes_at: float | None = None

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more calls."""
        return self._closed

    def start(self) -> None:
        """Starts the thread and the connections without waiting for them; once is enough."""
        with self._starting:
            if not self._started:
                self._started = True
                self._thread.start()

    def begin(self, asked: Asked, told: SimpleQueue[Told]) -> None:
        """See `Calls`."""
        id_ = asked.request.id
        message = request_message(asked.request, asked.priority, self.reply_to)
        call = _Call(message, asked.request.durable, self._now(), asked.patience_s, told)
        if self.calls.setdefault(id_, call) is not call:
            raise InvalidRequest(f"request_id: {id_!r} waits for an answer already; take another one")
        # Closing comes first, then what waits is ended: this call is seen by one of the two.
        if self._closed and self.calls.pop(id_, None) is not None:
            raise RuntimeError("this client is closed; make a new one")
        self.start()
        self._do(partial(self._begin, id_, call))

    def forget(self, request_id: str) -> None:
        """See `Calls`."""
        if call := self.calls.pop(request_id, None):
            self._do(partial(self._call_off, request_id, call, self.core.forget))

    def cancel(self, request_id: str) -> bool:
        """See `Calls`."""
        call = self.calls.pop(request_id, None)
        if call is None:
            return False
        call.told.put(Failed(request_id, Cancelled("the caller called it off")))
        self._do(partial(self._call_off, request_id, call, self.core.cancel))
        return True

    def look(self, taking: Taking, told: OnEnded, *, keep: bool) -> Callable[[], None]:
        """See `Calls`."""
        look = self._job_queues.add(taking, told, keep=keep)
        if self._closed:  # closing comes first, as in `begin`
            raise RuntimeError("this client is closed; make a new one")
        self.start()
        self._do(partial(self._job_queues.start, look))
        return partial(self._do, partial(look.end, Cancelled("the caller has gone")))

    def withdraw_job(self, job: Submitted) -> bool:
        """See `Calls`."""
        said: SimpleQueue[bool] = SimpleQueue()
        self.start()
        self._do(lambda: said.put(Carrier.withdraw_job(self, job)))
        try:
            return said.get(timeout=_SAY_S)
        except Empty:
            return False

    def close(self, wait_s: float = 2.5 * _CLOSE_S, *, quietly: bool = False) -> None:
        """Ends what waits in `Cancelled`, and the thread. What was published is done all the same.

        Does nothing in a process that inherited this through `fork`.

        Args:
            wait_s: How long to wait for the thread, in seconds; it ends by itself anyway.
            quietly: Leave alone who waits; the process ends, and their threads with it.
        """
        if self.pid != os.getpid():
            return
        self._closed = True
        if quietly:
            self.calls.clear()
        self._do(self._shut)
        with self._starting:
            if not self._started:
                self._started = True  # never, from now on
                self._end_all("the client was closed")
                return
        if threading.current_thread() is not self._thread:
            self._thread.join(wait_s)

    def leave_to_parent(self) -> None:
        """In a forked child: lets go of the sockets, so that they live no longer than the parent.

        Their numbers stay taken, since the objects that hold them may still close them.
        """
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in self._loop.sockets if self._loop else ():
            os.dup2(nowhere, fd, inheritable=False)
        os.close(nowhere)

    # What follows runs on the thread, but for `_do`.

    def tell(self, call: _Call, effect: Told) -> None:
        """Tells the caller, unless the call is over."""
        if isinstance(effect, Waits) or self.calls.pop(effect.id, None) is not None:
            call.told.put(effect)

    def declare_job_queue(self, queue: str, told: Callable[[str | None], None]) -> None:
        """Declares it on a channel of its own."""
        self._job_queues.declare(queue, told)

    def reconnected(self) -> None:
        """A connection is up: what waits for it goes on."""
        super().reconnected()
        if self.subscriber.is_up:
            self._job_queues.reconnected()

    def nudge(self, due: float) -> None:
        """Wakes the core then, unless something is due before."""
        if self._wakes_at is None or due < self._wakes_at:
            self._wake_at(due)

    def _do(self, what: Callable[[], None]) -> None:
        self._to_do.append(what)
        if loop := self._loop:
            loop.add_callback_threadsafe(self._catch_up)

    def _catch_up(self) -> None:
        while self._to_do:
            self._to_do.popleft()()

    def _begin(self, id_: str, call: _Call) -> None:
        if self.calls.get(id_) is call:  # else it was called off meanwhile
            self.carry_out(self.core.begin(id_, call.begun_at, call.timeout, durable=call.durable))
            self.nudge(call.begun_at + min(call.timeout, FIRST_SILENCE_S))

    def _call_off(self, id_: str, call: _Call, over: Callable[[str], list[Effect]]) -> None:
        if any(isinstance(effect, Withdraw) for effect in over(id_)):
            self.withdraw(call)

    def _wake_at(self, due: float | None) -> None:
        assert self._loop is not None, "this runs on the loop"  # noqa: S101 - for the type checker
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
        self._wakes_at, self._timer = due, None
        if due is not None:
            self._timer = self._loop.call_later(max(0.0, due - self._now()), self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        self._wakes_at = self._now()  # nothing is to wake it before the end of this turn
        self.carry_out(self.core.due(self._now(), self.obstacle()))
        self._wake_at(self.core.next_due())

    def _run(self) -> None:
        try:
            while not self._closed:
                self._run_loop()
        finally:
            self._closed = True
            self._end_all("the client was closed")

    def _run_loop(self) -> None:
        """Opens the connections and runs until it is closed; a fault of pika's or ours ends it earlier.

        After a fault all begins anew but the core, which sends again what still waits.
        """
        loop = EventLoop()
        link = (loop, self.reconnected, self._stop_once_closed)
        self.publisher = PikaPublisher(self._url, f"{self._name} publishing", *link, self._on_unblocked)
        self.subscriber = PikaSubscriber(
            self._url, f"{self._name} consuming", *link, self.reply_to, self._on_body, self.move
        )
        self._timer = self._wakes_at = None
        for call in list(self.calls.values()):
            call.on_the_way = False
        self._loop = loop
        self._job_queues.begin(loop, self.subscriber)
        try:
            self.publisher.open()
            self.subscriber.open()
            loop.add_callback(self._catch_up)
            loop.add_callback(self._on_due)
            loop.start()
        except Exception:
            log.exception("the event loop failed; beginning anew")
            self._abandon(loop)
            time.sleep(_AFTER_FAULT_S)
        finally:
            self._loop = None
            loop.close()

    def _abandon(self, loop: EventLoop) -> None:
        """Has pika close the sockets of a loop that failed."""
        try:
            self.publisher.close()
            self.subscriber.close()
            loop.cut()
            loop.call_later(_AFTER_FAULT_S, loop.stop)
            loop.start()
        except Exception:
            log.exception("the event loop failed again")

    def _on_body(self, body: bytes) -> None:
        self.carry_out(self.core.received(body))

    def _on_unblocked(self) -> None:
        self.nudge(self._now())

    def _shut(self) -> None:
        assert self._loop is not None, "this runs on the loop"  # noqa: S101 - for the type checker
        self._end_all("the client was closed")
        self._loop.call_later(_CLOSE_S, self._loop.cut)  # a broker that does not answer is not waited for,
        self._loop.call_later(2 * _CLOSE_S, self._loop.stop)  # nor a name server
        self.publisher.close()
        self.subscriber.close()

    def _stop_once_closed(self) -> None:
        if self._loop is not None and self.publisher.is_closed and self.subscriber.is_closed:
            self._loop.stop()

    def _end_all(self, why: str) -> None:
        while self.calls:
            id_, call = self.calls.popitem()
            self.core.forget(id_)
            call.told.put(Failed(id_, Cancelled(why)))
        self._job_queues.end_all(lambda: Cancelled(why))
