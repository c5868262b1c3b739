"""Everything that must stand in RabbitMQ, as data; `broker.declaring` puts it there.

Limits and dead-lettering are policies, not queue arguments: a policy changes without deleting its
queue. No queue inside has a `max-length`: at-least-once dead-lettering to a full queue blocks the whole
retry tier, for everybody; the front refuses at the entrance instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from topology import names
from topology.fleet import Fleet
from topology.names import Priority, RetryTier

DELIVERY_LIMIT: Final = 100
"""Hand-outs after which a message is taken for one that kills its workers. Up to RabbitMQ 4.2 a delivery that
is handed back counts as well, as one is from a lane that is closed for long: hence so many."""

_MOST_NEWS: Final = 50_000
_NEWS_MS: Final = 600_000
KEPT_MESSAGES: Final = 10_000
_NO_DELIVERY_LIMIT: Final = 2**31 - 1
"""Looking at a message hands it out and takes it back. RabbitMQ 4 has a limit of 20 unless told another, and
drops what reaches it; 3.10 refuses its word for none, -1."""

REPLY_QUEUE_EXPIRES_S: Final = 1800.0
REPLY_QUEUE_ARGUMENTS: Final[Mapping[str, Any]] = {
    "x-queue-type": "classic",
    "x-expires": int(REPLY_QUEUE_EXPIRES_S * 1000),
}
"""How a client declares its callback queue."""

JOB_REPLY_EXPIRES_S: Final = 7 * 86400.0
JOB_REPLY_QUEUE_ARGUMENTS: Final[Mapping[str, Any]] = {
    "x-queue-type": "classic",
    "x-expires": int(JOB_REPLY_EXPIRES_S * 1000),
}
"""How a client declares the queue of a durable request's reply; each look into it begins the time anew."""

CONSUMER_TIMEOUT_S: Final = 7200.0


@dataclass(frozen=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: Literal["topic", "direct", "fanout"]


@dataclass(frozen=True)
class Queue:
    """A durable queue with its bindings, each an (exchange, routing key)."""

    name: str
    bindings: tuple[tuple[str, str], ...]
    type: Literal["quorum", "classic"] = "quorum"

    @property
    def arguments(self) -> dict[str, Any]:
        """What cannot be a policy: the type alone."""
        return {"x-queue-type": self.type}


@dataclass(frozen=True)
class Policy:
    """A policy; `priority` is distinct where patterns could overlap, as only one policy applies."""

    name: str
    pattern: str
    apply_to: Literal["queues", "exchanges"]
    definition: Mapping[str, Any] = field(hash=False)
    priority: int = 0


@dataclass(frozen=True)
class Declaration:
    """The whole topology of a fleet."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    policies: tuple[Policy, ...]


def declaration(fleet: Fleet) -> Declaration:
    """What must stand in the virtual host for this fleet."""
    return Declaration(
        exchanges=_exchanges(),
        queues=(*_request_queues(), *_job_queues(fleet), *_inner_queues()),
        policies=_policies(),
    )


def _exchanges() -> tuple[Exchange, ...]:
    return (
        Exchange(names.REQUESTS, "topic"),
        Exchange(names.JOBS, "direct"),
        Exchange(names.DEAD, "fanout"),
        Exchange(names.EVENTS, "topic"),
        Exchange(names.CONTROL, "fanout"),
        *(Exchange(tier.exchange, "fanout") for tier in RetryTier),
    )


def _request_queues() -> tuple[Queue, ...]:
    return tuple(
        Queue(
            name := names.requests_queue(priority),
            # By name too: so a request that waited in a retry tier finds its way back.
            ((names.REQUESTS, f"{priority}.#"), (names.JOBS, name)),
        )
        for priority in Priority
    )


def _job_queues(fleet: Fleet) -> tuple[Queue, ...]:
    return tuple(
        Queue(name := names.jobs_queue(provider.name, lane, priority), ((names.JOBS, name),))
        for provider in fleet.providers.values()
        for lane in provider.lanes
        for priority in Priority
    )


def _inner_queues() -> tuple[Queue, ...]:
    return (
        *(Queue(tier.queue, ((tier.exchange, ""),)) for tier in RetryTier),
        Queue(names.DEAD_QUEUE, ((names.DEAD, ""),)),
        Queue(names.DEAD_KEPT_QUEUE, ()),
    )


def _policies() -> tuple[Policy, ...]:
    dead_letter = {
        "dead-letter-exchange": names.DEAD,
        "dead-letter-strategy": "at-least-once",
        "overflow": "reject-publish",
        "delivery-limit": DELIVERY_LIMIT,
    }
    return (
        Policy("optimizer-work", r"^(requests|jobs)\.", "queues", dead_letter, 10),
        *(
            Policy(
                f"optimizer-retry-{tier.value}",
                f"^retry\\.{tier.value}$",
                "queues",
                {
                    "message-ttl": int(tier.delay_s * 1000),
                    "dead-letter-exchange": names.JOBS,
                    "dead-letter-strategy": "at-least-once",
                    "overflow": "reject-publish",
                },
                20,
            )
            for tier in RetryTier
        ),
        Policy(
            "optimizer-kept",
            r"^dead\.kept$",
            "queues",
            {
                "max-length": KEPT_MESSAGES,
                "overflow": "drop-head",
                "delivery-limit": _NO_DELIVERY_LIMIT,
            },
            30,
        ),
        # What kills the undertaker is for people to look at; `dead.kept` always stands, and is never full.
        Policy(
            "optimizer-dead",
            r"^dead$",
            "queues",
            {
                "dead-letter-exchange": "",
                "dead-letter-routing-key": names.DEAD_KEPT_QUEUE,
                "dead-letter-strategy": "at-least-once",
                "overflow": "reject-publish",
                "delivery-limit": DELIVERY_LIMIT,
            },
            50,
        ),
        # The recorder declares its queue itself.
        Policy(
            "optimizer-recorder",
            r"^events\.recorder$",
            "queues",
            {"delivery-limit": _NO_DELIVERY_LIMIT},
            60,
        ),
        # So does the role that watches for alerts; what is old is no news.
        Policy(
            "optimizer-alerts",
            r"^events\.alerts$",
            "queues",
            {"max-length": _MOST_NEWS, "overflow": "drop-head", "message-ttl": _NEWS_MS},
            60,
        ),
        # A message for a queue that is gone, or never was, ends with the undertaker.
        Policy(
            "optimizer-jobs",
            r"^optimizer\.jobs$",
            "exchanges",
            {"alternate-exchange": names.DEAD},
            40,
        ),
    )
