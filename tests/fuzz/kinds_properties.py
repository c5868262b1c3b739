"""Kinds whose routing key or properties are at fault: who speaks, whom to answer, what nobody can read."""

import struct
from typing import Any

from tests.fuzz.malformed import (
    HEAVY,
    NOTHING,
    RETURNED,
    SERVED,
    End,
    Maker,
    Malformed,
    after_death,
    answered,
    kept,
    kind,
    pack,
    shortstr,
)
from topology import names
from topology.wire import MAX_MESSAGE_BYTES

INVALID = b"gr\xf6\xdfe"  # Latin-1


@kind()
def forged_agent(m: Maker) -> Malformed:
    agent = m.rng.choice(["somebody-else", "gateway", "teste", "tester2"])
    return m.send(m.request(agent=agent), answered(says="agent:"))


@kind()
def forged_app_id(m: Maker) -> Malformed:
    return m.send(
        m.request(), answered(says="app_id"), app_id=m.rng.choice(["somebody", "Tester", "x" * 255])
    )


@kind()
def another_agents_routing_key(m: Maker) -> Malformed:
    return m.send(m.request(), kept("is not a queue of agent"), key="high.somebody-else")


@kind()
def reply_to_of_somebody_else(m: Maker) -> Malformed:
    queue = m.rng.choice(
        ["reply.somebody.x.1", "reply.tester", "reply.testerx.1", "requests.normal", "dead.kept", "dead", " "]
    )
    return m.send(m.request(), kept("is not a queue of agent"), reply_to=queue)


@kind()
def direct_reply_to(m: Maker) -> Malformed:
    return m.send(m.request(), kept("is not a queue of agent"), reply_to="amq.rabbitmq.reply-to")


@kind()
def reply_to_missing(m: Maker) -> Malformed:
    return m.send(m.request(), kept("needs correlation_id and reply_to"), reply_to=None)


@kind()
def reply_to_empty(m: Maker) -> Malformed:
    return m.send(m.request(), kept("needs correlation_id and reply_to"), raw={"reply_to": shortstr(b"")})


