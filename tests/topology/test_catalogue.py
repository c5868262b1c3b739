import re
import tomllib
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from topology.fleet import Model, Provider
from topology.limits import Limit
from topology.loading import ConfigurationError, catalogue, load_fleet

PROVIDERS = (
    "anthropic",
    "cerebras",
    "deepinfra",
    "deepseek",
    "gemini",
    "groq",
    "mistral",
    "moonshot",
    "ollama",
    "openai",
    "openrouter",
    "together",
    "vllm",
    "xai",
)
LOCAL = {"ollama", "vllm"}
TASKS = {"general", "code", "reasoning", "long_form", "embedding"}
CAPABILITIES = {"tools", "json", "vision", "reasoning"}
FOLDER = Path(__file__).parents[2] / "topology" / "providers" / "catalogue"
SHELF = catalogue()


def load(name: str, tmp_path: Path, own: str = "") -> Provider:
    """The provider as a `fleet.toml` that only names it (and says `own`) gets it."""
    key_env = SHELF[name].get("key_env")
    keys = f'api_keys = ["env:{key_env}"]\n' if key_env else ""
    path = tmp_path / "fleet.toml"
    path.write_text(f"[providers.{name}]\n{keys}{own}", "utf-8")
    fleet = load_fleet(path, {key_env: "a-key"} if key_env else {})
    assert list(fleet.providers) == [name]
    return fleet.providers[name]


def limits_of(provider: Provider) -> list[Limit]:
    models = [limit for model in provider.models for limit in model.limits]
    return [*provider.limits, *provider.account.limits, *models]


def is_free(model: Model) -> bool:
    """Documented as costing nothing, as opposed to a price that is not known."""
    return model.id == "openrouter/free" or model.id.endswith(":free")


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Provider:
    return load(request.param, tmp_path)


def test_the_catalogue_holds_these_providers() -> None:
    assert set(SHELF) == set(PROVIDERS)


def test_it_loads_from_a_file_that_names_it(provider: Provider) -> None:
    entry = SHELF[provider.name]
    assert provider.title == entry["title"]
    assert provider.base_url == entry["base_url"]
    assert [model.id for model in provider.models] == [m["id"] for m in entry.get("models", ())]
    assert provider.quota_owners or provider.keyless


def test_it_says_where_it_was_read(provider: Provider) -> None:
    assert provider.source
    assert provider.as_of
    assert date.fromisoformat(provider.as_of)
    assert provider.docs_url
    assert urlsplit(provider.docs_url).scheme == "https"


def test_its_address_is_https_unless_local(provider: Provider) -> None:
    address = urlsplit(provider.base_url)
    if provider.name in LOCAL:
        assert address.hostname == "localhost"
    else:
        assert address.scheme == "https"
    assert not provider.base_url.endswith("/")


def test_it_needs_a_key_or_says_that_it_does_not(provider: Provider) -> None:
    assert provider.keyless == (provider.name in LOCAL)
    assert (provider.key_env is None) == provider.keyless
    assert provider.keyless or provider.terms


def test_every_limit_has_a_source_and_a_date(provider: Provider) -> None:
    for limit in limits_of(provider):
        assert limit.source
        assert limit.source.startswith("https://")
        assert limit.as_of
        assert date.fromisoformat(limit.as_of)


def test_limits_of_one_scope_differ_by_name(provider: Provider) -> None:
    for scope in (provider, provider.account, *provider.models):
        names = [limit.name for limit in scope.limits]
        assert len(names) == len(set(names))


def test_models_are_described_in_known_words(provider: Provider) -> None:
    for model in provider.models:
        assert model.tasks
        assert set(model.tasks) <= TASKS
        assert set(model.capabilities) <= CAPABILITIES
        assert "embedding" not in model.tasks or model.tasks == ("embedding",)
        assert model.source is None or date.fromisoformat(model.as_of or "")


def test_ids_are_unique_and_lanes_do_not_collide(provider: Provider) -> None:
    ids = [model.id for model in provider.models]
    assert len(ids) == len(set(ids))
    own_lanes = [model.lane for model in provider.models if model.limits or model.concurrency]
    assert len(own_lanes) == len(set(own_lanes))


