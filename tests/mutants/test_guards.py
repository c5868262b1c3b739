"""The list of guards fits the code; `make mutants` shows that the tests notice each that is missing."""

from collections import Counter

import pytest

from tests.mutants.guards import MUTANTS
from tests.mutants.running import ROOT, Mutant, is_stale

NAMES = [mutant.name for mutant in MUTANTS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_guard_stands_where_the_list_says_and_its_tests_are_there(mutant: Mutant) -> None:
    assert not is_stale(mutant)
    assert mutant.old != mutant.new
    for test in mutant.tests:
        path, _, function = test.partition("::")
        assert f"def {function.partition('[')[0]}(" in (ROOT / path).read_text("utf-8")


def test_each_kind_of_guard_has_mutants_and_each_mutant_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 15
    kinds = Counter(mutant.guard for mutant in MUTANTS)
    assert {"ack", "confirm", "fence", "settle", "reserve"} <= set(kinds)
