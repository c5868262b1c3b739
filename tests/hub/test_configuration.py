"""Where the recorder writes: said in the file, in the environment, or kept elsewhere."""

from pathlib import Path

import pytest

from hub import extra
from topology.digest import digest
from topology.loading import ConfigurationError, load_fleet, recorder_url
from workers.roles import expand_roles

URL = "postgresql://optimizer:hunter2@db.example/ledger"


def fleet_file(tmp_path: Path, recorder: str) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(f"[recorder]\n{recorder}\n", "utf-8")
    return path


def test_without_a_word_it_is_a_file_beside_the_queues() -> None:
    assert recorder_url(load_fleet(None, {})) == "sqlite:///.optimizer/optimizer.db"


def test_the_environment_outweighs_the_file(tmp_path: Path) -> None:
    path = fleet_file(tmp_path, 'url = "sqlite:///elsewhere.db"')

    assert recorder_url(load_fleet(path, {})) == "sqlite:///elsewhere.db"
    assert recorder_url(load_fleet(path, {"OPTIMIZER_RECORDER__URL": URL})) == URL


def test_a_url_with_a_password_can_be_kept_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{URL}\n", "utf-8")
    by_file = load_fleet(fleet_file(tmp_path, f'url = "file:{tmp_path / "url"}"'), {})
    by_name = load_fleet(fleet_file(tmp_path, 'url = "env:LEDGER"'), {})

    assert recorder_url(by_file, {}) == recorder_url(by_name, {"LEDGER": URL}) == URL
    with pytest.raises(ConfigurationError, match=r"recorder\.url.*LEDGER"):
        recorder_url(by_name, {})


def test_the_password_is_masked_and_is_no_part_of_the_configurations_name(tmp_path: Path) -> None:
    fleet = load_fleet(None, {"OPTIMIZER_RECORDER__URL": URL})

    assert "hunter2" not in repr(fleet)
    assert digest(fleet) == digest(load_fleet(None, {}))


def test_what_is_no_database_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"recorder\.url.*sqlite:///PATH") as refused:
        load_fleet(fleet_file(tmp_path, 'url = "mysql://root:hunter2@db/x"'), {})

    assert "hunter2" not in str(refused.value)


def test_without_its_libraries_the_recorder_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ConfigurationError, match=r"api-resource-optimizer\[hub\]"):
        expand_roles(["recorder"], load_fleet(None, {}))
    assert expand_roles(["front"], load_fleet(None, {})) == ("front",)
    assert not extra.is_installed()