def test_an_answer_fits_into_the_context(provider: Provider) -> None:
    for model in provider.models:
        if model.context_tokens and model.max_output_tokens:
            assert model.max_output_tokens <= model.context_tokens


def test_an_unknown_price_is_absent_and_never_zero(provider: Provider) -> None:
    for model in provider.models:
        prices = (model.input_usd_per_mtok, model.output_usd_per_mtok)
        assert (prices[0] is None) == (prices[1] is None), model.id
        if provider.name in LOCAL or is_free(model):
            assert prices == (0.0, 0.0), model.id
        elif prices[0] is not None:
            assert prices[0] > 0, model.id
            # Embeddings generate nothing, so nothing is paid for output; chat models always do.
            assert (prices[1] == 0) == (model.tasks == ("embedding",)), model.id


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name not in LOCAL])
def test_a_key_in_the_environment_is_enough(name: str) -> None:
    key_env = SHELF[name]["key_env"]
    fleet = load_fleet(None, {key_env: "a-key"})
    assert list(fleet.providers) == [name]
    (owner,) = fleet.providers[name].quota_owners
    (key,) = owner.api_keys
    assert key.origin == f"env:{key_env}"
    assert key.secret is not None
    assert key.secret.get_secret_value() == "a-key"
    assert owner.limits == fleet.providers[name].account.limits


def test_no_two_providers_read_the_same_variable() -> None:
    variables = sorted(entry["key_env"] for entry in SHELF.values() if "key_env" in entry)
    assert all(one != other for one, other in pairwise(variables))


def test_an_empty_environment_enables_none() -> None:
    assert load_fleet(None, {}).providers == {}


def test_a_named_provider_without_its_key_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text("[providers.groq]\n", "utf-8")
    with pytest.raises(ConfigurationError, match="GROQ_API_KEY"):
        load_fleet(path, {})


def priced_models() -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, model)
        for name, entry in SHELF.items()
        for model in entry.get("models", ())
        if "input_usd_per_mtok" in model
    ]


@pytest.mark.parametrize(
    ("name", "known"),
    priced_models(),
    ids=lambda value: value if isinstance(value, str) else value["id"],
)
def test_a_model_listed_by_its_id_inherits_its_price(
    name: str, known: dict[str, Any], tmp_path: Path
) -> None:
    provider = load(name, tmp_path, f'[[providers.{name}.models]]\nid = "{known["id"]}"\n')
    (model,) = provider.models
    assert model.input_usd_per_mtok == known["input_usd_per_mtok"]
    assert model.output_usd_per_mtok == known["output_usd_per_mtok"]
    assert len(model.limits) == len(known.get("limits", ()))


def test_what_a_file_says_of_a_model_wins(tmp_path: Path) -> None:
    listed = """
        [[providers.groq.models]]
        id = "openai/gpt-oss-120b"
        input_usd_per_mtok = 1.5
        limits = []
    """
    (model,) = load("groq", tmp_path, listed).models
    assert model.input_usd_per_mtok == 1.5
    assert model.output_usd_per_mtok == 0.6
    assert model.limits == ()


def test_free_openrouter_quota_belongs_to_the_account(tmp_path: Path) -> None:
    provider = load("openrouter", tmp_path)
    (owner,) = provider.quota_owners
    assert {limit.name: limit.amount for limit in owner.limits} == {
        "requests-60s": 20,
        "requests-86400s": 50,
    }
    assert provider.model("some/other-model") is not None


@pytest.mark.parametrize("name", PROVIDERS)
def test_its_file_is_short_and_introduces_itself(name: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text("utf-8")
    lines = text.splitlines()
    introduction = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    assert 1 <= introduction <= 3
    assert len(lines) < 150
    assert text.endswith("\n")
    assert not re.search(r"(?i)\bTODO\b|api[_-]key\s*=", text)
    assert "name" not in tomllib.loads(text)
