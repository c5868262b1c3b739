import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from console.init import FREE_TIERS, fleet_text, known_providers
from console.main import app
from topology.fleet import Fleet
from topology.loading import load_fleet

SHELF = known_providers()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and an environment without keys."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    return tmp_path


def init(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, ["init", *arguments], env=environ)


def defaults(fleet: Fleet) -> dict[str, Any]:
    return fleet.model_dump(exclude={"providers"})


def test_the_providers_whose_key_is_in_the_environment_are_enabled(folder: Path) -> None:
    said = init(GROQ_API_KEY="sk-secret-groq", MISTRAL_API_KEY="sk-secret-mistral")

    text = (folder / "fleet.toml").read_text("utf-8")
    fleet = load_fleet(folder / "fleet.toml", {"GROQ_API_KEY": "a", "MISTRAL_API_KEY": "b"})
    assert said.exit_code == 0
    assert sorted(fleet.providers) == ["groq", "mistral"]
    assert "sk-secret" not in text + said.output
    assert said.stderr.splitlines()[-1] == "next: optimizer up"


def test_the_catalogues_limits_are_shown_with_source_and_date(folder: Path) -> None:
    init(OPENROUTER_API_KEY="sk-1")

    text = (folder / "fleet.toml").read_text("utf-8")
    assert "# each account: 20 requests a minute, 50 requests a day\n" in text
    assert "# Read at https://openrouter.ai/docs/api/reference/limits, 2026-10-17\n" in text


def test_the_limits_shown_are_those_that_hold(folder: Path) -> None:
    init(GROQ_API_KEY="sk-1")

    provider = load_fleet(folder / "fleet.toml", {"GROQ_API_KEY": "sk-1"}).providers["groq"]
    assert [model.limits for model in provider.models] == [model.limits for model in SHELF["groq"].models]


@pytest.mark.parametrize("name", SHELF)
def test_every_provider_of_the_catalogue_can_be_named(name: str, folder: Path) -> None:
    said = init("--provider", name)

    fleet = load_fleet(folder / "fleet.toml", {}, secrets=False)
    assert said.exit_code == 0
    assert list(fleet.providers) == [name]
    assert fleet.providers[name].keyless or fleet.providers[name].api_keys
    assert defaults(fleet) == defaults(Fleet())  # the file says what would hold without it


def test_what_is_named_counts_and_not_the_environment(folder: Path) -> None:
    said = init("--provider", "openai", "--provider", "ollama", GROQ_API_KEY="sk-1")

    assert list(load_fleet(folder / "fleet.toml", {}, secrets=False).providers) == ["openai", "ollama"]
    assert said.stderr.splitlines()[1:] == ["first: export OPENAI_API_KEY=...", "next: optimizer up"]


def test_without_any_key_three_free_ones_are_there_as_comments(folder: Path) -> None:
    said = init()

    text = (folder / "fleet.toml").read_text("utf-8")
    assert load_fleet(folder / "fleet.toml", {}).providers == {}
    for name in FREE_TIERS:
        assert f"# [providers.{name}]" in text
        assert f"export {SHELF[name].key_env}=..." in text
    assert "optimizer up --simulate" in said.stderr


@pytest.mark.parametrize("name", FREE_TIERS)
def test_a_comment_that_is_taken_away_enables_its_provider(name: str) -> None:
    text = fleet_text(SHELF, ())
    for line in (f"# [providers.{name}]", f'# api_keys = ["env:{SHELF[name].key_env}"]'):
        assert line in text
        text = text.replace(line, line.removeprefix("# "))

    assert list(tomllib.loads(text)["providers"]) == [name]


def test_a_file_that_is_there_is_never_overwritten_unless_told_so(folder: Path) -> None:
    (folder / "fleet.toml").write_text("# mine\n", "utf-8")

    refused = init("--provider", "groq")
    kept = (folder / "fleet.toml").read_text("utf-8")
    forced = init("--provider", "groq", "--force")

    assert (refused.exit_code, kept) == (1, "# mine\n")
    assert "--force" in refused.stderr
    assert forced.exit_code == 0
    assert list(load_fleet(folder / "fleet.toml", {}, secrets=False).providers) == ["groq"]


def test_another_file_is_named_in_the_next_command() -> None:
    said = init("-o", "staging.toml", GROQ_API_KEY="sk-1")

    assert said.stderr.splitlines() == ["written: staging.toml", "next: optimizer up --config staging.toml"]


def test_an_unknown_provider_is_told_which_there_are(folder: Path) -> None:
    said = init("--provider", "gorq")

    assert said.exit_code == 1
    assert "gorq" in said.stderr
    assert "groq" in said.stderr
    assert not (folder / "fleet.toml").exists()


def test_a_folder_that_is_not_there_is_an_error_for_people() -> None:
    said = init("-o", "nowhere/fleet.toml", "--provider", "groq")

    assert said.exit_code == 1
    assert "nowhere/fleet.toml cannot be written: No such file or directory" in said.stderr
