"""`optimizer keys add`: a key more in a file that people wrote."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from console.main import app
from topology.loading import load_fleet

FILE = """\
# Ours, and explained.
[providers.groq]  # the fast one
api_keys = ["env:GROQ_1"]  # Ada's
requests_per_minute = 30

[[providers.openrouter.accounts]]
name = "main"
api_keys = ["env:ROUTER_1"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(FILE, "utf-8")
    path.chmod(0o640)
    return path


def add(file: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["keys", "add", *words, "--config", str(file)])


def owners(file: Path, provider: str) -> dict[str, list[str]]:
    fleet = load_fleet(file, secrets=False)
    return {a.name: [k.origin for k in a.api_keys] for a in fleet.providers[provider].quota_owners}


def test_a_key_without_an_account_has_a_quota_of_its_own(file: Path) -> None:
    said = add(file, "groq", "env:GROQ_2")

    assert said.exit_code == 0, said.output
    assert "optimizer reload" in said.output
    assert list(owners(file, "groq").values()) == [["env:GROQ_1"], ["env:GROQ_2"]]


def test_the_file_keeps_what_people_wrote(file: Path) -> None:
    add(file, "groq", "env:GROQ_2")

    assert file.read_text("utf-8") == FILE.replace('["env:GROQ_1"]', '["env:GROQ_1", "env:GROQ_2"]')
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(file.parent.iterdir()) == [file]


def test_a_key_joins_an_account_or_makes_one(file: Path) -> None:
    for account, origin in (("main", "env:ROUTER_2"), ("other", "env:ROUTER_3"), ("other", "file:/keys/4")):
        said = add(file, "openrouter", origin, "--account", account)
        assert said.exit_code == 0, said.output

    assert owners(file, "openrouter") == {
        "main": ["env:ROUTER_1", "env:ROUTER_2"],
        "other": ["env:ROUTER_3", "file:/keys/4"],
    }


def test_a_provider_of_the_catalogue_comes_in_with_its_first_key(file: Path) -> None:
    said = add(file, "mistral", "env:MISTRAL")

    assert said.exit_code == 0, said.output
    assert list(owners(file, "mistral").values()) == [["env:MISTRAL"]]
    assert "groq" in load_fleet(file, secrets=False).providers


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["groq", "env:GROQ_1"], "groq has env:GROQ_1 already"),
        (["openrouter", "env:ROUTER_1"], "openrouter has env:ROUTER_1 already"),
        (["grok", "env:X"], "'grok' is in neither the file nor the catalogue"),
        (["groq", "sk-very-secret"], "never in this file"),
    ],
)
def test_what_cannot_be_added_leaves_the_file_as_it_is(file: Path, words: list[str], why: str) -> None:
    said = add(file, *words)

    assert said.exit_code == 1
    assert why in said.output
    assert "sk-very-secret" not in said.output
    assert file.read_text("utf-8") == FILE


def test_without_a_file_it_says_how_to_get_one(tmp_path: Path) -> None:
    said = add(tmp_path / "fleet.toml", "groq", "env:GROQ_1")

    assert said.exit_code == 1
    assert "optimizer init" in said.output