@kind()
def reply_to_where_nobody_is(m: Maker) -> Malformed:
    room = 255 - len("reply.tester.")
    queue = "reply.tester." + m.rng.choice(["gone", "x" * room, "ö" * (room // 2)])
    return m.send(m.request(v=2), NOTHING, reply_to=queue)


@kind()
def reply_to_of_no_utf8(m: Maker) -> Malformed:
    return m.send(m.request(), kept("reply_to"), raw={"reply_to": shortstr(b"reply.tester." + INVALID)})


@kind()
def correlation_id_missing(m: Maker) -> Malformed:
    return m.send(m.request(), kept("needs correlation_id and reply_to"), correlation_id=None)


@kind()
def correlation_id_empty(m: Maker) -> Malformed:
    return m.send(m.request(), kept("needs correlation_id"), raw={"correlation_id": shortstr(b"")})


@kind()
def correlation_id_of_another(m: Maker) -> Malformed:
    said = m.id + m.rng.choice(["x", "\0", "ö", "x" * 200])
    return m.send(m.request(), answered(says="correlation_id"), correlation_id=said, reply_id=said)


@kind()
def correlation_id_of_no_utf8(m: Maker) -> Malformed:
    said = m.id.encode() + INVALID
    return m.send(
        m.request(),
        answered(says="correlation_id"),
        raw={"correlation_id": shortstr(said)},
        reply_id=said.decode("utf-8", "replace"),
    )


@kind()
def nothing_is_right(m: Maker) -> Malformed:
    return m.send(
        m.rng.randbytes(40) + m.id.encode(), kept("not msgpack"), reply_to=None, correlation_id=None
    )


@kind(HEAVY)
def too_large_and_from_nobody(m: Maker) -> Malformed:
    body = m.id.encode().ljust(MAX_MESSAGE_BYTES + m.rng.randint(1, 1000), b"x")
    return m.send(body, kept("more than the limit"), reply_to=None)


@kind()
def priority_that_is_none(m: Maker) -> Malformed:
    key = m.rng.choice(["tester", "urgent.tester", "", ".", "NORMAL.tester", "tester.normal", "#", "x" * 255])
    return m.send(m.request(), RETURNED, key=key)


@kind()
def routing_key_that_names_no_agent(m: Maker) -> Malformed:
    agent = m.rng.choice(["", ".", ".Tester", ".a.b", ".a b", ".ö", ".\0", "." + "x" * 65, ".*", ".tester.x"])
    return m.send(m.request(), kept("routing key: agent"), key=f"high{agent}")


@kind()
def routing_key_of_no_utf8(m: Maker) -> Malformed:
    return m.send(m.request(), kept("routing key: agent"), key=b"batch." + INVALID)


@kind()
def withdrawal_that_is_noise(m: Maker) -> Malformed:
    body = m.rng.choice([m.id.encode(), pack({"v": 1, "of": m.id}), pack({"v": 1, "id": "", "x": m.id})])
    return m.send(body, kept("cancel: "), message_type="cancel")


@kind()
def withdrawal_of_another_agents_request(m: Maker) -> Malformed:
    body = pack({"v": 1, "id": "of-somebody", "x": m.id})
    return m.send(body, kept("id: "), message_type="cancel")


@kind()
def withdrawal_of_what_never_was(m: Maker) -> Malformed:
    return m.send({"v": 1, "id": m.id}, NOTHING, message_type="cancel")


@kind()
def properties_of_no_utf8(m: Maker) -> Malformed:
    name = m.rng.choice(["content_type", "content_encoding", "message_type"])
    return m.send(m.request(), SERVED, raw={name: shortstr(INVALID)})


@kind()
def app_id_of_no_utf8(m: Maker) -> Malformed:
    return m.send(m.request(), answered(says="app_id"), raw={"app_id": shortstr(INVALID)})


@kind()
def timestamp_in_other_units(m: Maker) -> Malformed:
    instant = m.rng.choice([int(m.now * 1e9), int(m.now * 1e6), int(m.now * 1e3), 2**64 - 1, 2**63, 0])
    return m.send(m.request(), SERVED, raw={"timestamp": struct.pack(">Q", instant)})


def table(fields: bytes) -> bytes:
    return struct.pack(">I", len(fields)) + fields


@kind()
def headers_of_every_type(m: Maker) -> Malformed:
    field = m.rng.choice(
        [
            b"t\x01",
            b"b\xff",
            b"s\xff\xff",
            b"I\xff\xff\xff\xff",
            b"l" + b"\xff" * 8,
            b"f\x7f\x7f\xff\xff",
            b"d\x7f\xef" + b"\xff" * 6,
            b"D\xff\xff\xff\xff\xff",
            b"S\0\0\0\x02\xff\xfe",
            b"T" + b"\xff" * 8,
            b"V",
            b"x\0\0\0\x01\xff",
            b"A" + table(b"V" * 50),
            b"F" + table(b""),
            b"F" + table(b"\x01\xffV"),
        ]
    )
    return m.send(m.request(), SERVED, raw={"headers": table(b"\x03odd" + field)})


@kind()
def header_names_of_no_utf8(m: Maker) -> Malformed:
    return m.send(m.request(), SERVED, raw={"headers": table(shortstr(INVALID) + b"V")})


@kind(0.3)
def deeply_nested_headers(m: Maker) -> Malformed:
    fields = b""
    for _ in range(m.rng.choice([50, 1200, 5000])):
        fields = b"\x01aF" + table(fields)
    return m.send(m.request(), SERVED, raw={"headers": table(fields)})


@kind(0.3)
def huge_headers(m: Maker) -> Malformed:
    return m.send(m.request(), SERVED, headers={"note": "x" * m.rng.choice([1000, 100_000])})


@kind()
def headers_that_mean_something_inside(m: Maker) -> Malformed:
    headers = m.rng.choice(
        [
            {"x-death": [{"queue": "requests.normal", "count": 99, "reason": "expired"}]},
            {"x-delivery-count": 1000},
            {"x-reason": "forged", "x-queue": "forged"},
            {"CC": ["nowhere.tester"]},
            {"BCC": ["nowhere.tester"]},
            {"x-first-death-reason": 5},
        ]
    )
    return m.send(m.request(), SERVED, headers=headers)


@kind()
def odd_but_harmless_properties(m: Maker) -> Malformed:
    odd: dict[str, Any] = m.rng.choice(
        [
            {"priority": 255},
            {"delivery_mode": 1},
            {"content_type": "text/html"},
            {"content_encoding": "gzip"},
            {"content_type": None},
            {"message_type": "nonsense"},
            {"expiration": "600000"},
        ]
    )
    return m.send(m.request(), SERVED, **odd)


@kind()
def expires_in_the_queue(m: Maker) -> Malformed:
    # RabbitMQ dead-letters what expires; the sender chose that.
    told = after_death(End.SERVED, End.ANSWERED, type_="deadline_exceeded", says="expiration")
    return m.send(m.request(), told, expiration=m.rng.choice(["0", "1", "5"]))


@kind()
def expires_with_a_forged_history(m: Maker) -> Malformed:
    # RabbitMQ adds to an x-death that it finds: it must not make a stranger one of the house.
    body = {"v": 1, "request": m.request(agent="victim"), "waiter": m.waiter(agent="victim")}
    death = {"queue": "requests.normal", "reason": "expired", "exchange": names.JOBS, "count": 1}
    headers = {"x-death": [death], "x-first-death-queue": "requests.normal"}
    return m.send(body, after_death(End.ANSWERED), expiration=m.rng.choice(["0", "1"]), headers=headers)
