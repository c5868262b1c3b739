"""`make chaos KILLS=1000`: workers die under load, and every call and every request is accounted for.

Exits with 1 when a figure of the account is off. The same SEED gives the same schedule and the same requests.
FAULTS adds what else goes wrong: rabbitmq, redis, cut, halfopen, freeze, flush, provider; all is all but the
last.
"""

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.account import Figure, account
from tests.chaos.brokers import own_place
from tests.chaos.printing import Progress, say, table, write_json
from tests.chaos.running import Plan, run
from tests.chaos.schedule import FAULTS, Fault, make_schedule
from tests.faults.points import POINTS

_REQUESTS_PER_KILL = 20
_ALL = tuple(fault for fault in FAULTS if fault != "provider")


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: brokers and workers end with us
    told = _parser().parse_args()
    seed = secrets.randbelow(10**6) if told.seed is None else told.seed
    schedule = make_schedule(seed, told.kills, list(POINTS), told.faults, named=told.named)
    requests = told.requests or told.kills * _REQUESTS_PER_KILL
    plan = Plan(seed, schedule, requests, told.lease)
    say(
        f"chaos, seed {seed}: {schedule.kills} kills, {sum(schedule.quotas.values())} of them at "
        f"{len(schedule.quotas)} named points; at least {requests} requests; "
        f"faults: {', '.join(schedule.faults) or 'none'}; "
        f"leases last {f'{told.lease:g} s here' if told.lease else 'as in production'}"
    )
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    began = time.monotonic()
    figures = _judge(folder, plan)
    seconds = time.monotonic() - began
    say(table(figures))
    right = not any(figure.wrongs for figure in figures)
    if told.json:
        write_json(told.json, figures, seed=seed, seconds=round(seconds, 1))
    if right:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        say(f"logs are in {folder}; again with: {_again(told, seed)}")
    say(f"seed {seed}, {seconds:.0f} s: {'all is right' if right else 'something is wrong'}")
    return 0 if right else 1


def _judge(folder: Path, plan: Plan) -> Sequence[Figure]:
    with own_place(folder, plan.seed) as place:
        books = asyncio.run(run(place, plan, Progress()))
    return account(books, plan.terms)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--requests", type=int, help="at least; 20 for each kill unless given")
    parser.add_argument("--seed", type=int, help="random unless given")
    parser.add_argument("--faults", type=_faults, default=(), help="names with commas in between, or all")
    parser.add_argument("--named", action="store_true", help="every kill at a named point")
    parser.add_argument("--lease", type=_lease, default=5.0, help="seconds that a claim is believed; or real")
    parser.add_argument("--json", type=Path, help="where to write the account for programs")
    return parser


def _faults(text: str) -> tuple[Fault, ...]:
    if text == "all":
        return _ALL
    named = [name for name in text.split(",") if name]
    if unknown := [name for name in named if name not in FAULTS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(FAULTS)} and all")
    return tuple(fault for name in named for fault in FAULTS if fault == name)


def _lease(text: str) -> float | None:
    return None if text == "real" else float(text)


def _again(told: argparse.Namespace, seed: int) -> str:
    faults = f" FAULTS={','.join(told.faults)}" if told.faults else ""
    return f"make chaos KILLS={told.kills} SEED={seed}{faults}"


if __name__ == "__main__":
    sys.exit(main())
