from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology import loading
from topology.fleet import Fleet, Provider
from topology.loading import ConfigurationError, load_fleet

SECRET = "gsk_0123456789abcdef"
GROQ = '[providers.groq]\napi_keys = ["env:GROQ_API_KEY"]\n'
OWN = '[providers.own]\nbase_url = "http://localhost/v1"\nkeyless = true\n'


def load(tmp_path: Path, text: str, **environ: str) -> Fleet:
    path = tmp_path / "fleet.toml"
    path.write_text(text, "utf-8")
    return load_fleet(path, environ)


def groq(tmp_path: Path, own: str = "", **environ: str) -> Provider:
    return load(tmp_path, GROQ + own, GROQ_API_KEY=SECRET, **environ).providers["groq"]


def refusal(tmp_path: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, text, **environ)
    return str(refused.value)


def test_without_a_file_a_provider_is_enabled_by_its_key_in_the_environment() -> None:
    assert list(load_fleet(None, {"GROQ_API_KEY": SECRET}).providers) == ["groq"]
    assert load_fleet(None, {}).providers == {}
    assert load_fleet(None, {"GROQ_API_KEY": ""}).providers == {}


def test_with_a_file_only_the_providers_it_names_are_enabled(tmp_path: Path) -> None:
    fleet = load(tmp_path, OWN, GROQ_API_KEY=SECRET)

    assert list(fleet.providers) == ["own"]


def test_a_file_may_name_no_provider_at_all(tmp_path: Path) -> None:
    fleet = load(tmp_path, "[cache]\nttl_s = 5\n", GROQ_API_KEY=SECRET)

    assert (fleet.cache.ttl_s, fleet.providers) == (5, {})


def test_a_named_provider_inherits_its_catalogue_entry(tmp_path: Path) -> None:
    provider = groq(tmp_path, "concurrency = 3\n")

    assert provider.base_url == "https://api.groq.com/openai/v1"
    assert provider.concurrency == 3
    assert provider.models


def test_own_limits_replace_those_of_the_catalogue(tmp_path: Path) -> None:
    [known, *_] = groq(tmp_path).models
    assert known.limits

    table = f'[[providers.groq.models]]\nid = "{known.id}"\n'
    [inherited] = groq(tmp_path, table).models
    [replaced] = groq(tmp_path, table + "requests_per_minute = 7\n").models
    [unlimited] = groq(tmp_path, table + "limits = []\n").models

    assert inherited == known
    assert [(limit.requests, limit.window_s) for limit in replaced.limits] == [(7, 60)]
    assert replaced.context_tokens == known.context_tokens
    assert unlimited.limits == ()


def test_the_short_and_the_long_form_of_a_limit_stand_side_by_side(tmp_path: Path) -> None:
    provider = groq(
        tmp_path,
        'tokens_per_minute = 6000\nlimits = [{ requests = 20, window_s = 10, counting = "fixed" }]\n',
    )

    assert [(limit.name, limit.counting) for limit in provider.limits] == [
        ("tokens-60s", "sliding"),
        ("requests-10s", "fixed"),
    ]


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    text = refusal(tmp_path, OWN + "concurency = 3\n")

    assert "providers.own.concurency: unknown key; check its spelling" in text
    assert "fleet.toml" in text


def test_an_unknown_section_is_named(tmp_path: Path) -> None:
    assert "caches: unknown key" in refusal(tmp_path, "[caches]\nttl_s = 1\n")


def test_an_impossible_value_is_named(tmp_path: Path) -> None:
    assert "cache.ttl_s: Input should be greater" in refusal(tmp_path, "[cache]\nttl_s = -1\n")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = refusal(tmp_path, "[cache]\nttl_s = -1\n[fleet]\nmax_spends = 0\n")

    assert "cache.ttl_s" in text
    assert "fleet.max_spends" in text


def test_a_missing_secret_is_named_with_the_remedy(tmp_path: Path) -> None:
    text = refusal(tmp_path, GROQ)

    assert "providers.groq.api_keys: the environment has no GROQ_API_KEY; set it" in text


def test_a_missing_secret_of_an_account_names_the_account(tmp_path: Path) -> None:
    text = refusal(tmp_path, OWN + '[[providers.own.accounts]]\nname = "main"\napi_keys = ["env:GONE"]\n')

    assert "providers.own.api_keys (main): the environment has no GONE" in text


def test_a_provider_without_any_key_is_told_how_to_give_one(tmp_path: Path) -> None:
    text = refusal(tmp_path, '[providers.own]\nbase_url = "https://own.example/v1"\n')

    assert 'api_keys = ["env:NAME"]' in text
    assert "keyless = true" in text


