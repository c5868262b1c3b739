"""A Redis primary, a replica and a Sentinel, as private processes that a test may kill and freeze."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisAway

from sandbox.nodes import programs
from tests.support.waiting import until

NAME = "optimizer"
DOWN_AFTER_S = 1.0

_SENTINEL = """\
bind 127.0.0.1
port {port}
dir {folder}
sentinel monitor {name} 127.0.0.1 {primary} 1
sentinel down-after-milliseconds {name} {down_after_ms:.0f}
sentinel failover-timeout {name} 10000
"""


class Watched:
    """Two Redis servers, one of them the primary, and who decides which."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sentinel, *self._ports = free_ports(3)
        self._servers: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Its first Sentinel is away, which must not matter."""
        return f"redis+sentinel://127.0.0.1:9,127.0.0.1:{self._sentinel}/{NAME}/0"

    def start(self) -> None:
        first, second = self._ports
        self._serve(first)
        self._serve(second, "--replicaof", "127.0.0.1", str(first))
        config = self._folder / "sentinel.conf"
        config.write_text(
            _SENTINEL.format(
                port=self._sentinel,
                folder=self._folder,
                name=NAME,
                primary=first,
                down_after_ms=DOWN_AFTER_S * 1000,
            )
        )
        self._run(self._sentinel, str(config), "--sentinel")

    def stop(self) -> None:
        for server in self._servers.values():
            server.kill()
            server.wait()

    async def stands(self) -> None:
        """Waits until the replica follows, and the Sentinel knows it."""
        await until(self._knows_replica)

    async def primary(self) -> int:
        """The primary's port, as the Sentinel has it."""
        async with Redis(port=self._sentinel) as sentinel:
            address = await sentinel.sentinel_get_master_addr_by_name(NAME)
            assert isinstance(address, tuple)
            return int(address[1])

    async def role(self, port: int) -> str:
        """What a server takes itself for; `away` where it does not say."""
        try:
            async with Redis(port=port) as redis:
                return str((await redis.info("replication"))["role"])
        except RedisAway:
            return "away"

    def kill(self, port: int) -> None:
        self._servers[port].kill()

    def freeze(self, port: int) -> None:
        self._servers[port].send_signal(signal.SIGSTOP)

    def thaw(self, port: int) -> None:
        self._servers[port].send_signal(signal.SIGCONT)

    def _serve(self, port: int, *options: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir()
        self._run(
            port, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
            "--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0", *options,
        )  # fmt: skip

    def _run(self, port: int, *words: str) -> None:
        server = programs.redis_server(os.environ)
        assert server is not None
        with (self._folder / f"{port}.log").open("wb") as log:
            self._servers[port] = subprocess.Popen([str(server), *words], stdout=log, stderr=log)

    async def _knows_replica(self) -> bool:
        try:
            async with Redis(port=self._sentinel) as sentinel:
                replicas = await sentinel.sentinel_slaves(NAME)
        except RedisAway:
            return False
        return [replica["master-link-status"] for replica in replicas] == ["ok"]


@asynccontextmanager
async def watched_redis(folder: Path) -> AsyncIterator[Watched]:
    watched = Watched(folder)
    try:
        watched.start()
        await watched.stands()
        yield watched
    finally:
        await asyncio.to_thread(watched.stop)


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:  # all at once, so that none comes twice
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
