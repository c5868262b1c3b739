"""The units in deploy/systemd: what can be said of them where no systemd runs."""

import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import typer

from console.main import app
from topology.fleet import Provider
from topology.loading import catalogue
from topology.sections import GatewaySection
from workers.roles import ALERTS, BACKEND, FRONT, RECORDER, UNDERTAKER

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "systemd"
COMMON = FOLDER / "optimizer-.service.d" / "10-common.conf"
SERVICES = sorted(FOLDER.glob("*.service"))
DRAIN_MARGIN_S = 10.0
SINCE_254 = tuple(
    f"Unknown key '{key}' in section [Service], ignoring." for key in ("RestartSteps", "RestartMaxDelaySec")
)
ANALYZE = shutil.which("systemd-analyze") or ""
INSTALLED = "/opt/optimizer/bin/optimizer"


def unit(path: Path) -> ConfigParser:
    """One that says something twice, which a list in a unit may, keeps the last."""
    parser = ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # systemd's keys have capitals
    parser.read_string(path.read_text("utf-8"))
    return parser


def command(path: Path) -> list[str]:
    return shlex.split(unit(path)["Service"]["ExecStart"].replace("%i", "groq"))


def called(value: object) -> str | None:
    return value.name if isinstance(value, Path) else None


@pytest.mark.parametrize("path", SERVICES, ids=called)
def test_a_unit_runs_a_command_that_there_is_with_options_that_it_has(path: Path) -> None:
    program, *words = command(path)
    known = typer.main.get_command(app)
    while subcommands := getattr(known, "commands", None):
        known = subcommands[words.pop(0)]

    assert program == INSTALLED
    known.make_context(program, words)  # refuses what it does not know


def test_every_role_has_a_unit() -> None:
    run = [command(path)[2] for path in SERVICES if command(path)[1] == "worker"]

    assert set(run) == {FRONT, UNDERTAKER, RECORDER, ALERTS, f"{BACKEND}:groq"}
    assert {command(path)[1] for path in SERVICES} == {"worker", "gateway", "events", "topology"}


@pytest.mark.parametrize("path", SERVICES, ids=called)
def test_the_target_starts_and_stops_every_unit_that_is_enabled(path: Path) -> None:
    assert unit(path)["Install"]["WantedBy"] == "optimizer.target"
    assert unit(COMMON)["Unit"]["PartOf"] == "optimizer.target"


def test_systemd_waits_for_longer_than_anything_drains() -> None:
    waits_s = float(unit(COMMON)["Service"]["TimeoutStopSec"].removesuffix("s"))
    providers = [Provider.model_validate({**entry, "name": name}) for name, entry in catalogue().items()]

    assert unit(COMMON)["Service"]["KillSignal"] == "SIGTERM"
    assert waits_s > max(provider.timeout_s for provider in providers) + DRAIN_MARGIN_S
    assert waits_s > GatewaySection().drain_s


def test_replicas_of_the_front_are_the_same_unit() -> None:
    assert (FOLDER / "optimizer-front@.service").read_bytes() == (
        FOLDER / "optimizer-front.service"
    ).read_bytes()


@pytest.mark.skipif(ANALYZE == "", reason="systemd is not installed here")
def test_systemd_takes_the_units_as_they_are(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    program = str(Path(sys.executable).with_name("optimizer"))
    for path in tmp_path.glob("*.service"):
        path.write_text(path.read_text("utf-8").replace(INSTALLED, program), "utf-8")
    names = [path.name.replace("@.", "@groq.") for path in SERVICES]

    said = subprocess.run(
        [ANALYZE, "verify", "--man=no", *(str(tmp_path / name) for name in names)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    complaints = [line for line in said.stderr.splitlines() if not line.endswith(SINCE_254)]
    assert (said.returncode, complaints) == (0, [])
