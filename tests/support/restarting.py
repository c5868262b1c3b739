"""A RabbitMQ that a test may stop, start and alarm: a private node, or where there is none, a container."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sandbox.nodes import RabbitNode, programs
from sandbox.nodes.node import Node
from tests.support.brokers import docker_answers, rabbitmq_container

_ALARM_AT = "0.00001"
_ALARM_OFF_AT = "0.4"


class Restartable(Protocol):
    amqp_url: str
    management_url: str

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None:
        """Without a word to it."""

    def ctl(self, *words: str) -> None:
        """Runs `rabbitmqctl`."""


def set_memory_alarm(node: Restartable, *, on: bool) -> None:
    node.ctl("-q", "set_vm_memory_high_watermark", _ALARM_AT if on else _ALARM_OFF_AT)


def kill(node: Node) -> None:
    """Ends a private server without a word to it; it can be started again."""
    os.kill(node.pid, signal.SIGKILL)
    node.stop()


@contextmanager
def restartable_rabbitmq(folder: Path) -> Iterator[Restartable]:
    server = programs.rabbitmq_server(os.environ)
    if server is None and docker_answers():
        with _container() as container:
            yield container
        return
    with RabbitNode(folder / "rabbitmq") as node:  # which says what to do where there is no server
        yield _Private(node, server)


class _Private:
    def __init__(self, node: RabbitNode, server: Path | None) -> None:
        self._node = node
        self._server = server
        self.amqp_url = node.amqp_url
        self.management_url = node.management_url
        self.start = node.start
        self.stop = node.stop

    def kill(self) -> None:
        kill(self._node)

    def ctl(self, *words: str) -> None:
        assert self._server is not None
        command = [str(self._server.with_name("rabbitmqctl")), *words]
        subprocess.run(command, env=dict(self._node._prepare().environ), check=True, timeout=60)


@contextmanager
def _container() -> Iterator[Restartable]:
    ports = {5672: _free_port(), 15672: _free_port()}  # fixed: a restart would choose others
    container = rabbitmq_container()
    for inside, outside in ports.items():
        container = container.with_bind_ports(inside, outside)
    with container:
        yield _Docker(container.get_wrapped_container().id, ports)


class _Docker:
    def __init__(self, container: str, ports: dict[int, int]) -> None:
        self._container = container
        self.amqp_url = f"amqp://guest:guest@127.0.0.1:{ports[5672]}/"
        self.management_url = f"http://guest:guest@127.0.0.1:{ports[15672]}"

    def start(self) -> None:
        _docker("start", self._container)
        while not self._runs():  # the command line finds no node at first; the test's own limit ends this
            time.sleep(0.5)

    def _runs(self) -> bool:
        asked = ["docker", "exec", self._container, "rabbitmq-diagnostics", "-q", "check_running"]
        return subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0

    def stop(self) -> None:
        _docker("stop", self._container)

    def kill(self) -> None:
        _docker("kill", self._container)

    def ctl(self, *words: str) -> None:
        _docker("exec", self._container, "rabbitmqctl", *words)


def _docker(*words: str) -> None:
    subprocess.run(["docker", *words], check=True, timeout=100, stdout=subprocess.DEVNULL)  # noqa: S607


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
