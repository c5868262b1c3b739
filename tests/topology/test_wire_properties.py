"""Whatever bytes come: they are read, or refused with a text that can be sent; nothing else is raised."""

import contextlib
import math
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from topology import names
from topology.errors import ErrorType, Refused
from topology.fingerprint import fingerprint
from topology.messages import (
    Cancel,
    Control,
    Envelope,
    ErrorReport,
    Event,
    Job,
    Outcome,
    Reply,
    Request,
    Waiter,
    Waiting,
)
from topology.wire import WireMessage, unpack

KINDS: list[type[WireMessage]] = [
    Cancel, Control, Envelope, Event, Job, Outcome, Reply, Request, Waiter, Waiting,
]  # fmt: skip

WAITER: dict[str, Any] = {
    "agent": "quality", "id": "r1", "reply_to": "reply.quality.c.1", "priority": "normal",
    "deadline": 2e9, "queued_at": 1e9,
}  # fmt: skip
REQUEST: dict[str, Any] = {"id": "r1", "agent": "quality", "params": {"messages": [{"role": "user"}]}}
JOB: dict[str, Any] = {
    "fingerprint": "0" * 40, "request": REQUEST, "waiter": WAITER,
    "route": [{"provider": "groq", "model": "a"}], "position": 0,
}  # fmt: skip
GOOD: dict[type[WireMessage], dict[str, Any]] = {
    Cancel: {"id": "r1"},
    Control: {"id": "c1", "action": "renew"},
    Envelope: {"request": REQUEST, "waiter": WAITER},
    Event: {"id": "e1", "type": "optimizer.retry", "at": 1e9},
    Job: JOB,
    Outcome: {"status": "ok", "body": {"choices": []}},
    Reply: {"id": "r1", "status": "error", "error": {"type": "internal", "message": "no"}},
    Request: REQUEST,
    Waiter: WAITER,
    Waiting: {"id": "r1", "waits_for": "groq"},
}

texts = st.text(st.characters(codec=None), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | texts
    | st.binary(max_size=12)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4))
    | st.builds(msgpack.Timestamp, st.integers(0, 2**34 - 1), st.integers(0, 999_999_999))
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=10,
)
json_keys = st.text(st.characters(codec="utf-8"), max_size=8)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_keys, inner, max_size=4),
    max_leaves=10,
)


def packed(value: object) -> bytes:
    body: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return body


def read(kind: type[WireMessage], body: bytes) -> WireMessage | None:
    """None when it is refused, as it should be: with a text that a reply and a log can carry."""
    try:
        return kind.from_bytes(body)
    except Refused as refused:
        assert refused.type is ErrorType.INVALID_REQUEST
        assert len(refused.message.encode("utf-8")) < 1000
        assert ErrorReport(type=refused.type, message=refused.message)
        return None


@pytest.mark.parametrize("kind", KINDS)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\x80")
@example(b"\xd4\xff\x00")
@example(b"\x81\xa1a" * 2000 + b"\xc0")
@example(b"\x91" * 2000 + b"\xc0")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\x81\x91\x01\x01")
def test_any_bytes_are_read_or_refused(kind: type[WireMessage], body: bytes) -> None:
    read(kind, body)
    with contextlib.suppress(Refused):
        assert isinstance(unpack(body), dict)


@pytest.mark.parametrize("kind", KINDS)
@given(anything)
def test_any_msgpack_is_read_or_refused(kind: type[WireMessage], value: object) -> None:
    read(kind, packed(value))


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_a_good_message_with_anything_in_place_of_a_field_is_read_or_refused(
    kind: type[WireMessage], data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from([*kind.model_fields, "unknown"]))
    message = read(kind, packed({**GOOD[kind], field: data.draw(anything)}))

    if message is not None:
        again = kind.from_bytes(message.to_bytes())
        assert again.to_bytes() == message.to_bytes()  # in an event's own fields there may be a NaN


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_a_good_message_with_bytes_changed_is_read_or_refused(
    kind: type[WireMessage], data: st.DataObject
) -> None:
    body = bytearray(packed({"v": 1, **GOOD[kind]}))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))

    read(kind, bytes(body))


@given(st.dictionaries(json_keys, json_values, max_size=4))
def test_whatever_json_can_carry_comes_through_as_it_was(params: dict[str, Any]) -> None:
    request = Request.model_validate({**REQUEST, "params": params})

    assert Request.from_bytes(request.to_bytes()).params == params


@given(st.dictionaries(texts, anything, max_size=4))
def test_a_request_that_can_be_read_has_a_fingerprint(params: dict[str, Any]) -> None:
    request = read(Request, packed({**REQUEST, "params": params}))

    if isinstance(request, Request):
        assert len(fingerprint(request)) == 40
        assert fingerprint(Request.from_bytes(request.to_bytes())) == fingerprint(request)


@given(st.dictionaries(json_keys, json_values, min_size=2, max_size=5), st.randoms())
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(params: dict[str, Any], rng: Any) -> None:
    shuffled = list(params.items())
    rng.shuffle(shuffled)

    one, other = ({**REQUEST, "params": p} for p in (params, dict(shuffled)))
    assert fingerprint(Request.from_value(one)) == fingerprint(Request.from_value(other))


@given(texts | st.builds("{}.{}".format, st.sampled_from(names.Priority), texts))
def test_a_routing_key_names_its_speaker_or_says_what_is_wrong_with_it(key: str) -> None:
    try:
        priority, agent = names.speaker_of(key)
    except ValueError as error:
        assert str(error).startswith(("priority: ", "agent: "))
        assert str(error).encode("utf-8")
    else:
        assert key == names.request_key(priority, agent)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"user": b"x"}, "in 'user', a value of type bytes is not JSON"),
        ({"metadata": {"a": [math.nan]}}, "in 'metadata', nan is no JSON number"),
        ({"a": {None: 1}}, "in 'a', a key of type NoneType is not JSON"),
        ({"a": {1: 1, "1": 2}}, "in 'a', two keys are the same in JSON"),
        ({"a": msgpack.Timestamp(1)}, "in 'a', a value of type Timestamp is not JSON"),
    ],
)
def test_what_json_cannot_carry_is_refused_by_its_place(params: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused) as refused:
        Request.from_bytes(packed({**REQUEST, "params": params}))
    assert says in refused.value.message


def test_whole_numbers_are_keys_as_in_json() -> None:
    request = Request.from_bytes(packed({**REQUEST, "params": {"logit_bias": {50256: -100}}}))
    as_text = Request.from_bytes(packed({**REQUEST, "params": {"logit_bias": {"50256": -100}}}))

    assert fingerprint(request) == fingerprint(as_text)


@pytest.mark.parametrize("one", [b"\x90", b"\x80", b"\xc0"])
def test_more_values_than_a_worker_can_chew_are_refused_before_all_are_made(one: bytes) -> None:
    many = b"\xdd" + (2_000_000).to_bytes(4, "big") + one * 2_000_000
    body = packed({**REQUEST, "params": {"a": "MARK"}}).replace(packed("MARK"), many)

    with pytest.raises(Refused, match="more than 1000000 lists, maps and values"):
        Request.from_bytes(body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reply_to", "r" * 256),
        ("reply_to", "ö" * 128),
        ("id", "x" * 256),
        ("agent", "Not An Agent"),
        ("deadline", 1e300),
        ("deadline", math.nan),
    ],
)
def test_a_waiter_that_could_not_be_answered_is_refused(field: str, value: object) -> None:
    with pytest.raises(Refused, match=f"^waiter: {field}"):
        Waiter.from_bytes(packed({**WAITER, field: value}))
