"""RabbitMQ and Redis as services of a compose file."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sandbox.nodes.errors import NodeFailed

_ANSWER_LIMIT = 5.0
_UP_LIMIT = 600.0  # the first time it downloads the images
_STOP_LIMIT = 60.0
_SERVICES = ("rabbitmq", "redis")


def docker_answers(environ: Mapping[str, str]) -> bool:
    """Whether a Docker engine answers within 5 seconds; no program, no engine."""
    try:
        asked = _docker(environ, _ANSWER_LIMIT, "info", "--format", "{{.ServerVersion}}")
    except (OSError, subprocess.TimeoutExpired):
        return False
    # Some versions of the program report success without an engine, and then no version.
    return asked.returncode == 0 and bool(asked.stdout.strip())


@contextmanager
def services_up(compose_file: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """Run the services ``rabbitmq`` and ``redis``, and stop those that did not run before.

    Raises:
        NodeFailed: Compose did not get them healthy; the text ends with what it said.
    """
    compose = ("compose", "-f", str(compose_file))
    listed = _docker(environ, _STOP_LIMIT, *compose, "ps", "--services", "--status", "running")
    ours = [name for name in _SERVICES if name not in listed.stdout.split()]
    try:
        up = _docker(environ, _UP_LIMIT, *compose, "up", "-d", "--wait", *_SERVICES)
        if up.returncode != 0:
            raise NodeFailed(f"docker compose could not start the brokers\n{up.stderr.strip()}")
        yield
    finally:
        if ours:
            _docker(environ, _STOP_LIMIT, *compose, "stop", *ours)


def _docker(environ: Mapping[str, str], limit: float, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("docker", path=environ.get("PATH", os.defpath))
    if program is None:
        raise FileNotFoundError("docker")
    return subprocess.run(  # noqa: S603  # arguments are ours, and the compose file's path
        [program, *arguments],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