def test_a_provider_of_the_catalogue_takes_its_usual_key_when_it_names_none(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text("[providers.groq]\n", "utf-8")

    fleet = load_fleet(path, {"GROQ_API_KEY": "sk-usual"})

    assert fleet.providers["groq"].api_keys[0].origin == "env:GROQ_API_KEY"


def test_secrets_are_left_alone_where_nobody_calls_providers(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(GROQ, "utf-8")

    [key] = load_fleet(path, {}, secrets=False).providers["groq"].api_keys

    assert (key.origin, key.secret) == ("env:GROQ_API_KEY", None)


def test_a_worker_needs_the_keys_of_the_providers_it_calls_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(GROQ + "[providers.openrouter]\n", "utf-8")

    fleet = load_fleet(path, {"GROQ_API_KEY": SECRET}, secrets={"groq"})

    assert [key.secret is None for p in fleet.providers.values() for key in p.api_keys] == [False, True]


@pytest.mark.parametrize(
    "table",
    [
        f'[providers.groq]\napi_keys = ["{SECRET}"]\n',
        f'[providers.groq]\napi_keys = "{SECRET}"\n',
        f'[[providers.groq.accounts]]\nname = "a"\napi_keys = ["{SECRET}"]\n',
    ],
)
def test_a_key_in_the_file_is_refused_without_repeating_it(tmp_path: Path, table: str) -> None:
    text = refusal(tmp_path, table)

    assert "api_keys" in text
    assert SECRET not in text


def test_a_key_in_the_environment_is_masked_wherever_it_is_printed(tmp_path: Path) -> None:
    provider = groq(tmp_path)

    [key] = provider.api_keys
    assert key.secret is not None
    assert key.secret.get_secret_value() == SECRET
    assert SECRET not in f"{provider!r} {provider} {provider.model_dump_json()}"


def test_a_key_is_read_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n", "utf-8")

    fleet = load(tmp_path, f'{OWN}api_keys = ["file:{tmp_path / "key"}"]\n')

    [key] = fleet.providers["own"].api_keys
    assert key.secret is not None
    assert key.secret.get_secret_value() == SECRET


@pytest.mark.parametrize(("content", "complaint"), [(None, "cannot be read"), (" \n", "is empty")])
def test_a_key_file_of_no_use_is_named(tmp_path: Path, content: str | None, complaint: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content, "utf-8")

    assert f"{path} {complaint}" in refusal(tmp_path, f'{OWN}api_keys = ["file:{path}"]\n')


def test_the_environment_overrides_single_values(tmp_path: Path) -> None:
    fleet = load(
        tmp_path,
        f"[cache]\nttl_s = 5\n{OWN}",
        OPTIMIZER_CACHE__TTL_S="30",
        OPTIMIZER_FLEET__MAX_SPENDS="4",
        OPTIMIZER_PROVIDERS__OWN__BASE_URL="http://elsewhere/v1",
        OPTIMIZER_PROVIDERS__OWN__CONCURRENCY="2",
    )

    assert (fleet.cache.ttl_s, fleet.fleet.max_spends) == (30, 4)
    assert fleet.providers["own"].base_url == "http://elsewhere/v1"
    assert fleet.providers["own"].concurrency == 2


def test_an_overriding_variable_is_validated_like_the_file(tmp_path: Path) -> None:
    assert "fleet.max_spend: unknown key" in refusal(tmp_path, "", OPTIMIZER_FLEET__MAX_SPEND="4")
    assert "fleet.max_spends" in refusal(tmp_path, "", OPTIMIZER_FLEET__MAX_SPENDS="many")


def test_a_variable_that_reaches_into_a_value_is_named(tmp_path: Path) -> None:
    text = refusal(tmp_path, "[cache]\nttl_s = 5\n", OPTIMIZER_CACHE__TTL_S__DAYS="1")

    assert "OPTIMIZER_CACHE__TTL_S__DAYS" in text


def test_other_variables_of_ours_are_no_configuration(tmp_path: Path) -> None:
    assert load(tmp_path, "", OPTIMIZER_AMQP_URL="amqp://x", OPTIMIZER_LOG__LEVEL="debug") == Fleet()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.toml: no such file"):
        load_fleet(tmp_path / "nothing.toml", {})


def test_a_file_that_is_no_toml_is_named_with_the_place(tmp_path: Path) -> None:
    assert "not valid TOML" in refusal(tmp_path, "[fleet\n")
    assert "line 2" in refusal(tmp_path, "[fleet]\nmax_spends = \n")


KEYS = ["id", "name", "api_keys", "accounts", "account", "limits", "models", "requests_per_day"]

misfits = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
tables = st.one_of(
    misfits.map(lambda value: {"providers": value}),
    misfits.map(lambda value: {"cache": {"ttl_s": value}}),
    misfits.map(lambda value: {"fleet": value}),
    st.dictionaries(st.sampled_from(KEYS), misfits, max_size=4).map(
        lambda table: {"providers": {"groq": table}}
    ),
)


@given(tables)
def test_whatever_is_written_there_the_answer_is_a_fleet_or_a_clear_error(table: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_read", lambda _: table)
        try:
            load_fleet(Path("fleet.toml"), {})
        except ConfigurationError as error:
            assert any(word in str(error) for word in (*table, "groq"))
