import re
from pathlib import Path

import pytest

from tests.model.holes import GUARDED, HOLES, LEFT_OUT, Hole
from tests.model.lua import Patch, sources
from tests.model.scenarios import SHORT
from tests.model.search import model_of, search
from tests.model.world import Scenario

MOST = 60_000


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.name)
def test_whatever_happens_no_promise_is_broken(scenario: Scenario) -> None:
    found = search(model_of(scenario), most=MOST)

    assert found.violation is None, str(found)
    assert found.whole


@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: f"{hole.name}: {hole.what}")
def test_a_hole_that_is_opened_again_is_found(hole: Hole) -> None:
    assert search(model_of(hole.scenario, hole), most=MOST).violation is not None


@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: f"{hole.name}: {hole.what}")
def test_nothing_is_found_where_the_hole_is_shut(hole: Hole) -> None:
    found = search(model_of(hole.scenario), most=MOST)

    assert found.violation is None, str(found)


def test_a_patch_that_no_longer_fits_is_told() -> None:
    with pytest.raises(Patch):
        sources({"no such text": ""})


@pytest.mark.parametrize(
    ("hole", "test"), [(hole, test) for hole, tests in GUARDED.items() for test in tests]
)
def test_the_test_that_guards_a_hole_exists(hole: str, test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"^(async )?def {name}\(", Path(file).read_text("utf-8"), re.MULTILINE), hole


def test_every_hole_of_the_review_is_in_one_of_the_tables() -> None:
    shown = {hole.name.split("/")[0].rstrip("abcd") for hole in HOLES}
    known = shown | {name.split("/")[0].rstrip("abcd") for name in GUARDED} | set(LEFT_OUT)
    reviewed = (
        [f"C{n}" for n in range(1, 7)] + [f"H{n}" for n in range(1, 15)] + [f"M{n}" for n in range(1, 19)]
    )

    assert [name for name in reviewed if name not in known] == []
