"""`make mutants`: takes one guard after the other out of the code, and wants to see a test fail."""

import argparse
import os
import queue
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.guards import MUTANTS
from tests.mutants.running import Mutant, Verdict, copy_of_the_house, judge, run_tests
from tests.support.brokers import test_brokers


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name or guard contains this")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once; default 2")
    arguments = parser.parse_args()
    chosen = [m for m in MUTANTS if arguments.only in m.name or arguments.only == m.guard]
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    try:
        with test_brokers(folder) as brokers:
            environ = {
                "OPTIMIZER_AMQP_URL": brokers.amqp_url,
                "OPTIMIZER_REDIS_URL": brokers.redis_url,
                "OPTIMIZER_MANAGEMENT_URL": brokers.management_url or "",
            }
            return _run(chosen, folder, environ, arguments.jobs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(mutants: list[Mutant], folder: Path, environ: dict[str, str], jobs: int) -> int:
    places: queue.Queue[tuple[Path, dict[str, str]]] = queue.Queue()
    for number in range(jobs):
        home = folder / f"{number}"
        home.mkdir()
        # A Redis database of its own for each, as the tests' processes have it.
        places.put((copy_of_the_house(home), {**environ, "PYTEST_XDIST_WORKER": f"gw{number}"}))

    say(f"{len(mutants)} mutants, {jobs} at once; first their tests as the code is")
    house, own = places.get()
    whole, said = run_tests(sorted({test for m in mutants for test in m.tests}), house, own)
    places.put((house, own))
    if not whole:
        say(f"{said}\nthe tests fail on the code as it is")
        return 1

    def run(mutant: Mutant) -> Verdict:
        place = places.get()
        began = time.monotonic()
        try:
            verdict, _ = judge(mutant, *place)
        finally:
            places.put(place)
        took_s = time.monotonic() - began
        say(f"  {verdict.value:<9} {mutant.guard:<8} {mutant.name}  ({took_s:.0f} s)")
        return verdict

    with ThreadPoolExecutor(jobs) as pool:
        verdicts = list(pool.map(run, mutants))
    caught = verdicts.count(Verdict.CAUGHT)
    say(f"{caught} of {len(mutants)} caught")
    return 0 if caught == len(mutants) else 1


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("OPTIMIZER_BROKERS", "private")
    sys.exit(main())
