"""`make soak MINUTES=10`: 5,000 requests a minute, and nothing may grow. Exits with 1 when something does.

A real provider and its faults are not in it, and nobody is killed: `make chaos` does that. The first minutes
are the warm-up.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.brokers import own_place
from tests.chaos.printing import Progress, say, table, write_json
from tests.chaos.soaking import soak

_REQUESTS_PER_MINUTE = 5200


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--requests", type=int, help="in all; 5,200 a minute unless given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the figures for programs")
    told = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: brokers and workers end with us
    requests = told.requests or int(told.minutes * _REQUESTS_PER_MINUTE)
    say(f"soak, seed {told.seed}: {requests} requests in {told.minutes:g} minutes")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with own_place(folder, told.seed) as place:
        figures = asyncio.run(soak(place, told.seed, requests, told.minutes, Progress()))
    say(table(figures))
    right = not any(figure.wrongs for figure in figures)
    if told.json:
        write_json(told.json, figures, seed=told.seed, minutes=told.minutes)
    if right:
        shutil.rmtree(folder, ignore_errors=True)
    say("all is flat" if right else f"something is wrong; logs are in {folder}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
