"""What the benchmarks stand on: brokers that can be restarted, the topology, worker processes."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from broker import declaring
from sandbox.nodes import RabbitNode, RedisNode
from topology.declaration import declaration
from topology.loading import load_fleet


@dataclass
class Stand:
    """Private brokers, a configuration, and the processes that use them.

    Attributes:
        folder: For files of the run.
        environ: What its processes see.
    """

    rabbitmq: RabbitNode
    redis: RedisNode
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    _workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def config(self) -> Path:
        """The `fleet.toml`."""
        return self.folder / "fleet.toml"

    def configure(self, text: str, **environ: str) -> None:
        """Writes the configuration and declares what it needs in RabbitMQ."""
        self.environ = {
            **os.environ,
            "OPTIMIZER_AMQP_URL": self.rabbitmq.amqp_url,
            "OPTIMIZER_REDIS_URL": self.redis.redis_url,
            **environ,
        }
        self.config.write_text(text, "utf-8")
        whole = declaration(load_fleet(self.config, self.environ))
        asyncio.run(declaring.apply(whole, self.rabbitmq.amqp_url, self.rabbitmq.management_url))

    def start_worker(self, *roles: str) -> None:
        """One more worker process."""
        command = [sys.executable, "-m", "console.main", "worker", *roles, "--config", str(self.config)]
        self._workers.append(
            subprocess.Popen(command, env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    def command(self, *words: str) -> None:
        """Runs `optimizer` with these words.

        Raises:
            subprocess.CalledProcessError: It failed.
        """
        command = [sys.executable, "-m", "console.main", *words, "--config", str(self.config)]
        subprocess.run(command, env=self.environ, check=True, stdout=subprocess.DEVNULL)

    def replace_worker(self, *roles: str) -> None:
        """Kills one of them, never the first, and starts another."""
        victim = random.choice(self._workers[1:])
        self._workers.remove(victim)
        victim.kill()
        victim.wait(30)
        self.start_worker(*roles)

    def end_workers(self, *, kill: bool = True) -> None:
        """Ends all of them; drained where they are not killed."""
        for process in self._workers:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        for process in self._workers:
            process.wait(120)
        self._workers.clear()

    async def restart(self, node: RabbitNode | RedisNode, *, kill: bool = False) -> None:
        """Ends a broker and starts it again on its data."""
        if kill:
            os.kill(node.pid, signal.SIGKILL)
        await asyncio.to_thread(node.stop)
        await asyncio.to_thread(node.start)


@contextmanager
def stand() -> Iterator[Stand]:
    """Everything of a run's own, gone at its end."""
    with (
        TemporaryDirectory(prefix="benchmark-") as folder,
        RabbitNode(Path(folder) / "rabbitmq") as rabbitmq,
        RedisNode(Path(folder) / "redis") as redis,
    ):
        whole = Stand(rabbitmq, redis, Path(folder))
        try:
            yield whole
        finally:
            whole.end_workers()
