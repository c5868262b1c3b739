import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import ErrorType
from topology.messages import Request
from topology.providers.openai import body_of, path_of, read_answer
from topology.providers.outcomes import Completion, Failure, FailureKind, Scope

ANSWER: dict[str, Any] = {
    "id": "c1",
    "model": "llama-3.3-70b",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
FAULT, CAPACITY = FailureKind.REQUEST_AT_FAULT, FailureKind.CAPACITY
QUOTA, THROTTLED = FailureKind.QUOTA_GONE, FailureKind.THROTTLED


def read(body: Any, status: int = 200, operation: str = "chat", **headers: str) -> Completion | Failure:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(operation, status, {k.replace("_", "-"): v for k, v in headers.items()}, content)


def failed(body: Any, status: int = 200, **headers: str) -> Failure:
    failure = read(body, status, **headers)
    assert isinstance(failure, Failure)
    return failure


def error(code: object = None, kind: str | None = None, message: str = "No.") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": code}}


def test_a_complete_answer_is_passed_on_as_it_came() -> None:
    completion = read(ANSWER)

    assert isinstance(completion, Completion)
    assert completion.body == ANSWER
    assert completion.model == "llama-3.3-70b"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 2)


def test_usage_that_was_not_told_is_not_known() -> None:
    completion = read({k: v for k, v in ANSWER.items() if k != "usage"})

    assert isinstance(completion, Completion)
    assert completion.usage.prompt_tokens is None
    assert completion.usage.completion_tokens is None


