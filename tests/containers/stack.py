"""The fleet of compose.yaml, under a project name and on ports of its own, beside whatever else runs."""

import asyncio
import json
import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
NODES = ("rabbit1", "rabbit2", "rabbit3")
PORTS = (
    "AMQP", "MANAGEMENT", "REDIS", "GATEWAY", "SIMULATOR",
    *(f"{node.upper()}{what}" for node in NODES for what in ("", "_MANAGEMENT")),
)  # fmt: skip


class Stack:
    """The fleet under some of the profiles that have an env-file in examples/compose."""

    def __init__(self, *profiles: str) -> None:
        self.profiles = profiles
        self.project = f"optimizer-test-{secrets.token_hex(4)}"
        self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._environ = {
            "OPTIMIZER_IMAGE": self.project,
            **{f"OPTIMIZER_{name}_PORT": str(port) for name, port in self._ports.items()},
        }

    @property
    def amqp_url(self) -> str:
        names = [node.upper() for node in NODES] if "cluster" in self.profiles else ["AMQP"]
        hosts = ",".join(f"127.0.0.1:{self._ports[name]}" for name in names)
        return f"amqp://guest:guest@{hosts}/"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['GATEWAY']}"

    def compose(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """Runs docker compose; what it says is the error when it fails."""
        # --env-file: a .env of whoever runs the tests is theirs, keys and all.
        ours = ["--env-file", os.devnull, "-p", self.project, "-f", str(ROOT / "compose.yaml")]
        for profile in self.profiles:
            ours += ["--env-file", str(ROOT / f"examples/compose/{profile}.env"), "--profile", profile]
        return self._docker("compose", *ours, *arguments, environ=environ)

    def up(self, *arguments: str, replicas: int = 3, environ: Mapping[str, str] | None = None) -> None:
        """Makes what runs be so many replicas, and leaves alone what is so already."""
        self.compose(*arguments, "up", "-d", "--scale", f"backend-simulated={replicas}", environ=environ)

    async def scale(self, replicas: int) -> None:
        """Waits until the replicas that leave have drained."""
        await asyncio.to_thread(self.up, replicas=replicas)

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """What the engine says of each container, those that have ended included."""
        named = () if service is None else (service,)
        ids = self.compose("ps", "--all", "--quiet", *named).split()
        found: list[dict[str, Any]] = json.loads(self._docker("inspect", *ids)) if ids else []
        return found

    def docker(self, *arguments: str, service: str) -> str:
        """Runs a docker command on the one container of a service."""
        return self._docker(*arguments, f"{self.project}-{service}-1")

    def inside(self, service: str, *command: str) -> str:
        """Runs a command in the container of a service."""
        return self._docker("exec", f"{self.project}-{service}-1", *command)

    def cut_off(self, service: str) -> None:
        """Takes the container out of the network, so that nobody reaches it and nobody is told."""
        self._docker("network", "disconnect", f"{self.project}_default", f"{self.project}-{service}-1")

    def join_again(self, service: str) -> None:
        network, container = f"{self.project}_default", f"{self.project}-{service}-1"
        self._docker("network", "connect", "--alias", service, network, container)

    def down(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans")
        subprocess.run(["docker", "image", "rm", self.project], capture_output=True, check=False)  # noqa: S607

    def management(self, path: str, node: str = "") -> Any:
        """What RabbitMQ's management API says; `node` names one of a cluster."""
        port = f"{node.upper()}_MANAGEMENT" if node else "MANAGEMENT"
        return self._get(port, f"/api/{path}", auth=("guest", "guest"), timeout=30)

    def summary(self) -> Any:
        """The simulated provider's ledger in figures."""
        return self._get("SIMULATOR", "/_simulator/summary")

    def ledger(self) -> list[dict[str, Any]]:
        """The simulated provider's ledger, call by call."""
        entries: list[dict[str, Any]] = self._get("SIMULATOR", "/_simulator/ledger", timeout=60)["entries"]
        return entries

    def simulate(self, **settings: object) -> None:
        """Empties the ledger and changes the provider."""
        admin = f"http://127.0.0.1:{self._ports['SIMULATOR']}/_simulator"
        httpx.post(f"{admin}/reset").raise_for_status()
        httpx.patch(f"{admin}/settings", json=settings).raise_for_status()

    def keep_evidence(self) -> Path:
        """What all containers have said, and what RabbitMQ knows of its queues and consumers, in a folder."""
        folder = Path(tempfile.mkdtemp(prefix=f"{self.project}-"))
        (folder / "logs.txt").write_text(self.compose("logs", "--timestamps"), "utf-8")
        for what in ("queues", "consumers", "channels", "connections"):
            with suppress(httpx.HTTPError):
                node = NODES[0] if "cluster" in self.profiles else ""
                (folder / f"{what}.json").write_text(
                    json.dumps(self.management(what, node), indent=1), "utf-8"
                )
        return folder

    def _get(self, port: str, path: str, **options: Any) -> Any:
        answer = httpx.get(f"http://127.0.0.1:{self._ports[port]}{path}", **options)
        return answer.raise_for_status().json()

    def _docker(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            ["docker", *arguments],  # noqa: S607
            env={**os.environ, **self._environ, **(environ or {})},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@contextmanager
def running_stack(*profiles: str) -> Iterator[Stack]:
    """Built and up with three replicas; gone at the end, volumes and all."""
    stack = Stack(*profiles)
    try:
        stack.compose("build")
        stack.up()
        yield stack
    except AssertionError as error:
        error.add_note(stack.compose("logs", "--tail", "30"))
        raise
    finally:
        stack.down()


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:  # all at once, so that none comes twice
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def short_id(container: dict[str, Any]) -> str:
    """As `docker ps` shows it, and as the container knows itself: its host name."""
    return str(container["Id"])[:12]


def health(container: dict[str, Any]) -> str:
    return str(container["State"].get("Health", {}).get("Status", "none"))
