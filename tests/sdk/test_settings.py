from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer_sdk.errors import Overloaded
from producer_sdk.settings import AMQP_URL, REDIS_URL, find_amqp_url, find_setting, masked, read_env_file


def write_env(folder: Path, text: str) -> None:
    (folder / ".optimizer").mkdir()
    (folder / ".optimizer" / "env").write_text(text, "utf-8")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is `project/agents/quality`, and the environment names no broker."""
    project = tmp_path / "project"
    deep = project / "agents" / "quality"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.delenv(AMQP_URL, raising=False)
    monkeypatch.delenv(REDIS_URL, raising=False)
    return project


def test_an_argument_wins_over_everything(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_env(project, f"export {AMQP_URL}=amqp://file\n")
    monkeypatch.setenv(AMQP_URL, "amqp://environment")

    assert find_amqp_url("amqp://argument") == "amqp://argument"


def test_the_environment_wins_over_the_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_env(project, f"export {AMQP_URL}=amqp://file\n")
    monkeypatch.setenv(AMQP_URL, "amqp://environment")

    assert find_amqp_url(None) == "amqp://environment"


def test_what_optimizer_up_wrote_down_is_found_from_any_folder_below(project: Path) -> None:
    write_env(project, f"export {AMQP_URL}=amqp://file\n")

    assert find_amqp_url(None) == "amqp://file"


def test_the_nearest_file_wins(project: Path) -> None:
    write_env(project, f"export {AMQP_URL}=amqp://far\n")
    write_env(project / "agents", f"export {AMQP_URL}=amqp://near\n")

    assert find_amqp_url(None) == "amqp://near"
    assert find_setting(AMQP_URL, {}, project) == "amqp://far"


def test_an_empty_variable_counts_as_absent(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_env(project, f"export {AMQP_URL}=amqp://file\n")
    monkeypatch.setenv(AMQP_URL, "")

    assert find_amqp_url(None) == "amqp://file"


@pytest.mark.usefixtures("project")
def test_where_nothing_is_known_the_error_says_how_to_tell() -> None:
    with pytest.raises(Overloaded, match=r"url=.*OPTIMIZER_AMQP_URL.*optimizer up"):
        find_amqp_url(None)


def test_a_file_that_does_not_name_it_gives_nothing(project: Path) -> None:
    write_env(project, f"export {AMQP_URL}=amqp://file\n")

    assert find_setting(REDIS_URL, {}, project) is None


def test_the_files_lines_are_read_as_a_shell_would(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text(
        "# export OLD=1\n\nexport PLAIN=one\nBARE=two\nexport QUOTED='a b'\nURL=redis://h/0?x=1\nnoise\n",
        "utf-8",
    )

    assert read_env_file(file) == {
        "PLAIN": "one",
        "BARE": "two",
        "QUOTED": "a b",
        "URL": "redis://h/0?x=1",
    }


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("amqp://guest:secret@localhost:5672/vhost", "amqp://guest:***@localhost:5672/vhost"),
        ("redis://:secret@localhost/0", "redis://:***@localhost/0"),
        ("amqps://user:secret@host", "amqps://user:***@host"),
        ("amqp://localhost:5672/", "amqp://localhost:5672/"),
        ("amqp://user@localhost/", "amqp://user@localhost/"),
    ],
)
def test_a_url_is_printed_without_its_password(url: str, printed: str) -> None:
    assert masked(url) == printed


@given(st.text(min_size=6))
def test_no_password_is_ever_printed(password: str) -> None:
    encoded = quote(f"<{password}>", safe="")

    assert encoded not in masked(f"amqp://user:{encoded}@localhost:5672/vhost")