def test_embeddings_need_no_finish_reason_and_generate_nothing() -> None:
    vectors = {"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}}

    completion = read(vectors, operation="embeddings")

    assert isinstance(completion, Completion)
    assert completion.usage.completion_tokens == 0


@pytest.mark.parametrize(
    ("status", "body", "kind", "error_type"),
    [
        (400, error(), FAULT, ErrorType.INVALID_REQUEST),
        (413, error(), FAULT, ErrorType.INVALID_REQUEST),
        (422, error(), FAULT, ErrorType.INVALID_REQUEST),
        (400, error("context_length_exceeded"), FAULT, ErrorType.CONTEXT_TOO_LONG),
        (400, error("content_filter"), FAULT, ErrorType.CONTENT_FILTERED),
        (400, error(kind="content_policy_violation"), FAULT, ErrorType.CONTENT_FILTERED),
        (401, error("invalid_api_key"), FailureKind.KEY_REFUSED, ErrorType.AUTHENTICATION),
        (403, error(), FailureKind.KEY_REFUSED, ErrorType.AUTHENTICATION),
        (402, error(), QUOTA, ErrorType.BUDGET_EXHAUSTED),
        (404, error("model_not_found"), FAULT, ErrorType.NO_MODEL_AVAILABLE),
        (408, error(), CAPACITY, ErrorType.PROVIDER_ERROR),
        (429, error("rate_limit_exceeded"), THROTTLED, ErrorType.RATE_LIMITED),
        (429, error("insufficient_quota"), QUOTA, ErrorType.BUDGET_EXHAUSTED),
        (429, error(kind="insufficient_quota"), QUOTA, ErrorType.BUDGET_EXHAUSTED),
        (500, error(), CAPACITY, ErrorType.PROVIDER_ERROR),
        (502, b"<html>Bad Gateway</html>", CAPACITY, ErrorType.PROVIDER_ERROR),
        (503, b"", CAPACITY, ErrorType.PROVIDER_ERROR),
        (529, error("overloaded_error"), CAPACITY, ErrorType.PROVIDER_ERROR),
    ],
)
def test_a_status_and_a_code_say_what_to_do(
    status: int, body: Any, kind: FailureKind, error_type: ErrorType
) -> None:
    failure = failed(body, status)

    assert (failure.kind, failure.error_type, failure.status) == (kind, error_type, status)
    assert not failure.may_be_billed
    assert failure.message


def test_a_flat_error_as_cerebras_sends_it_is_read() -> None:
    flat = {"message": "Tokens per minute limit exceeded", "type": "too_many_requests_error", "code": "x"}

    failure = failed(flat, 429)

    assert (failure.kind, failure.message) == (THROTTLED, "Tokens per minute limit exceeded")


def test_a_flat_context_error_is_recognised_by_its_code() -> None:
    flat = {"message": "Too long", "type": "invalid_request_error", "code": "context_length_exceeded"}

    assert failed(flat, 400).error_type is ErrorType.CONTEXT_TOO_LONG


def test_an_error_that_is_a_text_alone_is_told() -> None:
    assert failed({"error": "model 'x' not found"}, 404).message == "model 'x' not found"


def test_an_error_inside_a_good_status_is_a_failure() -> None:
    failure = failed({**ANSWER, **error(429, message="upstream is busy")})

    assert (failure.kind, failure.status, failure.message) == (THROTTLED, 429, "upstream is busy")


@pytest.mark.parametrize("code", [None, "server_error", 7, True])
def test_an_error_inside_a_good_status_without_a_status_is_the_providers(code: object) -> None:
    assert failed(error(code)).kind is CAPACITY


@pytest.mark.parametrize(
    "body",
    [
        {**ANSWER, "choices": [{"message": {"content": "Hi"}, "finish_reason": None}]},
        {**ANSWER, "choices": [{"message": {"content": "Hi"}}]},
        {**ANSWER, "choices": [*ANSWER["choices"], {"message": {"content": "Hi"}}]},
        {**ANSWER, "choices": []},
        {**ANSWER, "choices": None},
        {**ANSWER, "choices": ["Hi"]},
        {},
    ],
)
def test_an_answer_without_a_finish_reason_may_have_been_billed(body: dict[str, Any]) -> None:
    failure = failed(body)

    assert failure.kind is FailureKind.AMBIGUOUS
    assert failure.error_type is ErrorType.PROVIDER_ERROR
    assert failure.may_be_billed


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"choices": [', b"\xff\xfe", b"[]", b"null", b"7"])
def test_an_answer_that_is_no_json_object_may_have_been_billed(content: bytes) -> None:
    assert failed(content).kind is FailureKind.AMBIGUOUS


@given(st.sampled_from([200, 400, 429, 500]), st.binary(max_size=80))
def test_no_answer_whatever_breaks_the_reader(status: int, content: bytes) -> None:
    assert isinstance(read_answer("chat", status, {}, content), Completion | Failure)


@pytest.mark.parametrize(("status", "kind"), [(200, FailureKind.AMBIGUOUS), (500, CAPACITY)])
def test_a_bomb_of_nested_lists_is_no_answer(status: int, kind: FailureKind) -> None:
    assert failed(b"[" * 200_000, status).kind is kind


def test_what_the_provider_asks_to_wait_is_told() -> None:
    assert failed(error(), 429, retry_after="7").retry_after_s == 7
    assert failed(error(), 429).retry_after_s is None


def test_a_long_message_is_cut() -> None:
    assert len(failed(error(message="x" * 100_000), 400).message) <= 500


def request(**changes: Any) -> Request:
    return Request.model_validate({"id": "r1", "agent": "quality", "params": {}, **changes})


def test_a_request_is_sent_with_its_parameters_untouched_under_the_candidates_model() -> None:
    params = {
        "messages": [{"content": "\ud83d"}],
        "novel_option": {"a": [1]},
        "model": "auto",
        "stream": True,
    }

    sent = json.loads(body_of(request(params=params), "llama"))

    assert sent == {"messages": [{"content": "\ud83d"}], "novel_option": {"a": [1]}, "model": "llama"}


def test_each_operation_has_its_path() -> None:
    assert path_of(request()) == "/chat/completions"
    assert path_of(request(operation="embeddings")) == "/embeddings"


@pytest.mark.parametrize(
    ("status", "scope", "is_fatal"),
    [
        (400, Scope.REQUEST, True),
        (401, Scope.KEY, True),
        (402, Scope.ACCOUNT, True),
        (404, Scope.MODEL, True),
        (429, Scope.MODEL, False),
        (451, Scope.ADDRESS, True),
        (503, Scope.PROVIDER, False),
    ],
)
def test_a_status_says_whom_it_speaks_of_and_whether_it_passes(
    status: int, scope: Scope, is_fatal: bool
) -> None:
    failure = failed(error(), status)

    assert (failure.scope, failure.is_fatal) == (scope, is_fatal)


def test_an_answer_that_was_cut_off_speaks_of_the_provider() -> None:
    assert failed(b"").scope is Scope.PROVIDER


def test_an_error_in_a_list_of_one_is_read_as_gemini_sends_it() -> None:
    failure = failed([{"error": {"code": 429, "message": "Spent.", "status": "RESOURCE_EXHAUSTED"}}], 429)

    assert (failure.message, failure.code) == ("Spent.", "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize(
    "body",
    [
        {"detail": {"error": "No."}},
        {"detail": [{"msg": "No."}]},
        {"detail": "No."},
        {"error": "No.", "code": "Some sentence"},
        {"object": "error", "message": {"detail": [{"msg": "No."}]}},
    ],
)
def test_a_message_is_found_wherever_it_stands(body: dict[str, Any]) -> None:
    assert failed(body, 422).message == "No."
