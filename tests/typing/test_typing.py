import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_misuse_is_told_by_the_type_checker_line_by_line(tmp_path: Path) -> None:
    source = (HERE / "misuse.txt").read_text("utf-8")
    (tmp_path / "misuse.py").write_text(source, "utf-8")
    expected = {
        number: set(words.split())
        for number, line in enumerate(source.splitlines(), 1)
        for _, mark, words in [line.partition("# error: ")]
        if mark
    }

    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "misuse.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    told: dict[int, set[str]] = {}
    for number, code in re.findall(
        r"^misuse\.py:(\d+): error: .*\[([a-z-]+)\]$", checked.stdout, re.MULTILINE
    ):
        told.setdefault(int(number), set()).add(code)
    assert set(told) == set(expected), checked.stdout
    assert all(told[number] <= expected[number] for number in told), checked.stdout
