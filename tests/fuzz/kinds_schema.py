"""Kinds whose body is msgpack and JSON, and no request, or one that asks for what cannot be."""

import math
from typing import Any

from tests.fuzz.malformed import (
    SERVED,
    End,
    Maker,
    Malformed,
    answered,
    either,
    kind,
)


@kind()
def far_deadline(m: Maker) -> Malformed:
    return m.send(m.request(deadline=m.rng.choice([1e18, 1e300, 2**64 - 1, m.now + 1e9])), SERVED)


@kind()
def past_deadline(m: Maker) -> Malformed:
    past = m.rng.choice([1, 1e-9, True, m.now - 1, m.now - 1e6])
    return m.send(m.request(deadline=past), answered("deadline_exceeded", "deadline: it passed"))


@kind()
def deadline_that_is_none(m: Maker) -> Malformed:
    return m.send(m.request(deadline=m.rng.choice([0, -1, -1e300, -0.0, False])), answered(says="deadline"))


@kind()
def giant_numbers(m: Maker) -> Malformed:
    number = m.rng.choice([2**64 - 1, -(2**63), 1e308, -1e308, 5e-324])
    params = {"messages": [{"role": "user", "content": "hello"}], m.rng.choice(["seed", "n_of_mine"]): number}
    return m.send(m.request(params=params), either(End.SERVED, End.ANSWERED))


@kind()
def giant_token_bound(m: Maker) -> Malformed:
    params = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2**64 - 1}
    return m.send(m.request(params=params, constraints={"max_cost_usd": 1}), answered("no_model_available"))


@kind()
def null_for_what_is_required(m: Maker) -> Malformed:
    field = m.rng.choice(["id", "agent", "params", "operation", "model", "cache", "constraints", "v"])
    return m.send(m.request(**{field: None}), answered())


@kind()
def missing_field(m: Maker) -> Malformed:
    field = m.rng.choice(["id", "agent", "params"])
    return m.send(m.request(**{field: ...}), answered(says=field))


@kind()
def missing_version(m: Maker) -> Malformed:
    return m.send(m.request(v=...), SERVED)


WRONG: dict[str, list[Any]] = {
    "id": [5, "", "x" * 129, [], {}, True],
    "agent": [5, "", "Tester", "tester\n", "a b", "x" * 65, ["tester"], "tester\0"],
    "agent_type": [5, "x" * 129, [], {}],
    "operation": ["paint", "", 5, [], "CHAT"],
    "model": [5, "", "x" * 257, [], {}],
    "params": ["text", 5, [], [1], True, None],
    "task": [5, "x" * 65, [], {}],
    "deadline": ["soon", [], {}, "1e999", b"\xff"],
    "cache": ["sometimes", 5, [], "", "USE"],
    "cache_ttl_s": ["long", -1, -1e-9, [], {}],
    "cache_scope": ["world", 5, [], ""],
    "constraints": [5, "none", [1], {"max_cost": 1}, {"min_quality": 2}, {"max_cost_usd": 0}, {"v": 1}],
    "stream": ["perhaps", 2, [], {}, 0.5],
    "durable": ["perhaps", 2, [], {}, 0.5],
}


@kind(5)
def wrong_type(m: Maker) -> Malformed:
    field = m.rng.choice(list(WRONG))
    return m.send(m.request(**{field: m.rng.choice(WRONG[field])}), answered(says=field))


@kind()
def unknown_version(m: Maker) -> Malformed:
    version = m.rng.choice([0, 2, 99, -1, "1", 1.5, math.nan, b"1", [1], {"a": 1}, 2**64 - 1, False])
    return m.send(m.request(v=version), answered(says="version"))


@kind(0.1)
def endless_version(m: Maker) -> Malformed:
    return m.send(m.request(v="\0" * m.rng.choice([2000, 1_000_000])), answered(says="version"))


@kind()
def unknown_fields(m: Maker) -> Malformed:
    return m.send(m.request(mood="cheerful", **{"x" * 300: [1]}), SERVED)


@kind()
def another_message(m: Maker) -> Malformed:
    body = m.rng.choice(
        [
            {"v": 1, "id": m.id, "status": "ok", "body": {}, "attempts": 1},
            m.job(),
            m.waiter(),
            {"v": 1, "request": m.request(), "waiter": m.waiter()},
            {"v": 1, "id": m.id, "type": "optimizer.retry", "at": m.now, "agent": "tester"},
            {"v": 1, "status": "error", "error": {"type": "internal", "message": "no"}},
        ]
    )
    return m.send(body, answered())


@kind()
def demands_that_nobody_meets(m: Maker) -> Malformed:
    demand = m.rng.choice(
        [{"max_cost_usd": 1e-12}, {"excluded_providers": ["simulated"]}, {"required_capabilities": ["a\0"]}]
    )
    return m.send(m.request(constraints=demand), answered("no_model_available", "constraints"))


@kind()
def model_that_nobody_has(m: Maker) -> Malformed:
    model = m.rng.choice(["nobody/x", "/", "simulated/nope", "nope", "\0", "größe", "simulated/", "//", "*"])
    ends = (End.ANSWERED,) if model != "simulated/" else (End.ANSWERED, End.SERVED)
    return m.send(m.request(model=model), either(*ends))


@kind()
def messages_that_are_none(m: Maker) -> Malformed:
    messages: object = m.rng.choice([5, "hello", {}, None, True])
    return m.send(m.request(params={"messages": messages, "seed": m.rng.random()}), answered())


@kind()
def params_without_messages(m: Maker) -> Malformed:
    return m.send(m.request(params=m.rng.choice([{}, {"model": "sim-small"}, {"stream": True}])), answered())


@kind()
def messages_of_odd_things(m: Maker) -> Malformed:
    messages: list[object] = [
        m.rng.choice([5, None, "text", [], {}, {"role": 5}, {"role": "user", "content": 5}])
    ]
    return m.send(m.request(params={"messages": messages}), either(End.ANSWERED, End.SERVED))


@kind()
def bytes_in_params(m: Maker) -> Malformed:
    where: dict[str, Any] = m.rng.choice(
        [
            {"messages": [{"role": "user", "content": b"bytes"}]},
            {"messages": [], "user": b"bytes"},
            {"messages": [], "metadata": {"a": [b"bytes"]}},
            {"messages": [], "stream_options": b""},
            {"messages": [], "model": b"m"},
        ]
    )
    return m.send(m.request(params=where), answered(says="params"))


@kind()
def odd_ids(m: Maker) -> Malformed:
    id_ = m.rng.choice(["größe", "a\0b", "a\r\nx-evil: 1", "a/b:c", "💥", " ", "%s%n{}"]) + m.id
    return m.send(m.request(id=id_), SERVED, correlation_id=id_, reply_id=id_)
