"""`make model`: every search, with its figures; exit 1 when one finds something, or a hole is not found."""

import argparse
import sys

from tests.model.holes import HOLES, Hole
from tests.model.scenarios import BIG, SHORT
from tests.model.search import model_of, search


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--big", action="store_true", help="the large searches too")
    parser.add_argument("--holes", action="store_true", help="only the holes, with the way into each")
    parser.add_argument("--most", type=int, default=2_000_000, help="states of one search")
    told = parser.parse_args()
    if told.holes:
        return max(_show(hole) for hole in HOLES)
    wrong = 0
    for scenario in (*SHORT, *(BIG if told.big else ())):
        found = search(model_of(scenario), most=told.most, say=lambda text: _say(f"  {text}"))
        _say(f"{scenario.name}: {found}")
        wrong += found.violation is not None
    _say("all is right" if not wrong else f"{wrong} searches found something")
    return 1 if wrong else 0


def _show(hole: Hole) -> int:
    found = search(model_of(hole.scenario, hole))
    _say(f"{hole.name}, without the rule that {hole.what}: {found}")
    return 0 if found.violation else 1


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    sys.exit(main())
