"""Requests that outlive who asked: what names one, and what a look for its reply comes to, without I/O."""

import time
from dataclasses import dataclass

from producer_sdk.connecting import NO_SUCH_QUEUE
from producer_sdk.errors import (
    DeadlineExceeded,
    InvalidRequest,
    OptimizerError,
    Overloaded,
    UnknownJob,
    error_of,
)
from topology import names
from topology.errors import Refused
from topology.messages import Reply


@dataclass(frozen=True)
class Submitted:
    """A request that RabbitMQ has taken for good. Its text is its id, which `result` takes as well.

    Attributes:
        id: The request's.
        agent: Who asked; any process of this agent may take the reply.
        deadline: Epoch seconds; nothing is to be expected after it.
    """

    id: str
    agent: str
    deadline: float

    def __str__(self) -> str:
        return self.id


class Taking:
    """One `result`: a driver says what it meets with, and is told when that is the end.

    Attributes:
        id: The request's.
        queue: Where the reply waits.
        timeout: The caller's patience, in seconds.
        until: When to give up as things stand, on the driver's clock; `met` or `found` may change it.

    Args:
        agent: Whose client looks.
        job: What it looks for.
        timeout: The caller's patience, in seconds.
        now: The driver's clock, which is monotonic.

    Raises:
        InvalidRequest: It is another agent's, or cannot be an id.
    """

    def __init__(self, agent: str, job: Submitted | str, timeout: float, now: float) -> None:
        if isinstance(job, Submitted) and job.agent != agent:
            raise InvalidRequest(f"job: {job.id!r} is of agent {job.agent!r}, and this client of {agent!r}")
        self.id = str(job)
        self.queue = checked_job_queue(agent, self.id)
        self.until = self._patient_until = now + timeout
        self.timeout = timeout
        self._deadline = now + job.deadline - time.time() if isinstance(job, Submitted) else None
        self._obstacle: str | None = "no answer yet"
        self._reply: Reply | None = None

    def met(self, obstacle: str) -> None:
        """Nothing can be seen at present; the driver tries again."""
        self._obstacle = obstacle
        self.until = self._patient_until

    def found(self, messages: int, now: float) -> OptimizerError | None:
        """The queue stands, and holds this many messages; the end, if nothing is to be expected any more."""
        self._obstacle = None
        if messages or self._deadline is None or self._deadline > self._patient_until:
            return None
        self.until = self._deadline
        return self._expired() if self._deadline <= now else None

    def missing(self, said: str) -> Reply | OptimizerError | None:
        """The broker found no queue; None: its node may come back."""
        if NO_SUCH_QUEUE not in said:
            self.met(said)
            return None
        if self._reply is not None:
            return self.taken()
        return self.unknown()

    def unknown(self) -> OptimizerError:
        """There is no queue for it."""
        return UnknownJob(
            f"no reply is kept for {self.id!r}: it was never submitted by this agent, its reply was taken "
            "already, or nobody asked for it within 7 days"
        )

    def read(self, body: bytes) -> bool:
        """Whether a message is the reply; any other is to be dropped.

        From here on the reply is in hand, whatever becomes of the connection.
        """
        try:
            reply = Reply.from_bytes(body)
        except Refused:
            return False
        if reply.id == self.id:
            self._reply = reply
        return reply.id == self.id

    def taken(self) -> Reply | OptimizerError:
        """What the reply that is in hand says."""
        assert self._reply is not None, "it was read"  # noqa: S101 - for the type checker
        return self._reply if self._reply.error is None else error_of(self._reply.error, self._reply)

    def given_up(self, now: float) -> Reply | OptimizerError:
        """`until` has passed: the end."""
        if self._reply is not None:
            return self.taken()
        if self._obstacle is not None:
            return Overloaded(
                f"the reply could not be looked for within {self.timeout:g} s: {self._obstacle}"
            )
        if self._deadline is not None and self._deadline <= now:
            return self._expired()
        return DeadlineExceeded(
            f"no reply within {self.timeout:g} s; {self.id!r} goes on: ask for its result again later"
        )

    def _expired(self) -> OptimizerError:
        return DeadlineExceeded(f"{self.id!r} was not answered by its deadline; submit it again")


def checked_job_queue(agent: str, request_id: str) -> str:
    """The queue for the reply of a durable request.

    Raises:
        InvalidRequest: The id cannot be in its name.
    """
    try:
        return names.job_reply_queue(agent, request_id)
    except ValueError as error:
        raise InvalidRequest(f"request_id: {error}; a durable request's id is in a queue's name") from None
