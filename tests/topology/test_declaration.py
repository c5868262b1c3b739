import re
from typing import Any

import pytest

from topology.declaration import Declaration, Policy, Queue, declaration
from topology.fleet import Fleet

FLEET = Fleet.model_validate(
    {
        "providers": {
            "groq": {
                "base_url": "https://groq.example/v1",
                "models": [{"id": "plain"}, {"id": "vendor/special:free", "requests_per_day": 50}],
            }
        }
    }
)
DECLARED: Declaration = declaration(FLEET)
QUEUES: dict[str, Queue] = {queue.name: queue for queue in DECLARED.queues}
TYPES = {exchange.name: exchange.type for exchange in DECLARED.exchanges}
RETRY_MS = {"retry.1s": 1000, "retry.5s": 5000, "retry.30s": 30_000, "retry.5m": 300_000}


def effective(name: str, kind: str = "queues") -> dict[str, Any]:
    """What RabbitMQ makes of the policies: the one of the highest priority that matches, alone."""
    matching = [p for p in DECLARED.policies if p.apply_to == kind and re.search(p.pattern, name)]
    return dict(max(matching, key=lambda p: p.priority).definition) if matching else {}


def test_the_documented_exchanges_stand() -> None:
    assert TYPES == {
        "optimizer.requests": "topic",
        "optimizer.jobs": "direct",
        "optimizer.dead": "fanout",
        "optimizer.events": "topic",
        "optimizer.control": "fanout",
        "optimizer.retry.1s": "fanout",
        "optimizer.retry.5s": "fanout",
        "optimizer.retry.30s": "fanout",
        "optimizer.retry.5m": "fanout",
    }


def test_each_lane_of_a_provider_has_a_queue_for_each_priority() -> None:
    assert {name for name in QUEUES if name.startswith("jobs.")} == {
        f"jobs.groq.{lane}.{priority}"
        for lane in ("any", "vendor-special-free")
        for priority in ("high", "normal", "batch")
    }


@pytest.mark.parametrize("priority", ["high", "normal", "batch"])
def test_requests_come_from_agents_and_back_from_a_retry_tier(priority: str) -> None:
    name = f"requests.{priority}"

    assert set(QUEUES[name].bindings) == {
        ("optimizer.requests", f"{priority}.#"),
        ("optimizer.jobs", name),
    }


@pytest.mark.parametrize("name", [n for n in QUEUES if n.startswith("jobs.")])
def test_a_job_queue_is_reached_by_its_own_name(name: str) -> None:
    assert QUEUES[name].bindings == (("optimizer.jobs", name),)


@pytest.mark.parametrize("queue", DECLARED.queues, ids=lambda q: q.name)
def test_every_queue_is_replicated_and_bound_to_exchanges_that_stand(queue: Queue) -> None:
    assert queue.arguments == {"x-queue-type": "quorum"}
    assert {exchange for exchange, _ in queue.bindings} <= set(TYPES)


@pytest.mark.parametrize("name", QUEUES)
def test_dead_lettering_is_at_least_once_everywhere(name: str) -> None:
    policy = effective(name)
    if name == "dead.kept":
        assert "dead-letter-exchange" not in policy  # the end of the way
        return
    assert policy["dead-letter-exchange"] in {"", *TYPES}
    assert policy["dead-letter-strategy"] == "at-least-once"
    # Without this overflow RabbitMQ silently falls back to at-most-once.
    assert policy["overflow"] == "reject-publish"


@pytest.mark.parametrize("name", QUEUES)
def test_no_queue_inside_has_a_length_limit_but_the_copies_for_people(name: str) -> None:
    limited = {"max-length", "max-length-bytes"} & effective(name).keys()

    assert bool(limited) == (name == "dead.kept")


@pytest.mark.parametrize(("name", "delay_ms"), RETRY_MS.items())
def test_a_retry_tier_gives_messages_back_to_where_they_came_from(name: str, delay_ms: int) -> None:
    policy = effective(name)

    assert policy["message-ttl"] == delay_ms
    assert policy["dead-letter-exchange"] == "optimizer.jobs"
    assert "dead-letter-routing-key" not in policy  # the routing key is the way back
    assert QUEUES[name].bindings == ((f"optimizer.{name}", ""),)


@pytest.mark.parametrize("name", [n for n in QUEUES if n.startswith(("jobs.", "requests."))])
def test_a_message_that_kills_its_workers_ends_with_the_undertaker(name: str) -> None:
    policy = effective(name)

    assert policy["dead-letter-exchange"] == "optimizer.dead"
    assert policy["delivery-limit"] > 0
    assert QUEUES["dead"].bindings == (("optimizer.dead", ""),)


def test_a_message_that_kills_the_undertaker_ends_with_the_copies_for_people() -> None:
    policy = effective("dead")

    assert (policy["dead-letter-exchange"], policy["dead-letter-routing-key"]) == ("", "dead.kept")
    assert policy["delivery-limit"] > 0


def test_a_copy_for_people_may_be_looked_at_as_often_as_they_like() -> None:
    assert effective("dead.kept")["delivery-limit"] > 1_000_000  # without it RabbitMQ 4 drops it after 20


def test_a_message_for_a_queue_that_is_gone_ends_with_the_undertaker() -> None:
    assert effective("optimizer.jobs", "exchanges") == {"alternate-exchange": "optimizer.dead"}


def test_callback_queues_are_left_to_their_clients() -> None:
    assert effective("reply.quality.client.f00") == {}


def test_no_two_policies_could_rule_one_queue_with_the_same_priority() -> None:
    def rules(policy: Policy) -> set[str]:
        return {name for name in QUEUES if re.search(policy.pattern, name)}

    for one in DECLARED.policies:
        for other in DECLARED.policies:
            if one is not other and one.apply_to == other.apply_to and rules(one) & rules(other):
                assert one.priority != other.priority


def test_a_fleet_without_providers_still_has_its_house() -> None:
    assert {q.name for q in declaration(Fleet()).queues} == {n for n in QUEUES if not n.startswith("jobs.")}
