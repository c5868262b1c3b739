"""Where RabbitMQ and Redis come from: given, Docker's, or private processes of ours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from sandbox.nodes.compose import docker_answers, services_up
from sandbox.nodes.errors import NoBroker
from sandbox.nodes.locking import hold
from sandbox.nodes.node import Node
from sandbox.nodes.programs import rabbitmq_server, redis_server
from sandbox.nodes.rabbitmq import RabbitNode
from sandbox.nodes.redis import RedisNode

_WHAT_TO_DO = """\
No RabbitMQ and Redis found ({reason}). Do one of these:
  - give the URLs of running ones: OPTIMIZER_AMQP_URL and OPTIMIZER_REDIS_URL
  - start Docker
  - install the servers: apt-get install rabbitmq-server redis-server
    or: brew install rabbitmq redis"""


@dataclass(frozen=True)
class Brokers:
    """Where RabbitMQ and Redis are.

    The URLs may carry passwords and do not show in ``repr``.

    Attributes:
        amqp_url: RabbitMQ, virtual host included.
        redis_url: Redis, database included.
        management_url: RabbitMQ's HTTP API with user and password, ``None`` where unknown.
        origin: Whose they are; ``"private"`` as soon as one of them is a process of ours.
    """

    amqp_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    management_url: str | None = field(repr=False)
    origin: Literal["given", "docker", "private"]


@contextmanager
def find_brokers(
    folder: Path,
    environ: Mapping[str, str],
    *,
    say: Callable[[str], None],
    compose_file: Path | None = None,
    fresh: bool = False,
) -> Iterator[Brokers]:
    """Find a RabbitMQ and a Redis, starting them where needed, and stop what was started.

    The order: ``OPTIMIZER_AMQP_URL`` and ``OPTIMIZER_REDIS_URL`` (with one of them, a private node
    for the other; ``OPTIMIZER_MANAGEMENT_URL`` belongs to the first); Docker with the compose file;
    private processes. ``OPTIMIZER_BROKERS`` set to ``docker`` or ``private`` allows only that one of
    the last two. Blocks: up to 90 seconds for private nodes, longer when Docker loads images.

    Args:
        folder: Home of private nodes and of the lock; data stay here from one run to the next.
        environ: Where the variables are read, and ``PATH`` for ``docker``.
        say: Is told in one line what starts, for people.
        compose_file: Has services ``rabbitmq`` and ``redis`` on 127.0.0.1, on their usual ports or
            those of ``OPTIMIZER_AMQP_PORT``, ``OPTIMIZER_MANAGEMENT_PORT``, ``OPTIMIZER_REDIS_PORT``;
            ``None`` or a file that does not exist leaves Docker out.
        fresh: Deletes what private nodes kept in ``folder`` first.

    Raises:
        FolderInUse: Another process works in this folder.
        NoBroker: There is nothing to connect to and nothing to start; the text says what to do.
        NodeFailed: A server did not start.
    """
    with hold(folder), ExitStack() as stack:
        if fresh:
            for node in (RabbitNode(folder / "rabbitmq"), RedisNode(folder / "redis")):
                node.discard()
        amqp_url = environ.get("OPTIMIZER_AMQP_URL")
        redis_url = environ.get("OPTIMIZER_REDIS_URL")
        if amqp_url and redis_url:
            yield Brokers(amqp_url, redis_url, _management_url(amqp_url, environ), "given")
        elif not amqp_url and not redis_url and (file := _compose(compose_file, environ)):
            say("starting RabbitMQ and Redis with Docker")
            stack.enter_context(services_up(file, environ))
            yield _published(environ)
        else:
            yield stack.enter_context(_private(folder, environ, amqp_url, redis_url, say))


def _compose(compose_file: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The compose file, if it is what to use."""
    forced = environ.get("OPTIMIZER_BROKERS") or None
    if forced not in (None, "docker", "private"):
        raise NoBroker(f"OPTIMIZER_BROKERS is {forced!r}: it may be docker or private")
    if forced == "private":
        return None
    if compose_file is not None and compose_file.is_file() and docker_answers(environ):
        return compose_file
    if forced == "docker":
        reason = "OPTIMIZER_BROKERS is docker, but no engine answers or there is no compose file"
        raise NoBroker(_WHAT_TO_DO.format(reason=reason))
    return None


def _published(environ: Mapping[str, str]) -> Brokers:
    """Where the compose file publishes them, by the variables that it reads as well."""
    amqp, redis, management = (
        environ.get(f"OPTIMIZER_{name}_PORT") or usual
        for name, usual in (("AMQP", "5672"), ("REDIS", "6379"), ("MANAGEMENT", "15672"))
    )
    return Brokers(
        amqp_url=f"amqp://guest:guest@127.0.0.1:{amqp}/",
        redis_url=f"redis://127.0.0.1:{redis}/0",
        management_url=f"http://guest:guest@127.0.0.1:{management}",
        origin="docker",
    )


@contextmanager
def _private(
    folder: Path,
    environ: Mapping[str, str],
    amqp_url: str | None,
    redis_url: str | None,
    say: Callable[[str], None],
) -> Iterator[Brokers]:
    """Run the nodes that no URL stands for."""
    rabbit = None if amqp_url else RabbitNode(folder / "rabbitmq")
    redis = None if redis_url else RedisNode(folder / "redis")
    missing = []
    if rabbit and rabbitmq_server(environ) is None:
        missing.append("rabbitmq-server")
    if redis and redis_server(environ) is None:
        missing.append("redis-server")
    if missing:
        reason = f"{' and '.join(missing)} not installed, no Docker engine to use"
        raise NoBroker(_WHAT_TO_DO.format(reason=reason))
    nodes = [node for node in (rabbit, redis) if node is not None]
    say(f"starting {' and '.join(node.title for node in nodes)} in {folder}")
    with _running(nodes):
        yield Brokers(
            amqp_url=rabbit.amqp_url if rabbit else amqp_url or "",
            redis_url=redis.redis_url if redis else redis_url or "",
            management_url=(rabbit.management_url if rabbit else _management_url(amqp_url or "", environ)),
            origin="private",
        )


@contextmanager
def _running(nodes: Sequence[Node]) -> Iterator[None]:
    """Start the nodes at the same time; stop all of them, whatever happens."""
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.stop)
        with ThreadPoolExecutor(len(nodes), thread_name_prefix="node-start") as pool:
            for start in [pool.submit(node.start) for node in nodes]:
                start.result()
        yield


def _management_url(amqp_url: str, environ: Mapping[str, str]) -> str | None:
    """The HTTP API of a given broker: as given, or the same hosts and user on the usual port."""
    given = environ.get("OPTIMIZER_MANAGEMENT_URL")
    if given:
        return given
    url = urlsplit(amqp_url)
    if url.hostname is None:
        return None
    user, at, nodes = url.netloc.rpartition("@")
    hosts = [urlsplit(f"//{node}").hostname or "" for node in nodes.split(",")]
    scheme, port = ("https", 15671) if url.scheme == "amqps" else ("http", 15672)
    apis = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts)
    return f"{scheme}://{user}{at}{apis}"
