import base64
import hashlib
import json
import re
from typing import Any

import pytest

from topology.declaration import declaration
from topology.definitions import (
    User,
    agent_user,
    definitions,
    gateway_user,
    password_hash,
    workers_user,
)
from topology.events import EventType
from topology.fleet import Fleet

DECLARED = declaration(Fleet.model_validate({"providers": {"groq": {"base_url": "https://groq.example/v1"}}}))
QUALITY = agent_user("quality", "hash")
GATEWAY = gateway_user("hash")


def named(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in objects}


def may(pattern: str, name: str) -> bool:
    """As RabbitMQ decides: the pattern matches anywhere in the name."""
    return re.search(pattern, name) is not None


def speaks(user: User, key: str, exchange: str = "optimizer.requests") -> bool:
    """Whether it may publish there with this routing key."""
    (topic,) = (topic for topic in user.topics if topic.exchange == exchange)
    return may(user.write, exchange) and may(topic.write, key)


def test_the_file_holds_the_whole_declaration() -> None:
    file = json.loads(json.dumps(definitions(DECLARED, "fleet")))

    assert set(named(file["exchanges"])) == {e.name for e in DECLARED.exchanges}
    assert set(named(file["queues"])) == {q.name for q in DECLARED.queues}
    assert set(named(file["policies"])) == {p.name for p in DECLARED.policies}
    assert named(file["exchanges"])["optimizer.requests"]["type"] == "topic"
    assert named(file["queues"])["requests.high"]["arguments"] == {"x-queue-type": "quorum"}
    assert {
        (b["source"], b["routing_key"]) for b in file["bindings"] if b["destination"] == "requests.high"
    } == {
        ("optimizer.requests", "high.#"),
        ("optimizer.jobs", "requests.high"),
    }
    assert {item["vhost"] for kind in file if kind != "vhosts" for item in file[kind]} == {"fleet"}


def test_without_users_an_import_leaves_users_alone() -> None:
    assert not {"users", "permissions", "topic_permissions"} & set(definitions(DECLARED, "/"))


@pytest.mark.parametrize("key", ["high.quality", "normal.quality", "batch.quality"])
def test_an_agent_speaks_for_itself(key: str) -> None:
    assert may(QUALITY.write, "optimizer.requests")
    assert speaks(QUALITY, key)


@pytest.mark.parametrize(
    "key", ["high.other", "high.quality2", "high.a.quality", "urgent.quality", "quality"]
)
def test_an_agent_speaks_for_nobody_else(key: str) -> None:
    assert not speaks(QUALITY, key)


@pytest.mark.parametrize(
    "name", ["optimizer.jobs", "optimizer.events", "amq.default", "optimizer-requests", "reply.quality.p1.aa"]
)
def test_an_agent_writes_to_nothing_but_the_requests(name: str) -> None:
    assert not may(QUALITY.write, name)


@pytest.mark.parametrize(
    "queue", ["reply.other.p1.aa", "reply.quality2.p1.aa", "requests.high", "x.reply.quality."]
)
def test_an_agent_has_no_queue_but_its_own(queue: str) -> None:
    assert not may(QUALITY.read, queue)
    assert not may(QUALITY.configure, queue)
    assert may(QUALITY.read, "reply.quality.p1.aa")


def test_the_gateway_speaks_for_every_agent_and_reads_its_own_replies_alone() -> None:
    assert speaks(GATEWAY, "batch.any-agent_1")
    assert may(GATEWAY.read, "reply.gateway.p1.aa")
    assert may(GATEWAY.configure, "watch.gateway-host-7-aa")
    assert not may(GATEWAY.read, "reply.quality.p1.aa")
    assert not may(GATEWAY.write, "optimizer.jobs")


@pytest.mark.parametrize("type_", EventType)
def test_the_gateway_publishes_no_event(type_: EventType) -> None:
    assert not speaks(GATEWAY, type_, "optimizer.events")


def test_workers_may_do_everything() -> None:
    file = definitions(DECLARED, "/", [workers_user("hash")])

    assert file["permissions"] == [
        {"user": "workers", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    ]
    assert file["topic_permissions"] == []


def test_a_password_is_kept_as_rabbitmq_keeps_it() -> None:
    # The documentation's own example: https://www.rabbitmq.com/docs/passwords#computing-password-hash
    assert (
        password_hash("test12", bytes.fromhex("908DC60A"))
        == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    )


def test_no_password_is_in_the_file() -> None:
    user: User = agent_user("quality", password_hash("s3cret-s3cret", b"salt"))

    text = json.dumps(definitions(DECLARED, "/", [user]))

    assert "s3cret" not in text
    assert base64.b64encode(b"salt" + hashlib.sha256(b"salts3cret-s3cret").digest()).decode() in text
