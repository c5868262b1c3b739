from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import ErrorType, Refused
from topology.messages import (
    CacheMode,
    CacheScope,
    Candidate,
    Constraints,
    Envelope,
    ErrorReport,
    Event,
    Job,
    Outcome,
    Reply,
    Request,
    Source,
    Timings,
    Usage,
    Waiter,
    new_id,
)
from topology.names import Priority
from topology.wire import MAX_BODY_BYTES, unpack

PLAIN: dict[str, Any] = {"id": "r1", "agent": "quality", "params": {"messages": []}}

# Providers send halves of emoji as JSON escapes: text need not be valid Unicode to be an answer.
texts = st.text(st.characters(codec=None), max_size=20)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=12), json_values, max_size=4)
seconds = st.floats(min_value=0.001, max_value=1e10)

requests = st.builds(
    Request,
    id=st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True),
    agent=st.from_regex(r"[a-z0-9_-]{1,64}", fullmatch=True),
    operation=st.sampled_from(["chat", "embeddings"]),
    params=bodies,
    task=st.none() | st.just("code"),
    deadline=st.none() | seconds,
    cache=st.sampled_from(CacheMode),
    cache_ttl_s=st.none() | seconds,
    cache_scope=st.sampled_from(CacheScope),
    constraints=st.builds(Constraints, max_cost_usd=st.none() | seconds),
    stream=st.booleans(),
    durable=st.booleans(),
)
waiters = st.builds(
    Waiter,
    agent=st.just("quality"),
    id=st.just("r1"),
    reply_to=st.none() | st.just("reply.quality.c.1"),
    priority=st.sampled_from(Priority),
    deadline=seconds,
    queued_at=seconds,
)
candidates = st.builds(Candidate, provider=st.just("groq"), model=st.sampled_from(["a", "b/c"]))
reports = st.builds(ErrorReport, type=st.sampled_from(ErrorType), message=st.just("said so"))
outcomes = st.builds(
    Outcome,
    status=st.sampled_from(["ok", "error"]),
    body=st.none() | bodies,
    usage=st.builds(Usage, prompt_tokens=st.none() | st.integers(0, 10**9)),
    error=st.none() | reports,
)
replies = st.builds(
    Reply,
    id=st.just("r1"),
    status=st.sampled_from(["ok", "error"]),
    source=st.none() | st.sampled_from(Source),
    body=st.none() | bodies,
    timings=st.builds(Timings, queued_s=seconds),
    error=st.none() | reports,
)
jobs = st.builds(
    Job,
    fingerprint=st.just("f" * 40),
    request=requests,
    waiter=waiters,
    route=st.lists(candidates, min_size=1, max_size=3).map(tuple),
    position=st.integers(0, 5),
)
envelopes = st.builds(Envelope, request=requests, waiter=waiters)
messages = requests | waiters | outcomes | replies | jobs | envelopes


@given(messages)
def test_a_message_survives_the_wire(message: Request | Waiter | Outcome | Reply | Job | Envelope) -> None:
    assert type(message).from_bytes(message.to_bytes()) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_are_refused(body: bytes) -> None:
    try:
        Request.from_bytes(body)
    except Refused as refused:
        assert refused.type is ErrorType.INVALID_REQUEST
        assert refused.message.startswith("request: ")


@pytest.mark.parametrize("body", [b"", b"\xc1", b"{}", b"\x81\xa1a"])
def test_what_is_not_msgpack_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match=r"^request: the body is n"):
        Request.from_bytes(body)


def test_numbers_as_keys_travel_as_logit_bias_has_them() -> None:
    request = Request(id="1", agent="a", params={"logit_bias": {50256: -100}})

    assert Request.from_bytes(request.to_bytes()) == request


@pytest.mark.parametrize("unfit", [2**70, object(), {1, 2}])
def test_what_json_cannot_carry_is_refused_before_it_is_sent(unfit: object) -> None:
    with pytest.raises(Refused, match="only what JSON can carry"):
        Request.from_value({"id": "1", "agent": "a", "params": {"x": unfit}}).to_bytes()


def test_a_body_that_is_no_map_is_refused_with_what_it_is() -> None:
    with pytest.raises(Refused, match="request: the body is no map but list"):
        Request.from_bytes(msgpack.packb([1, 2]))


def test_another_schema_version_is_refused_with_the_remedy() -> None:
    with pytest.raises(Refused, match=r"request: version v=2 is not 1; use an SDK of this release"):
        Request.from_bytes(msgpack.packb({**PLAIN, "v": 2}))


