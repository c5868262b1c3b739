"""`make invoice CALLS=100000`: mixed calls under faults and kills, then the invoice against the ledger.

Repeats, retries after the provider's faults, cancels, time-outs, killed workers. Then, call by call: every
settled record equals the invoice, every line has its record, what is doubtful is listed. `optimizer report
reconcile` must find the same, and after it the sums are equal. Exits with 1 when a figure is off.
"""

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from tests.chaos.brokers import own_place
from tests.chaos.invoice_account import gather, judge
from tests.chaos.invoice_run import Plan, run
from tests.chaos.printing import Progress, say, table, write_json

_CALLS_PER_KILL = 2000


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: brokers and workers end with us
    told = _parser().parse_args()
    seed = secrets.randbelow(10**6) if told.seed is None else told.seed
    kills = max(1, told.calls // _CALLS_PER_KILL) if told.kills is None else told.kills
    say(f"invoice, seed {seed}: at least {told.calls} calls, {kills} kills")
    folder = Path(tempfile.mkdtemp(prefix="invoice-"))
    began = time.monotonic()
    with own_place(folder, seed) as place:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            seen = runner.run(run(place, Plan(seed, told.calls, kills, told.minutes), Progress()))
        wanted = (told.calls, kills) if told.minutes is None else (1, 1)
        figures = judge(gather(place), seen, *wanted)
    seconds = time.monotonic() - began
    say(table(figures))
    right = not any(figure.wrongs for figure in figures)
    if told.json:
        write_json(told.json, figures, seed=seed, seconds=round(seconds, 1), calls_per_s=seen.calls_per_s)
    if right:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        say(f"logs and the database are in {folder}; again with: make invoice CALLS={told.calls} SEED={seed}")
    verdict = "all is right" if right else "something is wrong"
    say(f"seed {seed}, {seconds:.0f} s, {seen.calls_per_s:.0f} calls/s under load: {verdict}")
    return 0 if right else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.invoice",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calls", type=int, default=10_000, help="that reach the provider, at least")
    parser.add_argument("--kills", type=int, help=f"one for {_CALLS_PER_KILL} calls unless given")
    parser.add_argument("--minutes", type=float, help="ends the load then, however many calls there were")
    parser.add_argument("--seed", type=int, help="random unless given")
    parser.add_argument("--json", type=Path, help="where to write the account for programs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
