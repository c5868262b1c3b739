"""A private RabbitMQ node on 127.0.0.1, with its management plugin."""

import base64
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from typing_extensions import override  # in typing from Python 3.12

from sandbox.nodes.epmd import stop_epmd
from sandbox.nodes.errors import NoBroker
from sandbox.nodes.node import Launch, Node
from sandbox.nodes.programs import rabbitmq_server, search_path

_CONFIG = """\
listeners.tcp.local = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
loopback_users.guest = true
consumer_timeout = 7200000
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.relative = 0.3
collect_statistics_interval = 5000
log.console = false
log.file = node.log
log.file.level = info
log.file.rotation.size = 10485760
log.file.rotation.count = 3
"""

# Two schedulers that sleep when idle: the node shares a small machine with everything else.
_LIGHT = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"

_UNHOOK = "rpc:call('{name}', gen_event, delete_handler, [rabbit_event, rabbit_mgmt_db_handler, stop])"
_UNHOOK_LIMIT = 5.0

_AMQP_0_9_1 = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = b"\x01"
_GUEST = "Basic " + base64.b64encode(b"guest:guest").decode()


class RabbitNode(Node):
    """A RabbitMQ node of our own; user and password are ``guest``, the virtual host is ``/``.

    AMQP, management, Erlang distribution and epmd all listen on 127.0.0.1 alone.

    Args:
        folder: Home of its data, its logs and what is remembered about it. Its data are named
            after the node, whose name is drawn once for a folder.
        port: AMQP port; ``None`` for the remembered one, or a free one.
        management_port: Port of the HTTP API and the management UI; likewise.
        keep: Whether the folder stays after ``stop()``.
    """

    title = "RabbitMQ"

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        management_port: int | None = None,
        keep: bool = True,
    ) -> None:
        ports = {"amqp": port, "management": management_port, "distribution": None, "epmd": None}
        super().__init__(folder, ports, keep=keep)

    @property
    def amqp_url(self) -> str:
        """``amqp://guest:guest@127.0.0.1:PORT/``, once started."""
        return f"amqp://guest:guest@127.0.0.1:{self._ports['amqp']}/"

    @property
    def management_url(self) -> str:
        """``http://guest:guest@127.0.0.1:PORT``, once started."""
        return f"http://guest:guest@127.0.0.1:{self._ports['management']}"

    @override
    def _prepare(self) -> Launch:
        server = rabbitmq_server(os.environ)
        if server is None:
            raise NoBroker("rabbitmq-server is not installed")
        config = self.folder / "rabbitmq.conf"
        config.write_text(_CONFIG.format_map(self._ports), encoding="utf-8")
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n", encoding="utf-8")
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(secrets.token_hex(20), encoding="ascii")
            cookie.chmod(0o400)  # Erlang refuses one that others can read
        return Launch((str(server),), self._environ())

    def _environ(self) -> dict[str, str]:
        """A whole environment, so that no setting of the caller's or of /etc/rabbitmq leaks in."""
        name, port = self._name(), self._ports["distribution"]
        # Distribution that runs already when RabbitMQ boots spares it the start of another Erlang
        # to make sure of epmd: more than a second. A pid that is Erlang's own, not a shell's,
        # needs ALLOW_INPUT, and -noinput to take that back.
        distribution = (
            f"-noinput -sname {name} {_LOOPBACK}"
            f" -kernel inet_dist_listen_min {port} -kernel inet_dist_listen_max {port}"
        )
        return {
            **self._erlang(),
            "RABBITMQ_NODENAME": name,
            "RABBITMQ_DIST_PORT": str(port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_SCHEMA_DIR": str(self.folder / "schema"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(self.folder / "conf.d"),  # these two do not exist
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",  # not bound to cores that others need too
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_LIGHT} {distribution}",
        }

    def _erlang(self) -> dict[str, str]:
        return {
            "PATH": search_path(os.environ),
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.folder),  # where Erlang looks for the cookie
            "ERL_EPMD_PORT": str(self._ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _name(self) -> str:
        file = self.folder / "nodename"
        if not file.exists():
            file.write_text(f"optimizer-{secrets.token_hex(4)}@localhost", encoding="ascii")
        return file.read_text(encoding="ascii").strip()

    @override
    def _answers(self) -> bool:
        return _speaks_amqp(self._ports["amqp"]) and _has_overview(self._ports["management"])

    @override
    def _was_bad_luck(self) -> bool:
        """Erlang starts epmd and does not wait until it listens; a busy machine can be too late for it."""
        return "register/listen error" in self._output.read_text(encoding="utf-8", errors="replace")

    @override
    def _before_stop(self) -> None:
        """Spare the node a wait of five seconds, a deadlock in RabbitMQ's own shutdown.

        The application controller stops ``rabbit``, whose management agent asks the application
        controller to change a setting. Seen in 3.10; where it fails, stopping just takes longer.
        """
        erl = shutil.which("erl", path=search_path(os.environ))
        if erl is None:
            return
        caller = f"optimizer-stop-{secrets.token_hex(4)}@localhost"
        code = f"{_UNHOOK.format(name=self._name())}, halt()."
        flags = f"-boot no_dot_erlang +S 1:1 -noinput -hidden -sname {caller} {_LOOPBACK}"
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(  # noqa: S603  # flags and code are ours
                [erl, *flags.split(), "-eval", code],
                env=self._erlang(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_UNHOOK_LIMIT,
                check=False,
            )

    @override
    def _sweep(self) -> None:
        if "epmd" in self._ports:
            stop_epmd(self._ports["epmd"])


def _speaks_amqp(port: int) -> bool:
    """Whether the broker opens the protocol: it sends Connection.Start, a method frame."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as line:
            line.sendall(_AMQP_0_9_1)
            return line.recv(1) == _METHOD_FRAME
    except OSError:
        return False


def _has_overview(port: int) -> bool:
    """Whether the HTTP API knows its user and its node."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        line.request("GET", "/api/overview", headers={"Authorization": _GUEST})
        answer = line.getresponse()
        return answer.status == http.HTTPStatus.OK and "node" in json.load(answer)
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        line.close()
