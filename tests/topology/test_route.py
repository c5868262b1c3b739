from typing import Any

import pytest

from topology.errors import ErrorType, Refused
from topology.fleet import Fleet
from topology.messages import Request
from topology.route import static_route


def model(name: str, price: float | None = None, **changes: Any) -> dict[str, Any]:
    return {"id": name, "input_usd_per_mtok": price, "output_usd_per_mtok": price, **changes}


TABLE: dict[str, Any] = {
    "dear": {
        "base_url": "https://dear.example/v1",
        "models": [
            model("shared", 5.0, capabilities=["tools", "vision"]),
            model("coder", 4.0, tasks=["code"], capabilities=["tools"]),
            model("family/inner", 9.0, capabilities=["tools"]),
        ],
    },
    "cheap": {
        "base_url": "https://cheap.example/v1",
        "models": [
            model("shared", 1.0, capabilities=["tools"]),
            model("unpriced"),
            model("vectors", 0.1, tasks=["embedding"]),
        ],
    },
    "riddle": {"base_url": "https://riddle.example/v1", "models": [model("shared")]},
}
FLEET = Fleet.model_validate({"providers": TABLE})


def request(wanted: str, **changes: Any) -> Request:
    params = {"messages": [{"role": "user", "content": "Hello"}]}
    return Request.model_validate(
        {"id": "r1", "agent": "quality", "model": wanted, "params": params, **changes}
    )


def route(wanted: str, **changes: Any) -> list[str]:
    return [f"{c.provider}/{c.model}" for c in static_route(FLEET, request(wanted, **changes))]


def refusal(wanted: str, fleet: Fleet = FLEET, **changes: Any) -> str:
    with pytest.raises(Refused) as refused:
        static_route(fleet, request(wanted, **changes))
    assert refused.value.type is ErrorType.NO_MODEL_AVAILABLE
    return refused.value.message


def test_a_provider_with_a_model_is_that_one() -> None:
    assert route("dear/shared") == ["dear/shared"]


def test_a_models_own_name_may_hold_a_slash() -> None:
    assert route("dear/family/inner") == ["dear/family/inner"]
    assert route("family/inner") == ["dear/family/inner"]


def test_a_bare_model_is_everyone_who_has_it_cheapest_first_and_unknown_prices_last() -> None:
    assert route("shared") == ["cheap/shared", "dear/shared", "riddle/shared"]


def test_a_providers_name_alone_is_its_models_cheapest_first() -> None:
    assert route("dear") == ["dear/coder", "dear/shared", "dear/family/inner"]


def test_auto_is_every_model_that_chats_cheapest_first() -> None:
    assert route("auto") == [
        "cheap/shared",
        "dear/coder",
        "dear/shared",
        "dear/family/inner",
        "cheap/unpriced",
        "riddle/shared",
    ]


def test_auto_prefers_models_for_the_task_and_then_takes_any() -> None:
    found = route("auto", task="code")

    assert found[0] == "dear/coder"
    assert found[1:] == [
        "cheap/shared",
        "dear/shared",
        "dear/family/inner",
        "cheap/unpriced",
        "riddle/shared",
    ]


def test_a_task_does_not_change_what_a_named_model_means() -> None:
    assert route("shared", task="code") == route("shared")


def test_auto_embeds_with_embedding_models_alone() -> None:
    assert route("auto", operation="embeddings") == ["cheap/vectors"]


@pytest.mark.parametrize(
    ("constraints", "expected"),
    [
        ({"excluded_providers": ["cheap"]}, ["dear/shared", "riddle/shared"]),
        ({"required_capabilities": ["tools"]}, ["cheap/shared", "dear/shared"]),
        ({"required_capabilities": ["tools", "vision"]}, ["dear/shared"]),
        ({"max_cost_usd": 0.003}, ["cheap/shared"]),
        ({"max_cost_usd": 1.0}, ["cheap/shared", "dear/shared"]),
    ],
)
def test_constraints_are_kept(constraints: dict[str, Any], expected: list[str]) -> None:
    assert route("shared", constraints=constraints) == expected


def test_a_price_that_is_not_known_meets_no_cost_limit() -> None:
    assert "constraints: " in refusal("riddle/shared", constraints={"max_cost_usd": 100.0})


def test_an_unknown_model_is_named_with_what_there_is() -> None:
    text = refusal("nonesuch")

    assert "'nonesuch' is offered by no enabled provider" in text
    assert "cheap/shared" in text


def test_constraints_that_nothing_meets_are_told_apart_from_an_unknown_model() -> None:
    text = refusal("shared", constraints={"required_capabilities": ["telepathy"]})

    assert text.startswith("constraints: no model among those for 'shared' meets them all")


def test_a_fleet_without_providers_says_how_to_enable_one() -> None:
    text = refusal("auto", fleet=Fleet())

    assert "no provider is enabled" in text
    assert "GROQ_API_KEY" in text


def test_a_long_list_of_models_is_told_in_part() -> None:
    many = [model(f"m{n}") for n in range(50)]
    fleet = Fleet.model_validate({"providers": {"big": {"base_url": "http://b", "models": many}}})

    assert len(refusal("nonesuch", fleet)) < 300
    assert len(static_route(fleet, request("auto"))) == 8
