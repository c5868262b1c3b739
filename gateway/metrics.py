"""What the gateway counts, for Prometheus. No label can grow without bound, whatever clients send."""

from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.health import Health
from topology.messages import Reply

_BUCKETS_S: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_MOST_LABELS: Final = 200
"""How many agents, and how many models, are told apart; the rest is `other`."""


@dataclass
class Call:
    """What is known of one HTTP call, as it becomes known."""

    operation: str
    agent: str = "unknown"
    status: int = 500
    reply: Reply | None = None


class Metrics:
    """The counters of one gateway.

    Args:
        health: Where the gauges of the fleet come from.
    """

    def __init__(self, health: Health) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a line of their own for each counter, of no use
        registry = self._registry = CollectorRegistry()
        self._agents = _Bounded()
        self._models = _Bounded()
        self._requests = Counter(
            "optimizer_gateway_requests",
            "Calls by their HTTP status, and by where the answer came from.",
            ["operation", "status", "source"],
            registry=registry,
        )
        self._seconds = Histogram(
            "optimizer_gateway_request_seconds",
            "From the request's first line to its answer.",
            ["operation"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._in_flight = Gauge(
            "optimizer_gateway_in_flight", "Calls that wait for their answers.", registry=registry
        )
        self._by_agent = Counter(
            "optimizer_gateway_agent_requests", "Calls by agent.", ["agent", "status"], registry=registry
        )
        self._by_model = Counter(
            "optimizer_gateway_model_requests",
            "Answers by the model that gave them.",
            ["model", "source"],
            registry=registry,
        )
        self._cost = Counter(
            "optimizer_gateway_cost_usd",
            "What was paid, where prices are known.",
            ["model"],
            registry=registry,
        )
        registry.register(_FleetGauges(health))
        ProcessCollector(registry=registry)

    def began(self) -> None:
        """A call has arrived."""
        self._in_flight.inc()

    def ended(self, call: Call, seconds: float) -> None:
        """A call has ended, in whatever way."""
        reply = call.reply
        source = reply.source.value if reply and reply.source else "none"
        self._in_flight.dec()
        self._requests.labels(call.operation, str(call.status), source).inc()
        self._seconds.labels(call.operation).observe(seconds)
        self._by_agent.labels(self._agents.label(call.agent), str(call.status)).inc()
        if reply is not None and reply.provider is not None:
            model = self._models.label(f"{reply.provider}/{reply.model}")
            self._by_model.labels(model, source).inc()
            if reply.cost_usd:
                self._cost.labels(model).inc(reply.cost_usd)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)


class _Bounded:
    """A label's values: the first ones by their names, later ones all as `other`."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def label(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= _MOST_LABELS:
                return "other"
            self._known.add(value)
        return value


class _FleetGauges(Collector):
    """What the workers said last, read when Prometheus asks."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[GaugeMetricFamily]:
        reports = self._health.workers()
        yield GaugeMetricFamily(
            "optimizer_healthy", "1 while /health says 200.", value=not self._health.reasons()
        )
        workers = GaugeMetricFamily("optimizer_workers", "Living workers by role.", labels=["role"])
        roles = Tally(str(role) for report in reports for role in report.get("roles") or ())
        for role, count in roles.items():
            workers.add_metric([role], count)
        yield workers
        for name, meaning in (
            ("running", "Calls in flight at a provider."),
            ("slots", "Calls that its pools may have in flight."),
            ("waiting", "Jobs in its pools' hands, not yet started."),
        ):
            gauge = GaugeMetricFamily(f"optimizer_pool_{name}", meaning, labels=["provider"])
            for provider, amount in _summed(reports, name).items():
                gauge.add_metric([provider], amount)
            yield gauge


def _summed(reports: list[Mapping[str, Any]], name: str) -> Tally[str]:
    sums: Tally[str] = Tally()
    for report in reports:
        for provider, pool in (report.get("providers") or {}).items():
            sums[provider] += pool.get(name) or 0
    return sums
