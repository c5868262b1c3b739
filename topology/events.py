"""The events: what is published on `optimizer.events`, and when.

Prompts, completions and keys are in no event.
"""

from enum import StrEnum


class EventType(StrEnum):
    """The routing key of an event; `docs/events.md` lists the fields of each."""

    CACHE_HIT = "optimizer.cache.hit"
    CACHE_MISS = "optimizer.cache.miss"
    DEDUPE_JOINED = "optimizer.dedupe.joined"
    RATE_LIMIT = "optimizer.rate_limit"
    LIMIT_TIGHTENED = "optimizer.limit.tightened"
    ERROR = "optimizer.error"
    ERROR_LEARNED = "optimizer.error.learned"
    CALL_STARTED = "optimizer.call.started"
    CALL_COMPLETED = "optimizer.call.completed"
    CALL_FAILED = "optimizer.call.failed"
    SPEND_DOUBTFUL = "optimizer.spend.doubtful"
    SPEND_DUPLICATE = "optimizer.spend.duplicate"
    RETRY = "optimizer.retry"
    FAILOVER = "optimizer.failover"
    HEDGE = "optimizer.hedge"
    DEAD = "optimizer.dead"
    KEY_DISABLED = "optimizer.key.disabled"
    KEY_RESTORED = "optimizer.key.restored"
    CIRCUIT_OPENED = "optimizer.circuit.opened"
    CIRCUIT_CLOSED = "optimizer.circuit.closed"
    REQUEST_COMPLETED = "optimizer.request.completed"
    WORKER_HEALTH = "optimizer.worker.health"
    ALERT_QUOTA_LOW = "optimizer.alert.quota_low"
    ALERT_QUOTA_GONE = "optimizer.alert.quota_gone"
    ALERT_DAILY_RESET = "optimizer.alert.daily_reset"
    ALERT_KEY_LOST = "optimizer.alert.key_lost"
    ALERT_ERROR_RATE = "optimizer.alert.error_rate"
    ALERT_LATENCY = "optimizer.alert.latency"
    ALERT_CIRCUIT_OPEN = "optimizer.alert.circuit_open"
    ALERT_BUDGET = "optimizer.alert.budget"