def test_a_body_that_is_too_large_is_refused_before_it_is_published() -> None:
    request = Request(**{**PLAIN, "params": {"messages": "x" * MAX_BODY_BYTES}})

    with pytest.raises(Refused, match=r"more than the limit of 8388608; send less text") as refused:
        request.to_bytes()

    assert refused.value.type is ErrorType.INVALID_REQUEST


def test_a_body_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(Refused, match="bytes are more than the limit of 8388608"):
        Request.from_bytes(b"\xc0" * (MAX_BODY_BYTES + 1))


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": [value]} if levels % 2 else {"a": value}
    return value


def test_params_may_nest_as_deep_as_schemas_do() -> None:
    assert Request.from_bytes(Request(**{**PLAIN, "params": nested(60)}).to_bytes())


@pytest.mark.parametrize("levels", [65, 200, 400])
def test_what_nests_too_deep_is_refused(levels: int) -> None:
    body = msgpack.packb({**PLAIN, "params": nested(levels)})

    with pytest.raises(Refused, match="request: nested deeper than 64 levels"):
        Request.from_bytes(body)


def test_a_bomb_of_nested_lists_is_refused_and_not_recursed_into() -> None:
    with pytest.raises(Refused, match=r"^request: "):
        Request.from_bytes(b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", "x" * 129),
        ("agent", "Quality"),
        ("agent", "quality\n"),
        ("agent", None),
        ("operation", "paint"),
        ("model", ""),
        ("params", "hello"),
        ("deadline", float("nan")),
        ("deadline", float("inf")),
        ("deadline", -1),
        ("cache", "sometimes"),
        ("cache_ttl_s", -1),
        ("cache_ttl_s", float("nan")),
        ("cache_scope", "world"),
        ("stream", "perhaps"),
        ("constraints", {"min_quality": 2}),
        ("constraints", {"max_cost": 1}),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(Refused, match=f"^request: {field}") as refused:
        Request.from_bytes(msgpack.packb({**PLAIN, field: value}))
    assert refused.value.type is ErrorType.INVALID_REQUEST
    assert not refused.value.retryable


@pytest.mark.parametrize("field", ["id", "agent", "params"])
def test_a_missing_field_is_refused_by_its_name(field: str) -> None:
    body = {name: value for name, value in PLAIN.items() if name != field}

    with pytest.raises(Refused, match=f"^request: {field}: "):
        Request.from_bytes(msgpack.packb(body))


def test_the_text_of_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(Refused) as refused:
        Request.from_bytes(msgpack.packb({**PLAIN, "params": "a private prompt"}))
    assert "private" not in str(refused.value)


def test_fields_of_a_newer_release_are_ignored() -> None:
    newer = {**PLAIN, "v": 1, "mood": "cheerful"}

    assert Request.from_bytes(msgpack.packb(newer)) == Request(**PLAIN)


def test_an_event_keeps_the_fields_of_its_own_type() -> None:
    event = Event.model_validate({"id": "e1", "type": "optimizer.retry", "at": 1.5, "tier": "5s"})

    assert Event.from_bytes(event.to_bytes()).model_dump()["tier"] == "5s"


def test_a_job_goes_round_its_route() -> None:
    route = tuple(Candidate(provider=p, model="m") for p in ("a", "b", "c"))
    waiter = Waiter(
        agent="quality", id="r1", reply_to=None, priority=Priority.NORMAL, deadline=2, queued_at=1
    )
    job = Job(fingerprint="f", request=Request(**PLAIN), waiter=waiter, route=route)

    seen = []
    for _ in range(4):
        seen.append(job.candidate.provider)
        job = job.at_next_candidate()

    assert seen == ["a", "b", "c", "a"]


def test_a_job_without_a_candidate_is_refused() -> None:
    body = {"fingerprint": "f", "request": PLAIN, "waiter": {}, "route": []}

    with pytest.raises(Refused, match=r"^job: "):
        Job.from_value(body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"choices": [{"message": {"content": "hello"}}]}, "hello"),
        ({"choices": [{"message": {"content": None, "tool_calls": []}}]}, ""),
        ({"choices": []}, ""),
        ({"data": [{"embedding": [0.1]}]}, ""),
        (None, ""),
    ],
)
def test_a_replys_text_is_that_of_its_first_choice(body: dict[str, Any] | None, text: str) -> None:
    assert Reply(id="r1", status="ok", body=body).text == text


def test_ids_are_distinct_and_ordered_by_time() -> None:
    ids = [new_id() for _ in range(1000)]

    assert len(set(ids)) == len(ids)
    assert [i[:12] for i in ids] == sorted(i[:12] for i in ids)
    assert all(len(i) == 32 and int(i, 16) >= 0 for i in ids)


def test_unpacking_gives_the_plain_values() -> None:
    assert unpack(msgpack.packb(PLAIN)) == PLAIN
