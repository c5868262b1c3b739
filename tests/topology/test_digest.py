from pathlib import Path

import pytest

from topology.digest import digest
from topology.loading import load_fleet

FLEET = """
[providers.house]
base_url = "http://models.internal/v1"
api_keys = ["env:HOUSE_KEY"]
"""


def named(folder: Path, text: str = FLEET, key: str | None = "sk-one") -> str:
    path = folder / "fleet.toml"
    path.write_text(text, "utf-8")
    return digest(load_fleet(path, {"HOUSE_KEY": key or ""}, secrets=key is not None))


def test_a_secret_makes_no_difference_whether_known_or_not(tmp_path: Path) -> None:
    assert named(tmp_path) == named(tmp_path, key="sk-other") == named(tmp_path, key=None)


@pytest.mark.parametrize(
    "change",
    [
        "concurrency = 3\n",
        "requests_per_minute = 30\n",
        "[fleet]\ntimeout_s = 1\n",
        '[[providers.house.models]]\nid = "one"\n',
    ],
)
def test_whatever_else_differs_makes_another_name(tmp_path: Path, change: str) -> None:
    assert named(tmp_path, FLEET + change) != named(tmp_path)


def test_the_order_of_tables_makes_no_difference(tmp_path: Path) -> None:
    other = '[providers.other]\nbase_url = "http://other.internal/v1"\nkeyless = true\n'

    assert named(tmp_path, FLEET + other) == named(tmp_path, other + FLEET)
