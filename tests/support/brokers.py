"""A RabbitMQ and a Redis for the tests: given, in Docker by testcontainers, or private processes."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from redis import Redis

from sandbox.nodes import Brokers, find_brokers

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer


@contextmanager
def test_brokers(folder: Path) -> Iterator[Brokers]:
    given = os.environ.get("OPTIMIZER_AMQP_URL") and os.environ.get("OPTIMIZER_REDIS_URL")
    if not given and os.environ.get("OPTIMIZER_BROKERS") != "private" and docker_answers():
        with _containers() as brokers:
            yield brokers
        return
    with find_brokers(folder, os.environ, say=lambda _: None) as brokers:
        yield brokers


@contextmanager
def _containers() -> Iterator[Brokers]:
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - needs an engine
    from testcontainers.core.wait_strategies import (  # noqa: PLC0415
        ExecWaitStrategy,
    )

    rabbit = rabbitmq_container().with_exposed_ports(5672, 15672)
    redis = (
        DockerContainer(os.environ.get("TEST_REDIS_IMAGE", "redis:8"))
        .with_exposed_ports(6379)
        .waiting_for(ExecWaitStrategy(["redis-cli", "ping"]))
    )
    with rabbit, redis:
        host = rabbit.get_container_host_ip()
        yield Brokers(
            f"amqp://guest:guest@{host}:{rabbit.get_exposed_port(5672)}/",
            f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}/0",
            f"http://guest:guest@{host}:{rabbit.get_exposed_port(15672)}",
            "docker",
        )


def rabbitmq_container() -> "DockerContainer":
    """A RabbitMQ that is ready once it is entered; its ports are the caller's to publish."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - needs an engine
    from testcontainers.core.wait_strategies import (  # noqa: PLC0415
        ExecWaitStrategy,
    )

    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    return (
        DockerContainer(os.environ.get("TEST_RABBITMQ_IMAGE", "rabbitmq:4-management"))
        .with_kwargs(hostname="optimizer-tests")
        .waiting_for(ExecWaitStrategy(["rabbitmq-diagnostics", "-q", "check_running"]))
    )


def versions(brokers: Brokers) -> str:
    """What they are, for the last lines of a test run."""
    overview = httpx.get(f"{brokers.management_url}/api/overview", timeout=30).raise_for_status().json()
    with Redis.from_url(brokers.redis_url) as redis:
        redis_version = redis.info("server")["redis_version"]
    return f"{brokers.origin}, RabbitMQ {overview['rabbitmq_version']}, Redis {redis_version}"


def docker_answers() -> bool:
    try:
        asked = subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0
