"""A private Redis on 127.0.0.1."""

import os
import socket
from pathlib import Path

from typing_extensions import override  # in typing from Python 3.12

from sandbox.nodes.errors import NoBroker
from sandbox.nodes.node import Launch, Node
from sandbox.nodes.programs import redis_server

# Nothing is ever evicted: leases, claims and counters are the truth, not a cache.
# An append-only file synced every second loses at most that second in a crash of the machine, and
# nothing when only the process dies.
_CONFIG = """\
bind 127.0.0.1
port {port}
protected-mode yes
daemonize no
dir ./
appendonly {append_only}
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


class RedisNode(Node):
    """A Redis server of our own.

    Args:
        folder: Home of its data, its log and what is remembered about it.
        port: Its port; ``None`` for the remembered one, or a free one.
        append_only: Whether data survive a restart.
        keep: Whether the folder stays after ``stop()``.
    """

    title = "Redis"

    def __init__(
        self, folder: Path, *, port: int | None = None, append_only: bool = True, keep: bool = True
    ) -> None:
        super().__init__(folder, {"redis": port}, keep=keep)
        self._append_only = append_only

    @property
    def redis_url(self) -> str:
        """``redis://127.0.0.1:PORT/0``, once started."""
        return f"redis://127.0.0.1:{self._ports['redis']}/0"

    @override
    def _prepare(self) -> Launch:
        server = redis_server(os.environ)
        if server is None:
            raise NoBroker("redis-server is not installed")
        config = self.folder / "redis.conf"
        append_only = "yes" if self._append_only else "no"
        config.write_text(
            _CONFIG.format(port=self._ports["redis"], append_only=append_only), encoding="utf-8"
        )
        return Launch((str(server), str(config)), {"PATH": os.defpath, "LC_ALL": "C"})

    @override
    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._ports["redis"]), 1.0) as line:
                line.sendall(b"PING\r\n")
                return line.recv(16).startswith(b"+PONG")  # not while it loads its data
        except OSError:
            return False
