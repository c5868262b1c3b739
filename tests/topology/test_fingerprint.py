import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import ErrorType, Refused
from topology.fingerprint import fingerprint
from topology.messages import Request

PARAMS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    "temperature": 0.5,
}


def asked(**changes: Any) -> str:
    return fingerprint(
        Request.from_value({"id": "r1", "agent": "quality", "model": "auto", "params": PARAMS, **changes})
    )


SAME = asked()


@pytest.mark.parametrize(
    "changes",
    [
        {"operation": "embeddings"},
        {"model": "groq/llama"},
        {"task": "code"},
        {"constraints": {"min_quality": 0.5}},
        {"constraints": {"excluded_providers": ["groq"]}},
        {"cache_scope": "agent"},
        {"params": {**PARAMS, "temperature": 0.6}},
        {"params": {**PARAMS, "max_tokens": 5}},
        {"params": {**PARAMS, "seed": 7}},
        {"params": {**PARAMS, "tools": [{"type": "function", "function": {"name": "f"}}]}},
        {"params": {**PARAMS, "response_format": {"type": "json_object"}}},
        {"params": {**PARAMS, "messages": [{"role": "system", "content": "Why is the sky blue?"}]}},
        {"params": {**PARAMS, "messages": [*PARAMS["messages"], *PARAMS["messages"]]}},
        {"params": {**PARAMS, "logprobs": True}},
    ],
)
def test_what_changes_the_answer_makes_another_flight(changes: dict[str, Any]) -> None:
    assert asked(**changes) != SAME


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "r2"},
        {"agent": "summary"},
        {"agent_type": "reviewer"},
        {"deadline": 1e9},
        {"stream": True},
        {"durable": True},
        {"cache": "refresh"},
        {"cache": "join"},
        {"cache_ttl_s": 3},
        {"params": {**PARAMS, "user": "someone"}},
        {"params": {**PARAMS, "metadata": {"trace": "1"}}},
        {"params": {**PARAMS, "stream": True, "stream_options": {"include_usage": True}}},
        {"params": {**PARAMS, "model": "what the client called it"}},
        {"params": {**PARAMS, "stop": None}},
        {"params": dict(reversed(PARAMS.items()))},
    ],
)
def test_what_does_not_change_the_answer_shares_the_flight(changes: dict[str, Any]) -> None:
    assert asked(**changes) == SAME


def test_a_whole_number_is_the_same_however_it_is_written() -> None:
    assert asked(params={"temperature": 1.0}) == asked(params={"temperature": 1})
    assert asked(params={"temperature": -0.0}) == asked(params={"temperature": 0})


def test_true_is_not_one() -> None:
    assert asked(params={"logprobs": True}) != asked(params={"logprobs": 1})


def test_a_null_within_a_map_is_as_good_as_absent_but_within_a_list_it_counts() -> None:
    assert asked(params={"a": {"b": None, "c": 1}}) == asked(params={"a": {"c": 1}})
    assert asked(params={"a": [None, 1]}) != asked(params={"a": [1]})


def test_the_scope_agent_shares_within_the_agent_alone() -> None:
    mine = asked(cache_scope="agent")

    assert asked(cache_scope="agent", id="r2") == mine
    assert asked(cache_scope="agent", agent="summary") != mine


def test_the_mode_off_makes_a_flight_of_its_own_that_a_retransmission_recognises() -> None:
    mine = asked(cache="off")

    assert asked(cache="off") == mine
    assert asked(cache="off", id="r2") != mine
    assert asked(cache="off", agent="summary") != mine
    assert mine != SAME


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_carry_is_refused_by_its_field(value: float) -> None:
    with pytest.raises(Refused, match=r"^request: params: only what JSON can carry") as refused:
        asked(params={"a": [{"b": value}]})
    assert refused.value.type is ErrorType.INVALID_REQUEST


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None))
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def reordered(value: Any) -> Any:
    """The same JSON value, with every map's keys in the opposite order."""
    if isinstance(value, dict):
        return {k: reordered(v) for k, v in reversed(value.items())}
    return [reordered(v) for v in value] if isinstance(value, list) else value


@given(trees)
def test_the_order_of_keys_never_matters(tree: Any) -> None:
    assert asked(params={"a": tree}) == asked(params={"a": reordered(tree)})


@given(st.text(), st.text())
def test_different_prompts_never_share_a_flight(one: str, other: str) -> None:
    assert (asked(params={"input": one}) == asked(params={"input": other})) == (one == other)


@given(trees)
def test_a_fingerprint_is_forty_hex_digits(tree: Any) -> None:
    found = asked(params={"a": tree})

    assert len(found) == 40
    assert int(found, 16) >= 0
