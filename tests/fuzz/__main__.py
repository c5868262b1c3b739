"""`make fuzz COUNT=100000 SEED=1`: exit 1 when a message has no end, two ends or a wrong one."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from redis import Redis

from sandbox.simulator import Settings, SimulatorProcess
from tests.fuzz.running import Report, run
from tests.support.brokers import test_brokers
from tests.support.house import House, create_vhost, delete_vhost


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    _say(f"{told.count} malformed messages, seed {told.seed}")
    report = _run(told.seed, told.count)
    _say(report.table)
    _say(f"{report.seconds:.0f} s; {report.served_in_between} good requests in between were served")
    for wrong in report.wrongs:
        _say(f"WRONG: {wrong}")
    _say(f"seed {told.seed}: {'all is right' if not report.wrongs else 'something is wrong'}")
    return 1 if report.wrongs else 0


def _run(seed: int, count: int) -> Report:
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as folder,
        test_brokers(Path(folder) / "brokers") as brokers,
        SimulatorProcess(Settings()) as simulator,
    ):
        assert brokers.management_url is not None
        vhost = f"fuzz-{secrets.token_hex(6)}"
        create_vhost(brokers.management_url, vhost)
        amqp_url = urlunsplit(urlsplit(brokers.amqp_url)._replace(path=f"/{vhost}"))
        redis_url = urlunsplit(urlsplit(brokers.redis_url)._replace(path="/9"))
        with Redis.from_url(redis_url) as redis:
            redis.flushdb()
        house = House(amqp_url, redis_url, brokers.management_url, vhost, "", Path(folder))
        try:
            return asyncio.run(run(house, house.simulated(simulator.base_url), seed, count, _say))
        finally:
            delete_vhost(brokers.management_url, vhost)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    sys.exit(main())
