from typing import Any

import pytest
from pydantic import ValidationError

from topology.fleet import Fleet, Model, Provider
from topology.limits import Limit

URL = "https://api.example.com/v1"


def provider(**changes: Any) -> Provider:
    return Provider.model_validate({"name": "groq", "base_url": URL, **changes})


def test_without_a_word_a_fleet_has_the_documented_defaults() -> None:
    fleet = Fleet()

    assert (fleet.fleet.timeout_s, fleet.fleet.max_spends) == (600, 2)
    assert (fleet.cache.ttl_s, fleet.cache.dedupe_window_s) == (600, 5)
    assert (fleet.priorities.high, fleet.priorities.normal, fleet.priorities.batch) == (8, 3, 1)
    assert fleet.providers == {}


def test_a_provider_is_named_by_its_table() -> None:
    fleet = Fleet.model_validate({"providers": {"groq": {"base_url": URL}}})

    assert fleet.providers["groq"].name == "groq"


def test_no_two_keys_make_one_account_however_much_their_origins_are_alike() -> None:
    folder = "file:/var/lib/the-optimizer-of-the-whole-fleet/secrets/of/this/one/provider"
    owners = provider(api_keys=["env:KEY", "env:key", f"{folder}/a", f"{folder}/b"]).quota_owners

    assert len({account.name for account in owners}) == 4
    assert max(len(account.name) for account in owners) <= 64


def test_each_key_without_an_account_is_an_account_of_its_own() -> None:
    owners = provider(
        api_keys=["env:KEY_A", "file:/run/secrets/key.b"],
        account={"requests_per_minute": 5, "concurrency": 2},
    ).quota_owners

    assert [a.name for a in owners] == ["env-key_a", "file-run-secrets-key-b"]
    assert [[k.origin for k in a.api_keys] for a in owners] == [["env:KEY_A"], ["file:/run/secrets/key.b"]]
    assert {a.limits for a in owners} == {(Limit(requests=5, window_s=60),)}
    assert {a.concurrency for a in owners} == {2}


def test_keys_that_share_a_quota_form_one_account_with_its_own_limits() -> None:
    listed = provider(
        account={"requests_per_minute": 5},
        accounts=[
            {"name": "main", "api_keys": ["env:A", "env:B"], "requests_per_day": 50},
            {"name": "spare", "api_keys": ["env:C"]},
        ],
    ).quota_owners

    main, spare = listed
    assert [k.origin for k in main.api_keys] == ["env:A", "env:B"]
    assert [limit.name for limit in main.limits] == ["requests-86400s"]
    assert [limit.name for limit in spare.limits] == ["requests-60s"]


def test_a_model_with_limits_of_its_own_has_a_lane_of_its_own() -> None:
    lanes = provider(
        models=[
            {"id": "plain"},
            {"id": "big/model:free", "requests_per_day": 50},
            {"id": "narrow", "concurrency": 1},
        ]
    ).lanes

    assert lanes == ("any", "big-model-free", "narrow")


def test_a_provider_without_special_models_has_the_lane_any() -> None:
    assert provider().lanes == ("any",)


def test_a_price_weighs_three_prompt_tokens_to_one_generated() -> None:
    assert Model(id="m", input_usd_per_mtok=1, output_usd_per_mtok=5).price == 2
    assert Model(id="m", input_usd_per_mtok=0, output_usd_per_mtok=0).price == 0


@pytest.mark.parametrize("known", [{}, {"input_usd_per_mtok": 1}, {"output_usd_per_mtok": 1}])
def test_a_price_that_is_not_known_whole_is_none_and_never_zero(known: dict[str, float]) -> None:
    assert Model(id="m", **known).price is None


def test_only_a_provider_that_takes_any_model_has_one_that_is_not_listed() -> None:
    assert provider(models=[{"id": "m"}]).model("other") is None
    assert provider(any_model=True).model("other") == Model(id="other")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"models": [{"id": "m"}, {"id": "m"}]}, "models: m is listed twice"),
        (
            {"accounts": [{"name": "a", "api_keys": ["env:A"]}, {"name": "a", "api_keys": ["env:B"]}]},
            "accounts: a is listed twice",
        ),
        ({"base_url": "api.example.com"}, "base_url"),
        ({"day_resets_at": "midnight"}, "day_resets_at"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"rotation": "random"}, "rotation"),
        ({"kind": "soap"}, "kind"),
        ({"name": "No Good"}, "name"),
        ({"accounts": [{"name": "a", "api_keys": []}]}, "api_keys"),
        ({"api_key": "env:A"}, "api_key"),
    ],
)
def test_an_impossible_provider_is_refused_by_its_key(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        provider(**changes)
