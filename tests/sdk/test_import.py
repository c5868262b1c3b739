import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["topology.py", "topology/__init__.py"])
def test_a_file_of_the_agents_own_that_hides_a_package_is_named(tmp_path: Path, name: str) -> None:
    intruder = tmp_path / name
    intruder.parent.mkdir(exist_ok=True)
    intruder.write_text("")

    ended = subprocess.run(
        [sys.executable, "-c", "import producer_sdk"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert f"ImportError: {intruder.resolve()} hides the optimizer's package 'topology'" in ended.stderr
