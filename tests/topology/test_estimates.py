import math
import random
from typing import Any

import pytest

from topology.estimates import AnswerLengths, cost_usd, estimated_cost_usd, estimated_tokens
from topology.fleet import Model
from topology.messages import Request


def request(params: dict[str, Any], operation: str = "chat") -> Request:
    return Request.model_validate(
        {"id": "r", "agent": "a", "model": "auto", "deadline": 1.0, "operation": operation, "params": params}
    )


@pytest.mark.parametrize(
    ("params", "answer"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 9, "max_tokens": 7}, 9),
        ({}, 1024),
        ({"max_tokens": "many"}, 1024),
        ({"max_tokens": -1}, 1024),
    ],
)
def test_the_answers_tokens_are_those_that_the_request_allows(params: dict[str, Any], answer: int) -> None:
    assert estimated_tokens(request(params))[1] == answer


def test_longer_prompts_are_expected_to_take_more_tokens() -> None:
    short, long = (estimated_tokens(request({"messages": [{"content": "word " * n}]}))[0] for n in (10, 1000))
    assert 0 < short < long
    assert long == pytest.approx(1250, rel=0.1)


def test_embeddings_generate_no_tokens() -> None:
    assert estimated_tokens(request({"input": "x"}, operation="embeddings"))[1] == 0


def test_a_cost_is_prompt_and_answer_at_their_own_prices() -> None:
    priced = Model(id="m", input_usd_per_mtok=2, output_usd_per_mtok=10)

    assert cost_usd(priced, 1_000_000, 500_000) == pytest.approx(7.0)
    assert math.isclose(cost_usd(priced, 0, 0) or 0.0, 0.0)


def test_a_cost_without_price_or_tokens_is_not_known() -> None:
    assert cost_usd(Model(id="m"), 1, 1) is None
    assert cost_usd(Model(id="m", input_usd_per_mtok=1, output_usd_per_mtok=1), None, 1) is None
    assert cost_usd(Model(id="m", input_usd_per_mtok=1, output_usd_per_mtok=1), 1, None) is None


def test_only_what_a_model_reads_counts() -> None:
    plain = [{"role": "user", "content": "word " * 40}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "word " * 40}]}]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}

    assert estimated_tokens(request({"messages": plain}))[0] == pytest.approx(55, abs=2)
    assert estimated_tokens(request({"messages": parts}))[0] == pytest.approx(55, abs=3)
    with_picture = [{"role": "user", "content": [*parts[0]["content"], picture]}]
    assert estimated_tokens(request({"messages": with_picture}))[0] < 70


def test_text_of_many_bytes_takes_more_tokens_than_it_has_letters_by_four() -> None:
    latin, chinese = (
        estimated_tokens(request({"messages": [{"role": "user", "content": letter * 400}]}))[0]
        for letter in ("a", "\u6f22")
    )

    assert chinese >= 2.5 * latin


def test_answers_without_a_bound_are_expected_to_be_as_those_before() -> None:
    draws, lengths = random.Random(1), AnswerLengths()
    assert lengths.expected("m") == 1024

    for _ in range(200):
        lengths.learn("m", round(draws.gauss(300, 30)))

    assert 320 < lengths.expected("m") < 420
    assert lengths.expected("another") == 1024
    for _ in range(40):
        lengths.learn("m", 2000)
    assert lengths.expected("m") >= 1900


def test_a_few_answers_are_no_evidence() -> None:
    lengths = AnswerLengths()
    for _ in range(4):
        lengths.learn("m", 3)

    assert lengths.expected("m") == 1024


def test_what_was_learned_stands_in_for_a_bound_only_where_there_is_none() -> None:
    priced = Model(id="m", input_usd_per_mtok=0, output_usd_per_mtok=1e6)

    assert estimated_cost_usd(priced, request({}), 50) == pytest.approx(50)
    assert estimated_cost_usd(priced, request({"max_tokens": 7}), 50) == pytest.approx(7)


def test_what_others_have_seen_counts_like_ones_own() -> None:
    own, other, heard = AnswerLengths(), AnswerLengths(), AnswerLengths()
    for tokens in (100, 110, 90, 120, 80):
        own.learn("m", tokens)
        other.learn("m", 10 * tokens)
    own.learn("mine", 7)
    alone = own.expected("m")

    heard.hear([own.told()])
    own.hear([other.told()])

    assert heard.expected("m") == pytest.approx(alone, abs=1)
    assert heard.expected("mine") == 1024, "one answer is no evidence, whoever saw it"
    mean, deviation = 550, 450 * math.sqrt(1 + (10**2 + 1) / 2 * 200 / 450**2)
    assert own.expected("m") == pytest.approx(mean + 2 * deviation, rel=0.01)


def test_what_others_have_seen_is_as_they_say_now() -> None:
    lengths = AnswerLengths()
    lengths.hear([{"m": (9, 50.0, 0.0)}, {"m": (9, 50.0, 0.0)}])
    assert lengths.expected("m") == 50

    lengths.hear([])

    assert lengths.expected("m") == 1024
