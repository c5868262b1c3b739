import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from hypothesis import settings
from redis import Redis

from sandbox.nodes import Brokers
from sandbox.simulator import Settings, SimulatorProcess
from tests.support.brokers import test_brokers, versions
from tests.support.house import House, create_vhost, delete_vhost

# A machine that is busy is no fault of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

_TESTED_ON = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def brokers(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Brokers]:
    """A real RabbitMQ and a real Redis. Where there are none, this fails; nothing is ever skipped."""
    with test_brokers(tmp_path_factory.mktemp("brokers")) as found:
        tested_on = versions(found)
        pytestconfig.stash[_TESTED_ON] = tested_on
        if (output := getattr(pytestconfig, "workeroutput", None)) is not None:
            output["brokers"] = tested_on  # one of several processes: the first one prints it
        yield found


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    if tested_on := getattr(node, "workeroutput", {}).get("brokers"):
        node.config.stash[_TESTED_ON] = tested_on


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if tested_on := config.stash.get(_TESTED_ON, None):
        terminalreporter.write_line(f"brokers: {tested_on}")


@pytest.fixture
def house(brokers: Brokers, tmp_path: Path) -> Iterator[House]:
    """A virtual host and a key prefix of the test's own."""
    assert brokers.management_url is not None
    name = f"test-{secrets.token_hex(6)}"
    create_vhost(brokers.management_url, name)
    amqp_url = urlunsplit(urlsplit(brokers.amqp_url)._replace(path=f"/{name}"))
    yield House(amqp_url, brokers.redis_url, brokers.management_url, name, f"{name}:", tmp_path)
    delete_vhost(brokers.management_url, name)


@pytest.fixture
def own_redis(house: House) -> House:
    """A house with a Redis database of its own: worker processes put no prefix before their keys."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    house.redis_url = urlunsplit(urlsplit(house.redis_url)._replace(path=f"/{9 + number % 7}"))
    with Redis.from_url(house.redis_url) as redis:
        redis.flushdb()
    house.prefix = ""
    return house


@pytest.fixture(scope="session")
def simulator_process() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(Settings()) as process:
        yield process


@pytest.fixture
def simulator(simulator_process: SimulatorProcess) -> SimulatorProcess:
    """A provider that answers at once, with an empty ledger."""
    simulator_process.change(**Settings().model_dump(mode="json"))
    simulator_process.reset()
    return simulator_process
