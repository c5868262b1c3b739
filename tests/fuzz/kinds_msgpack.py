"""Kinds whose body is no msgpack, or msgpack that holds what JSON cannot: too deep, too odd, too large."""

import gzip
import json
import math
from typing import Any

import msgpack

from tests.fuzz.malformed import (
    HEAVY,
    SERVED,
    End,
    Maker,
    Malformed,
    answered,
    either,
    kind,
    pack,
)
from topology.wire import MAX_BODY_BYTES, MAX_MESSAGE_BYTES

SURROGATE = "\ud83d"


def nested(levels: int, *, maps: bool = False) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value} if maps else [value]
    return value


def with_raw(body: dict[str, Any], mark: str, raw: bytes) -> bytes:
    """The packed body with the string `mark` replaced by these bytes of msgpack."""
    assert len(mark) < 32
    return pack(body).replace(pack(mark), raw)


@kind()
def random_bytes(m: Maker) -> Malformed:
    return m.send(m.rng.randbytes(m.rng.choice([1, 2, 7, 100, 5000])), answered())


@kind()
def truncated(m: Maker) -> Malformed:
    body = pack(m.request())
    return m.send(body[: m.rng.randrange(1, len(body))], answered())


@kind()
def trailing_bytes(m: Maker) -> Malformed:
    return m.send(pack(m.request()) + m.rng.randbytes(m.rng.randint(1, 50)), answered(says="not msgpack"))


@kind(5)
def flipped_bits(m: Maker) -> Malformed:
    body = bytearray(pack(m.request(model="auto", cache="use", deadline=m.now + 300)))
    for _ in range(m.rng.randint(1, 4)):
        body[m.rng.randrange(len(body))] ^= 1 << m.rng.randrange(8)
    return m.send(bytes(body), either(End.ANSWERED, End.SERVED))


@kind(5)
def spliced(m: Maker) -> Malformed:
    body = bytearray(pack(m.request(constraints={}, cache_ttl_s=5, task="code")))
    at = m.rng.randrange(len(body))
    body[at : at + m.rng.randint(0, 4)] = m.rng.randbytes(m.rng.randint(0, 6))
    return m.send(bytes(body), either(End.ANSWERED, End.SERVED))


@kind()
def empty_body(m: Maker) -> Malformed:
    return m.send(b"", answered())


@kind()
def no_map(m: Maker) -> Malformed:
    return m.send(pack(m.rng.choice([[1, 2], "text", 7, None, True, 1.5, b"x", []])), answered(says="no map"))


@kind()
def json_in_place_of_msgpack(m: Maker) -> Malformed:
    return m.send(json.dumps(m.request()).encode(), answered(), content_type="application/json")


@kind()
def compressed(m: Maker) -> Malformed:
    return m.send(gzip.compress(pack(m.request())), answered(), content_encoding="gzip")


@kind()
def extension_type(m: Maker) -> Malformed:
    ext = msgpack.ExtType(m.rng.randint(0, 127), m.rng.randbytes(m.rng.randint(0, 30)))
    where = m.rng.choice(["user", "metadata", "messages", "temperature"])
    return m.send(m.request(params={"messages": [], where: ext}), answered(says="params"))


@kind()
def extension_type_as_a_field(m: Maker) -> Malformed:
    field = m.rng.choice(["id", "agent", "params", "v", "deadline", "cache", "constraints"])
    return m.send(m.request(**{field: msgpack.ExtType(5, b"x")}), answered())


@kind()
def timestamp_type(m: Maker) -> Malformed:
    value = {"messages": [], m.rng.choice(["user", "seed"]): msgpack.Timestamp(m.rng.randrange(2**40), 5)}
    return m.send(m.request(params=value), answered(says="params"))


@kind()
def broken_timestamp(m: Maker) -> Malformed:
    raw = m.rng.choice([b"\xd4\xff\x00", b"\xc7\x05\xff12345", b"\xd7\xff" + b"\xff" * 8])
    return m.send(with_raw(m.request(task="MARK"), "MARK", raw), answered())


