"""The declaration as a RabbitMQ definitions file, and the users that may speak through it.

What a definitions file holds: https://www.rabbitmq.com/docs/definitions. What a permission lets a user
do: https://www.rabbitmq.com/docs/access-control. Its patterns are not anchored, hence each `^`.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from topology import names
from topology.declaration import Declaration
from topology.names import Priority

WORKERS_USER: Final = "workers"
GATEWAY_USER: Final = "gateway"
RESERVED_USERS: Final = frozenset({WORKERS_USER, GATEWAY_USER, "guest"})
"""Names that no agent's user may have; `guest` is RabbitMQ's own."""

SALT_BYTES: Final = 4

_NOTHING: Final = "^$"
_EVERYTHING: Final = ".*"
_HASHING: Final = "rabbit_password_hashing_sha256"


@dataclass(frozen=True)
class Topic:
    """What a user may do on one topic exchange, as patterns of routing keys: publish, and bind to."""

    exchange: str
    write: str
    read: str = _NOTHING


@dataclass(frozen=True)
class User:
    """A RabbitMQ user with its permissions in the virtual host, as patterns of names.

    Attributes:
        password_hash: As `password_hash` makes it.
        tags: What the management API lets it do.
        topics: The topic exchanges on which routing keys count, too.
    """

    name: str
    password_hash: str
    configure: str
    write: str
    read: str
    tags: tuple[str, ...] = ()
    topics: tuple[Topic, ...] = ()


def agent_user(agent: str, password_hash: str) -> User:
    """A user that can speak for this agent alone, and own and read this agent's callback queues alone."""
    return _speaker(agent, agent, password_hash)


def gateway_user(password_hash: str) -> User:
    """A user that can speak for every agent; replies come to the gateway's own callback queues.

    It hears the workers on a queue of its own. Of events it publishes none: its one message to that exchange
    reaches nobody, and has RabbitMQ say whether it takes messages.
    """
    speaker = _speaker(GATEWAY_USER, names.AGENT_PATTERN.pattern, password_hash)
    own_queues = rf"^(reply\.{GATEWAY_USER}\.|watch\.{GATEWAY_USER}-)"
    events = re.escape(names.EVENTS)
    return replace(
        speaker,
        configure=own_queues,
        write=rf"{own_queues}|^({re.escape(names.REQUESTS)}|{events})$",
        read=rf"{own_queues}|^{events}$",
        topics=(*speaker.topics, Topic(names.EVENTS, write=f"^{names.KNOCK}$", read=_EVERYTHING)),
    )


def workers_user(password_hash: str) -> User:
    """The user of workers and operators: everything in the virtual host, policies and alarms included."""
    return User(
        WORKERS_USER,
        password_hash,
        configure=_EVERYTHING,
        write=_EVERYTHING,
        read=_EVERYTHING,
        tags=("monitoring", "policymaker"),
    )


def _speaker(user: str, agents: str, password_hash: str) -> User:
    own_queues = rf"^reply\.{user}\."
    priorities = "|".join(Priority)
    return User(
        user,
        password_hash,
        configure=own_queues,
        write=f"^{re.escape(names.REQUESTS)}$",
        read=own_queues,
        topics=(Topic(names.REQUESTS, write=rf"^({priorities})\.{agents}$"),),
    )


def password_hash(password: str, salt: bytes) -> str:
    """How RabbitMQ keeps a password: base64 of the salt and SHA-256 over salt and password.

    Args:
        password: In clear.
        salt: `SALT_BYTES` random bytes.
    """
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode("ascii")


def definitions(declaration: Declaration, vhost: str, users: Iterable[User] = ()) -> dict[str, Any]:
    """The content of a definitions file, for `rabbitmqctl import_definitions` or `POST /api/definitions`.

    Importing it creates what is missing and replaces policies, users and permissions of the same names.
    It holds no users where none are given, so that an import leaves those that stand alone.
    """
    file = {"vhosts": [{"name": vhost}], **_objects(declaration, vhost)}
    people = tuple(users)
    return file | _users(people, vhost) if people else file


def _objects(declaration: Declaration, vhost: str) -> dict[str, Any]:
    stands: dict[str, Any] = {"vhost": vhost, "durable": True, "auto_delete": False}
    return {
        "policies": [
            {
                "vhost": vhost,
                "name": policy.name,
                "pattern": policy.pattern,
                "apply-to": policy.apply_to,
                "definition": dict(policy.definition),
                "priority": policy.priority,
            }
            for policy in declaration.policies
        ],
        "queues": [{"name": q.name, **stands, "arguments": q.arguments} for q in declaration.queues],
        "exchanges": [
            {"name": e.name, **stands, "type": e.type, "internal": False, "arguments": {}}
            for e in declaration.exchanges
        ],
        "bindings": [
            {
                "source": exchange,
                "vhost": vhost,
                "destination": queue.name,
                "destination_type": "queue",
                "routing_key": key,
                "arguments": {},
            }
            for queue in declaration.queues
            for exchange, key in queue.bindings
        ],
    }


def _users(users: tuple[User, ...], vhost: str) -> dict[str, Any]:
    return {
        "users": [
            {
                "name": user.name,
                "password_hash": user.password_hash,
                "hashing_algorithm": _HASHING,
                "tags": list(user.tags),
            }
            for user in users
        ],
        "permissions": [
            {
                "user": user.name,
                "vhost": vhost,
                "configure": user.configure,
                "write": user.write,
                "read": user.read,
            }
            for user in users
        ],
        "topic_permissions": [
            {
                "user": user.name,
                "vhost": vhost,
                "exchange": topic.exchange,
                "write": topic.write,
                "read": topic.read,
            }
            for user in users
            for topic in user.topics
        ],
    }
