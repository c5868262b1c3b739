"""What a call costs: by the file, else genai-prices, else the catalogue; what nobody knows is not zero."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from topology.fleet import Fleet, Model, Provider
from topology.loading import load_fleet
from topology.providers import openai
from topology.providers.outcomes import Completion
from workers.prices import Prices, with_known_prices

ROOT = Path(__file__).parents[1]
ENVIRON = {"OPENAI_API_KEY": "a", "DEEPINFRA_API_KEY": "a", "OPENROUTER_API_KEY": "a", "XAI_API_KEY": "a"}
OPENAI = "https://api.openai.com/v1"


def answer(prompt_tokens: int | None, completion_tokens: int, **more: Any) -> Completion:
    counts = {} if prompt_tokens is None else {"prompt_tokens": prompt_tokens}
    usage = {**counts, "completion_tokens": completion_tokens, **more.pop("usage", {})}
    choices = [{"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}]
    body = json.dumps({"choices": choices, "usage": usage, **more}).encode()
    read = openai.read_answer("chat", 200, {}, body)
    assert isinstance(read, Completion)
    return read


def fleet(tmp_path: Path, text: str) -> Fleet:
    path = tmp_path / "fleet.toml"
    path.write_text(text, "utf-8")
    return load_fleet(path, ENVIRON)


def cost(provider: Provider, model: str, completion: Completion) -> float | None:
    found = provider.model(model)
    assert found is not None
    return Prices(provider).cost_usd(found, completion)


def at(base_url: str, *models: Model, any_model: bool = False) -> Provider:
    return Provider(name="one", base_url=base_url, keyless=True, models=models, any_model=any_model)


def test_cached_tokens_cost_what_genai_prices_says_although_the_catalogue_has_one_price(
    tmp_path: Path,
) -> None:
    provider = fleet(tmp_path, "[providers.openai]").providers["openai"]
    cached = answer(1000, 100, usage={"prompt_tokens_details": {"cached_tokens": 600}})

    assert cost(provider, "gpt-5.4-mini", answer(1000, 100)) == pytest.approx(0.00075 + 0.00045)
    assert cost(provider, "gpt-5.4-mini", cached) == pytest.approx(0.0003 + 0.000045 + 0.00045)


def test_long_prompts_and_service_tiers_cost_what_they_cost(tmp_path: Path) -> None:
    provider = fleet(tmp_path, "[providers.openai]").providers["openai"]

    short, long = (cost(provider, "gpt-5.5", answer(n, 0)) for n in (200_000, 400_000))
    assert short is not None
    assert long is not None
    assert long > 2 * short
    flex = answer(1000, 100, service_tier="flex")
    assert cost(provider, "gpt-5.4-mini", flex) == pytest.approx((0.00075 + 0.00045) / 2)


def test_what_a_provider_counts_apart_is_read_in_its_way(tmp_path: Path) -> None:
    provider = fleet(tmp_path, "[providers.xai]").providers["xai"]
    reasoned = answer(1000, 100, usage={"completion_tokens_details": {"reasoning_tokens": 400}})

    assert cost(provider, "grok-4.7", reasoned) == pytest.approx((1000 * 2.0 + 500 * 6.0) / 1e6)


def test_a_price_in_the_file_is_what_is_charged(tmp_path: Path) -> None:
    text = """
    [providers.openai]
    models = [
      {id = "gpt-5.4-mini", input_usd_per_mtok = 1.0, output_usd_per_mtok = 1.0},
      {id = "gpt-5.4-nano", input_usd_per_mtok = 1.0, output_usd_per_mtok = 1.0, fallback_price = true},
      {id = "gpt-5.5", fallback_price = false},
    ]
    """
    provider = fleet(tmp_path, text).providers["openai"]
    cached = answer(1000, 100, usage={"prompt_tokens_details": {"cached_tokens": 1000}})

    assert cost(provider, "gpt-5.4-mini", cached) == pytest.approx(0.0011)
    assert cost(provider, "gpt-5.4-nano", cached) == pytest.approx((0.02 * 1000 + 1.25 * 100) / 1e6)
    assert cost(provider, "gpt-5.5", cached) == pytest.approx((5.0 * 1000 + 30.0 * 100) / 1e6)


def test_what_genai_prices_does_not_know_costs_what_the_catalogue_says(tmp_path: Path) -> None:
    known = fleet(tmp_path, "[providers.deepinfra]\n[providers.openrouter]").providers

    assert cost(known["deepinfra"], "openai/gpt-oss-20b", answer(1000, 100)) == pytest.approx(0.000044)
    assert cost(known["openrouter"], "openrouter/free", answer(1000, 100)) == 0.0


def test_what_nobody_knows_is_not_known() -> None:
    unlisted = at(OPENAI, any_model=True)
    elsewhere = at("http://127.0.0.1:8000/v1", Model(id="gpt-5.5"))
    nameless = at("https://openrouter.ai/api/v1", any_model=True)

    assert cost(unlisted, "gpt-9000", answer(1000, 100)) is None
    assert cost(elsewhere, "gpt-5.5", answer(1000, 100)) is None
    assert cost(unlisted, "gpt-5.5", answer(None, 100)) is None
    assert cost(nameless, "openai/gpt-9000", answer(1000, 100)) is None


def test_a_price_that_genai_prices_has_only_half_of_is_not_known() -> None:
    """It counts what has no price as free, as that of OpenRouter's free models."""
    provider = at("https://openrouter.ai/api/v1", any_model=True)

    assert cost(provider, "google/gemma-4-31b-it:free", answer(1000, 100)) is None


def test_counts_that_contradict_each_other_cost_what_the_plain_ones_do(tmp_path: Path) -> None:
    provider = fleet(tmp_path, "[providers.openai]").providers["openai"]
    odd = answer(1000, 100, usage={"prompt_tokens_details": {"cached_tokens": 5000}})

    assert cost(provider, "gpt-5.4-mini", odd) == cost(provider, "gpt-5.4-mini", answer(1000, 100))


def test_a_model_without_a_price_gets_the_known_one_for_routes_and_limits(tmp_path: Path) -> None:
    text = """
    [providers.openai]
    models = [{id = "gpt-4o"}, {id = "gpt-9000"}, {id = "text-embedding-ada-002", tasks = ["embedding"]}]
    """
    models = with_known_prices(fleet(tmp_path, text)).providers["openai"].models

    assert [(m.input_usd_per_mtok, m.output_usd_per_mtok) for m in models] == [
        (2.5, 10.0),
        (None, None),
        (0.1, 0.0),
    ]
    assert [m.fallback_price for m in models] == [True, False, True]


def test_prices_cost_an_agent_no_library() -> None:
    """Nor a command that prices nothing."""
    for module in ("producer_sdk", "topology.route", "console.main"):
        code = f"import sys, {module}; sys.exit('genai_prices' in sys.modules)"
        ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
        assert ended.returncode == 0, module