@kind()
def huge_declared_length(m: Maker) -> Malformed:
    raw = m.rng.choice([b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"]) + b"\xff\xff\xff\xff\x00"
    return m.send(with_raw(m.request(params={"a": "MARK"}), "MARK", raw), answered(says="not msgpack"))


@kind()
def deep_lists(m: Maker) -> Malformed:
    return m.send(m.request(params={"a": nested(m.rng.randint(64, 500))}), answered())


@kind()
def deep_maps(m: Maker) -> Malformed:
    return m.send(m.request(params={"a": nested(m.rng.randint(64, 500), maps=True)}), answered())


@kind(0.3)
def bomb_of_nesting(m: Maker) -> Malformed:
    raw = m.rng.choice([b"\x91", b"\x81\xa1a", b"\x81"]) * m.rng.choice([1100, 30_000, 200_000])
    return m.send(with_raw(m.request(params={"a": "MARK"}), "MARK", raw + b"\xc0"), answered())


@kind()
def keys_that_are_no_text(m: Maker) -> Malformed:
    key = m.rng.choice([None, True, 1.5, math.nan, b"k", msgpack.ExtType(1, b"x")])
    return m.send(m.request(params={"messages": [], "metadata": {key: 1}}), answered(says="params"))


@kind()
def keys_that_cannot_be_keys(m: Maker) -> Malformed:
    raw = m.rng.choice([b"\x81\x90\x01", b"\x81\x80\x01", b"\x81\x91\x01\x01"])
    return m.send(with_raw(m.request(params={"a": "MARK"}), "MARK", raw), answered())


@kind()
def two_keys_that_json_cannot_tell_apart(m: Maker) -> Malformed:
    return m.send(m.request(params={"messages": [], "logit_bias": {1: 1, "1": 2}}), answered(says="params"))


@kind()
def whole_numbers_as_keys(m: Maker) -> Malformed:
    params = {"messages": [{"role": "user", "content": "hello"}], "logit_bias": {m.rng.randrange(9999): 1}}
    return m.send(m.request(params=params), SERVED)


@kind()
def top_level_keys_that_are_no_text(m: Maker) -> Malformed:
    odd = (m.rng.choice([None, 1, 2.5, b"\xff", SURROGATE]), 1)
    return m.send(dict([*m.request().items(), odd]), either(End.ANSWERED, End.SERVED))


@kind()
def params_keys_that_are_no_text(m: Maker) -> Malformed:
    return m.send(m.request(params={m.rng.choice([None, 1, 2.5, b"\xff", True]): 1}), answered(says="params"))


@kind()
def duplicate_key(m: Maker) -> Malformed:
    body = pack({**m.request(), "MARK": "another"}).replace(pack("MARK"), pack("id"))
    return m.send(body, answered(says="id: 'another'"))


@kind()
def half_an_emoji_in_a_field(m: Maker) -> Malformed:
    field = m.rng.choice(["id", "agent", "model", "task", "agent_type", "cache", "operation", "v"])
    return m.send(m.request(**{field: SURROGATE}), answered())


@kind()
def half_an_emoji_in_a_demand(m: Maker) -> Malformed:
    demand = m.rng.choice([{SURROGATE: 1}, {"k" * 5000: 1}, {"required_capabilities": [SURROGATE]}])
    return m.send(m.request(constraints=demand), answered(None))


@kind()
def half_an_emoji_in_the_prompt(m: Maker) -> Malformed:
    params = {"messages": [{"role": "user", "content": f"{SURROGATE} hello"}]}
    return m.send(m.request(params=params), SERVED)


@kind()
def nul_in_the_prompt(m: Maker) -> Malformed:
    return m.send(m.request(params={"messages": [{"role": "user", "content": "a\0b\x1b[2J"}]}), SERVED)


@kind()
def invalid_utf8(m: Maker) -> Malformed:
    field = m.rng.choice(["id", "agent", "model", "task", "params"])
    return m.send(with_raw(m.request(**{field: "MARK"}), "MARK", b"\xa2\xff\xfe"), answered())


@kind()
def not_a_number(m: Maker) -> Malformed:
    value = m.rng.choice([math.nan, math.inf, -math.inf])
    where: dict[str, Any] = m.rng.choice(
        [
            {"params": {"messages": [], "temperature": value}},
            {"params": {"messages": [{"a": [value]}]}},
            {"params": {"messages": [], "user": value}},
            {"params": {"messages": [], "metadata": {"a": value}}},
            {"deadline": value},
            {"cache_ttl_s": value},
            {"constraints": {"max_cost_usd": value}},
            {"constraints": {"max_latency_s": value}},
        ]
    )
    return m.send(m.request(**where), answered(says=next(iter(where))))


@kind()
def instants_and_spans_out_of_range(m: Maker) -> Malformed:
    return m.send(m.request(cache_ttl_s=m.rng.choice([1e300, 2**64 - 1, 1e16])), answered(says="cache_ttl_s"))


@kind(HEAVY)
def as_large_as_may_be(m: Maker) -> Malformed:
    room = MAX_BODY_BYTES - len(pack(m.request(params={"messages": [{"role": "user", "content": ""}]}))) - 4
    body = pack(m.request(params={"messages": [{"role": "user", "content": "x" * room}]}))
    assert len(body) == MAX_BODY_BYTES
    return m.send(body, SERVED)


@kind(HEAVY)
def just_too_large(m: Maker) -> Malformed:
    body = pack(m.request(params={"a": "x" * MAX_BODY_BYTES}))
    return m.send(body, answered(says="more than the limit"))


@kind(HEAVY)
def larger_than_any_message(m: Maker) -> Malformed:
    body = b"x" * (MAX_MESSAGE_BYTES + m.rng.randint(1, 100_000))
    return m.send(body, answered(says="more than the limit"))


@kind(HEAVY)
def grows_when_packed_again(m: Maker) -> Malformed:
    floats = b"\xdd" + (990_000).to_bytes(4, "big") + b"\xca\x3f\x80\x00\x01" * 990_000
    body = with_raw(m.request(params={"input": "MARK"}), "MARK", floats)
    return m.send(body, answered(says="more than the limit"))


@kind(HEAVY)
def too_many_values(m: Maker) -> Malformed:
    one = m.rng.choice([b"\x90", b"\x80", b"\xc0", b"\xa0"])
    count = m.rng.choice([1_100_000, 7_000_000])
    raw = b"\xdd" + count.to_bytes(4, "big") + one * count
    return m.send(with_raw(m.request(params={"a": "MARK"}), "MARK", raw), answered(says="more than"))


@kind(HEAVY)
def very_many_values_in_a_map(m: Maker) -> Malformed:
    raw = b"\xdf" + (600_000).to_bytes(4, "big")
    raw += b"".join(b"\xce" + n.to_bytes(4, "big") + b"\xc0" for n in range(600_000))
    return m.send(with_raw(m.request(params={"a": "MARK"}), "MARK", raw), answered())
