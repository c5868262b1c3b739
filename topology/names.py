"""The names of exchanges, queues and routing keys. Nothing else in the house builds one."""

import re
from enum import StrEnum
from typing import Final

REQUESTS: Final = "optimizer.requests"
JOBS: Final = "optimizer.jobs"
DEAD: Final = "optimizer.dead"
EVENTS: Final = "optimizer.events"
CONTROL: Final = "optimizer.control"
KNOCK: Final = "knock"
"""The routing key on `EVENTS` of what is published to nobody, to hear whether anything is taken."""

DEAD_QUEUE: Final = "dead"
DEAD_KEPT_QUEUE: Final = "dead.kept"
RECORDER_QUEUE: Final = "events.recorder"
ALERTS_QUEUE: Final = "events.alerts"
ANY_LANE: Final = "any"

CANCEL_TYPE: Final = "cancel"
"""The AMQP property `type` of what withdraws a request; a request has none."""

AGENT_PATTERN: Final = re.compile(r"[a-z0-9_-]{1,64}")
JOB_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""What AMQP 0-9-1 allows in a queue's name; of the rest RabbitMQ drops some in silence, such as line ends."""


class Priority(StrEnum):
    """How urgent a request is; the first word of its routing key."""

    HIGH = "high"
    NORMAL = "normal"
    BATCH = "batch"

    @property
    def rank(self) -> int:
        """0 for the most urgent, growing; what the Redis scripts compare."""
        return _RANKS[self]


_RANKS: Final = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.BATCH: 2}


class RetryTier(StrEnum):
    """A queue that gives each message back after a fixed time; the value is its name's last word."""

    ONE_SECOND = "1s"
    FIVE_SECONDS = "5s"
    HALF_A_MINUTE = "30s"
    FIVE_MINUTES = "5m"

    @property
    def delay_s(self) -> float:
        """How long a message stays, in seconds."""
        return _DELAYS_S[self]

    @property
    def queue(self) -> str:
        """The queue's name."""
        return f"retry.{self.value}"

    @property
    def exchange(self) -> str:
        """The fanout exchange in front of it: the routing key survives as the way back."""
        return f"optimizer.retry.{self.value}"


_DELAYS_S: Final = {
    RetryTier.ONE_SECOND: 1.0,
    RetryTier.FIVE_SECONDS: 5.0,
    RetryTier.HALF_A_MINUTE: 30.0,
    RetryTier.FIVE_MINUTES: 300.0,
}


def largest_tier_within(seconds: float) -> RetryTier:
    """The longest tier that is over within `seconds`; the shortest there is when none is."""
    fitting = [tier for tier in RetryTier if tier.delay_s <= seconds]
    return max(fitting, key=lambda tier: tier.delay_s, default=RetryTier.ONE_SECOND)


def is_agent_name(name: str) -> bool:
    """Whether `name` may name an agent: 1 to 64 of a-z, 0-9, `_` and `-`."""
    return AGENT_PATTERN.fullmatch(name) is not None


def request_key(priority: Priority, agent: str) -> str:
    """The routing key that an agent publishes a request with."""
    return f"{priority}.{agent}"


def speaker_of(routing_key: str) -> tuple[Priority, str]:
    """The priority and the agent that a request's routing key names.

    Raises:
        ValueError: The key is not `<priority>.<agent>`; the text names the part at fault.
    """
    word, _, agent = routing_key.partition(".")
    try:
        priority = Priority(word)
    except ValueError:
        choices = ", ".join(Priority)
        raise ValueError(f"priority: {word!r} is none of {choices}") from None
    if not is_agent_name(agent):
        raise ValueError(f"agent: {agent!r} is not 1 to 64 of a-z, 0-9, '_' and '-'")
    return priority, agent


def requests_queue(priority: Priority) -> str:
    """The queue that fronts consume for this priority."""
    return f"requests.{priority}"


def jobs_queue(provider: str, lane: str, priority: Priority) -> str:
    """The queue that the provider's pool consumes for this lane and priority."""
    return f"jobs.{provider}.{lane}.{priority}"


SIDES: Final = 8
"""How many queues may stand beside each, for agents with a lot waiting; `lines.lua` knows it, too."""


def side_queue(queue: str, side: int) -> str:
    """One of the queues beside a queue of jobs; `side` counts from 1."""
    return f"{queue}.{side}"


def common_queue(queue: str) -> str:
    """The queue of jobs that this one is beside of, or is."""
    common, _, side = queue.rpartition(".")
    return common if side.isdigit() else queue


def is_jobs_queue(queue: str) -> bool:
    """Whether a queue of this name is, or was, some pool's."""
    return queue.startswith("jobs.")


def reply_queue(agent: str, client: str, nonce: str) -> str:
    """A callback queue of one client; `nonce` is new for each process."""
    return f"reply.{agent}.{client}.{nonce}"


def job_reply_queue(agent: str, request_id: str) -> str:
    """The queue in which the reply of a durable request waits for any process of the agent.

    Raises:
        ValueError: The id cannot be in a queue's name.
    """
    if JOB_ID_PATTERN.fullmatch(request_id) is None:
        raise ValueError(f"{request_id!r} is not 1 to 128 of a-z, A-Z, 0-9, '_', '.', ':' and '-'")
    return f"reply.{agent}.job.{request_id}"


def may_reply_to(agent: str, queue: str) -> bool:
    """Whether a request of `agent` may name this callback queue; a gateway speaks for many."""
    return queue.startswith((f"reply.{agent}.", "reply.gateway."))


def renamed(queue: str, times: int) -> str:
    """What a queue of a process's own is called instead, the first time it cannot stand, the second, ..."""
    return f"{queue}-{times}"


def control_queue(worker: str) -> str:
    """A worker's own queue for what all workers are told."""
    return f"control.{worker}"


def slug(model: str) -> str:
    """A model's name as one word of a queue's name: `.`, `/`, `:` and the like become `-`."""
    return re.sub(r"[^a-z0-9_-]+", "-", model.lower()).strip("-") or "model"
