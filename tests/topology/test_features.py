"""What a request uses, and which of it an error is about: judged by real error answers.

`data/feature_errors.json` holds errors that speak of a feature, or seem to. Of the errors of all kinds in
`data/provider_errors.json`, those with `features` do. `temperature=` leaves the value to the request.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from topology.features import MODEL, Used
from topology.messages import Request
from topology.providers.openai import read_answer
from topology.providers.outcomes import Failure

DATA = Path(__file__).parent / "data"
ERRORS: list[dict[str, Any]] = [
    entry
    for name in ("feature_errors.json", "provider_errors.json")
    for entry in json.loads((DATA / name).read_text(encoding="utf-8"))
]
LABELLED = [entry for entry in ERRORS if entry.get("features")]


def features_in(entry: dict[str, Any], body: Any = None) -> list[str]:
    body = entry["body"] if body is None else body
    content = body if isinstance(body, str) else json.dumps(body)
    headers = entry.get("headers", {})
    answer = read_answer("chat", entry["status"], headers, content.encode(), provider=entry["provider"])
    assert isinstance(answer, Failure)
    return sorted(answer.features)


def asked(operation: Any = "chat", **params: Any) -> Request:
    return Request(id="r", agent="a", operation=operation, params=params)


def said(*parts: Any, **fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts) or "Hello", **fields}]


def test_each_error_is_about_what_it_says_and_no_other_error_is_about_a_feature() -> None:
    assert len(LABELLED) > 30
    for entry in ERRORS:
        assert features_in(entry) == sorted(entry.get("features", [])), entry["source"]


def test_a_request_that_quotes_such_an_error_blames_no_feature() -> None:
    for entry in LABELLED:
        text = json.dumps(entry["body"])
        quoting = {"error": {"message": f"Invalid value: {text}", "type": "invalid_request_error"}}

        assert features_in(entry, quoting) == [], entry["source"]


@pytest.mark.parametrize(
    "message",
    [
        "Tools are not supported, when streaming is on.",
        "Tool calling is not supported in streaming mode",
        "Model small does not support tools with images",
        "This model does not support image inputs on the free tier",
        "The request does not match the schema: tools is not supported",
        "temperature is not supported with this model",
        "The model is overloaded",
    ],
)
def test_what_is_not_plain_is_about_no_feature(message: str) -> None:
    body = {"error": {"message": message, "type": "invalid_request_error"}}

    assert features_in({"provider": "openai", "status": 400}, body) == []


@pytest.mark.parametrize(
    ("request_", "features"),
    [
        (asked(messages=said()), {"role=user"}),
        (
            asked(messages=said(), temperature=0, user="me", stream=True),
            {"role=user", "temperature", "temperature=0"},
        ),
        (asked(messages=said(), tools=[], logprobs=False, stop=None), {"role=user"}),
        (
            asked(
                messages=said(),
                tools=[{"type": "function"}],
                tool_choice={"type": "function", "function": {}},
            ),
            {"role=user", "tools", "tool_choice", "tool_choice=function"},
        ),
        (
            asked(
                messages=said(), response_format={"type": "json_schema", "json_schema": {"name": "a secret"}}
            ),
            {"role=user", "response_format", "response_format=json_schema"},
        ),
        (asked(messages=said({"type": "text"}, {"type": "image_url"})), {"role=user", "images"}),
        (asked(messages=said(reasoning="Hm.", name="me")), {"role=user", "messages.reasoning"}),
        (asked("embeddings", input="Hello", dimensions=8), {"dimensions", "dimensions=8"}),
        (asked(messages="no list", response_format="json"), {"response_format", "response_format=json"}),
        (
            asked(messages=[None, {"role": ["user"]}], **{"Kein Name": 1, "temperature": "hot or cold"}),
            {"temperature"},
        ),
    ],
)
def test_the_features_of_a_request(request_: Request, features: set[str]) -> None:
    assert Used(request_).named == {MODEL, *features}


@pytest.mark.parametrize(
    ("feature", "within", "beyond"),
    [
        ("max_tokens>4096", {"max_tokens": 4096}, {"max_completion_tokens": 4097}),
        ("n>1", {"n": 1}, {"n": 2}),
        (
            "prompt_tokens>100",
            {"messages": [{"content": "four" * 120}]},
            {"messages": [{"content": "four" * 130}]},
        ),
    ],
)
def test_a_size_is_used_by_what_is_larger(
    feature: str, within: dict[str, Any], beyond: dict[str, Any]
) -> None:
    assert feature not in Used(asked(**within))
    assert feature in Used(asked(**beyond))


def test_a_feature_that_this_release_does_not_know_is_used_by_nobody() -> None:
    for feature in ("pictures>2", "max_tokens>many", "", "tools"):
        assert feature not in Used(asked(messages=said()))


def test_of_what_an_error_is_about_the_request_uses_some_with_its_own_values() -> None:
    told = {"temperature=", "top_p=", "tools", "max_tokens>4096", "model"}

    assert Used(asked(temperature=0.2, max_tokens=8192)).told(told) == [
        "max_tokens>4096",
        "model",
        "temperature=0.2",
    ]
    assert Used(asked(temperature=1.0)).told(told) == Used(asked(temperature=1)).told(told)
