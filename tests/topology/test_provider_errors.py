"""Real error answers of all providers, labelled by what the providers document them to mean.

`data/provider_errors.json` holds them, one a line. Ids of organisations, projects, users and requests
are zeros there. `found` says when: the rules were written from the `first`, judged by the `later` and
the `last` as they stood, and only then mended.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from topology.providers import rules
from topology.providers.openai import read_answer
from topology.providers.outcomes import Failure, FailureKind, Scope

CATALOGUE = Path(rules.__file__).parent / "catalogue"
PROVIDERS = sorted(path.stem for path in CATALOGUE.glob("*.toml"))
ERRORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "provider_errors.json").read_text(encoding="utf-8")
)
MESSAGES = sorted({m for m in re.findall(r'"message": "((?:[^"\\]|\\.)*)"', json.dumps(ERRORS)) if m})
LONGEST_LITERAL = 50


def failure_in(entry: dict[str, Any], body: Any = None) -> Failure:
    body = entry["body"] if body is None else body
    content = body if isinstance(body, str) else json.dumps(body)
    answer = read_answer(
        "chat", entry["status"], entry["headers"], content.encode(), provider=entry["provider"]
    )
    assert isinstance(answer, Failure)
    return answer


def judged(failure: Failure) -> tuple[str, str, str, bool]:
    return failure.kind.value, failure.error_type.value, failure.scope.value, failure.is_fatal


def label(entry: dict[str, Any]) -> tuple[str, str, str, bool]:
    return entry["kind"], entry["error_type"], entry["scope"], entry["is_fatal"]


def is_right(entry: dict[str, Any]) -> bool:
    failure = failure_in(entry)
    return judged(failure) == label(entry) and failure.retry_after_s == pytest.approx(entry["retry_after_s"])


def test_at_least_95_in_100_labels_are_right() -> None:
    wrong = [entry for entry in ERRORS if not is_right(entry)]
    for entry in wrong:
        sys.stdout.write(f"{entry['provider']} {entry['source']} is {failure_in(entry)}\n")

    assert len(wrong) <= 0.05 * len(ERRORS)


def test_no_fatal_error_is_taken_for_one_that_passes_nor_the_other_way_round() -> None:
    confused = [entry["source"] for entry in ERRORS if failure_in(entry).is_fatal != entry["is_fatal"]]

    assert confused == []


def test_every_provider_of_the_catalogue_is_there() -> None:
    assert sorted({entry["provider"] for entry in ERRORS}) == PROVIDERS
    assert len(ERRORS) >= 80


def test_every_entry_says_where_it_was_seen() -> None:
    source = re.compile(r"https://\S+|[\w.-]+/[\w.-]+ \S+")

    assert [entry for entry in ERRORS if not source.fullmatch(entry["source"])] == []
    assert {entry["found"] for entry in ERRORS} == {"first", "later", "last"}


def test_no_label_contradicts_itself() -> None:
    for entry in ERRORS:
        FailureKind(entry["kind"])
        Scope(entry["scope"])
        assert not (entry["is_fatal"] and entry["retry_after_s"]), entry["source"]


def test_who_learns_the_messages_by_heart_is_found_out() -> None:
    """Other models, limits and ids, and a sentence more, mean the same."""
    for entry in ERRORS:
        text = json.dumps(entry["body"])
        other = re.sub(r"\b[1-9]\d{2,}\b(?!s)", lambda found: "7" * len(found[0]), text)
        other = re.sub(r'("message": "(?:[^"\\]|\\.)*)"', r'\1 See our documentation."', other)
        body = json.loads(other)
        error = body[0] if isinstance(body, list) else body
        if isinstance(error, dict) and isinstance(error.get("error"), dict) and "code" in error["error"]:
            inner = entry["body"][0] if isinstance(entry["body"], list) else entry["body"]
            error["error"]["code"] = inner["error"]["code"]

        assert judged(failure_in(entry, body)) == judged(failure_in(entry)), entry["source"]


def test_rules_know_phrases_and_no_whole_messages() -> None:
    every = [*rules.COMMON_RULES, *(rule for table in rules.PROVIDER_RULES.values() for rule in table)]
    for rule in every:
        for pattern in (rule.opening, rule.phrase):
            literals = re.split(r"[\\|()\[\]{}.?*+^$]", pattern.pattern if pattern else "")
            assert all(len(literal) <= LONGEST_LITERAL for literal in literals), literals


def test_each_table_belongs_to_a_provider_of_the_catalogue() -> None:
    assert set(rules.PROVIDER_RULES) <= set(PROVIDERS)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_quotes_another_error_punishes_nobody(provider: str, status: int) -> None:
    for message in MESSAGES:
        quoting = {"error": {"message": f"Invalid value: {message}", "type": "invalid_request_error"}}
        entry = {"provider": provider, "status": status, "headers": {}, "body": quoting}

        assert failure_in(entry).kind is FailureKind.REQUEST_AT_FAULT, message
