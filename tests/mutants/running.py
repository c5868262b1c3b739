"""Running tests on a copy of the house, as it is and with one guard taken out."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".optimizer", "*.egg-info", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis"
)
_LONGEST_S = 600


@dataclass(frozen=True)
class Mutant:
    """One guard that is taken out.

    Attributes:
        name: What is wrong then, in a few words.
        guard: Which kind it is of: ack, confirm, fence, settle, reserve, order, life, books.
        file: Where the guard stands.
        old: Its text, which stands there exactly once.
        new: What stands there instead.
        tests: Those that must notice: as pytest takes them.
    """

    name: str
    guard: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class Verdict(Enum):
    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    STALE = "STALE: the guard's text does not stand there once"


def copy_of_the_house(folder: Path) -> Path:
    """The whole tree, to be changed at will."""
    house = folder / "house"
    shutil.copytree(ROOT, house, ignore=_LEFT_OUT, symlinks=True)
    return house


def is_stale(mutant: Mutant) -> bool:
    return (ROOT / mutant.file).read_text("utf-8").count(mutant.old) != 1


def judge(mutant: Mutant, house: Path, environ: Mapping[str, str]) -> tuple[Verdict, str]:
    """Runs the mutant's tests without its guard; the verdict, and what pytest said last."""
    if is_stale(mutant):
        return Verdict.STALE, ""
    path = house / mutant.file
    whole = path.read_text("utf-8")
    path.write_text(whole.replace(mutant.old, mutant.new), "utf-8")
    try:
        passed, said = run_tests(mutant.tests, house, environ)
    finally:
        path.write_text(whole, "utf-8")
    return (Verdict.SURVIVED if passed else Verdict.CAUGHT), said


def run_tests(tests: Sequence[str], house: Path, environ: Mapping[str, str]) -> tuple[bool, str]:
    """Whether all of them pass, and the last lines of what pytest said."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    # Copies of a file that are as old and as long as each other must not share their byte code.
    environ = {**os.environ, **environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            command, cwd=house, env=environ, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=_LONGEST_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"no end within {_LONGEST_S} s"
    if ended.returncode not in {0, 1}:  # no test was found, or pytest itself failed: that proves nothing
        raise RuntimeError(f"pytest ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended.returncode == 0, "\n".join(ended.stdout.splitlines()[-15:])
