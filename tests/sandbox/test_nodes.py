import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import pytest
import redis

from sandbox.nodes import (
    Brokers,
    FolderInUse,
    NoBroker,
    NodeFailed,
    RabbitNode,
    RedisNode,
    find_brokers,
    programs,
)
from sandbox.nodes.ports import is_free
from sandbox.nodes.processes import Process, find_again, launch, wait_until

INSTALLED = programs.rabbitmq_server(os.environ) and programs.redis_server(os.environ)
needs_servers = pytest.mark.skipif(
    not INSTALLED and "CI" not in os.environ,
    reason="rabbitmq-server and redis-server are not installed",
)


# Private nodes


@needs_servers
async def test_a_rabbitmq_node_works_keeps_its_data_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "rabbitmq"
    with RabbitNode(folder) as node:
        address = node.amqp_url
        assert api(node.management_url, "/api/overview")["node"].startswith("optimizer-")
        await publish(node.amqp_url, b"kept")
        assert listens_only_on_loopback(node.pid)
    assert traces_of(folder) == []

    with RabbitNode(folder) as node:
        assert node.amqp_url == address
        assert await fetch(node.amqp_url) == b"kept"
    assert traces_of(folder) == []


@needs_servers
def test_a_redis_node_keeps_its_data_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with RedisNode(tmp_path) as node:
        address = node.redis_url
        with redis.Redis.from_url(node.redis_url) as client:
            client.set("kept", "yes")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert traces_of(tmp_path) == []

    with RedisNode(tmp_path) as node, redis.Redis.from_url(node.redis_url) as client:
        assert node.redis_url == address
        assert client.get("kept") == b"yes"


@needs_servers
def test_a_folder_that_is_not_to_be_kept_goes_with_its_node(tmp_path: Path) -> None:
    node = RedisNode(tmp_path / "redis", append_only=False, keep=False)
    with node:
        node.start()  # it is started: nothing happens
        assert node.folder.is_dir()
    node.stop()
    assert not node.folder.exists()


@needs_servers
def test_nodes_left_by_a_killed_process_are_adopted(tmp_path: Path) -> None:
    left = brokers_of_a_killed_process(tmp_path)
    with find_brokers(tmp_path, private(), say=ignore) as found:
        assert found.amqp_url == left["amqp"]
        assert found.redis_url == left["redis"]
        assert pids(tmp_path) == left["pids"]
    assert traces_of(tmp_path) == []


@needs_servers
def test_a_node_left_behind_that_does_not_answer_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.nodes.node._ADOPTION_LIMIT", 0.2)
    monkeypatch.setattr("sandbox.nodes.node._STOP_GRACE", 0.2)
    left = RedisNode(tmp_path)
    left.start()
    stuck = left.pid
    os.kill(stuck, signal.SIGSTOP)
    with RedisNode(tmp_path) as node:
        assert node.pid != stuck
        assert node.redis_url == left.redis_url
    left.stop()
    assert traces_of(tmp_path) == []


@needs_servers
def test_a_port_that_was_asked_for_and_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        with pytest.raises(NodeFailed, match=f"port {port} .* in use"):
            RedisNode(tmp_path, port=port).start()


@needs_servers
def test_a_remembered_port_that_a_stranger_took_is_replaced(tmp_path: Path) -> None:
    with RedisNode(tmp_path) as node:
        port = urlsplit(node.redis_url).port
    with socket.create_server(("127.0.0.1", port)), RedisNode(tmp_path) as node:
        assert urlsplit(node.redis_url).port != port


@needs_servers
def test_a_server_that_dies_at_its_start_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.nodes.redis._CONFIG", "no-such-setting 1\n")
    with pytest.raises(NodeFailed, match="Bad directive"):
        RedisNode(tmp_path).start()
    assert traces_of(tmp_path) == []


def test_a_recycled_pid_is_not_taken_for_the_node(tmp_path: Path) -> None:
    process = launch(
        [sys.executable, "-c", "input()"],
        environ={},
        folder=tmp_path,
        output=tmp_path / "output",
        pid_file=tmp_path / "pid",
    )
    process.stop(5.0)
    (tmp_path / "pid").write_text(f"{os.getpid()} {process.birth}\n")
    assert find_again(tmp_path / "pid") is None
    assert not Process(os.getpid(), "another birth").alive


# The order of finding


def test_given_urls_come_first(tmp_path: Path, docker: dict[str, str]) -> None:
    given = {
        **docker,
        "OPTIMIZER_AMQP_URL": "amqp://me:secret@rabbit.example:5673/fleet",
        "OPTIMIZER_REDIS_URL": "redis://redis.example/1",
    }
    with find_brokers(tmp_path, given, say=ignore, compose_file=compose(tmp_path)) as found:
        assert found == Brokers(
            "amqp://me:secret@rabbit.example:5673/fleet",
            "redis://redis.example/1",
            "http://me:secret@rabbit.example:15672",
            "given",
        )
        assert "secret" not in repr(found)
    given["OPTIMIZER_MANAGEMENT_URL"] = "https://rabbit.example"
    with find_brokers(tmp_path, given, say=ignore) as found:
        assert found.management_url == "https://rabbit.example"


def test_of_several_given_nodes_each_has_a_management_api(tmp_path: Path) -> None:
    given = {
        "OPTIMIZER_AMQP_URL": "amqp://me:secret@one:5673,two,[::1]:5672/fleet",
        "OPTIMIZER_REDIS_URL": "redis+sentinel://one:26379,two:26379/optimizer/0",
    }
    with find_brokers(tmp_path, given, say=ignore) as found:
        assert found.management_url == "http://me:secret@one:15672,two:15672,[::1]:15672"


@needs_servers
def test_one_given_url_gets_a_private_node_for_the_other(tmp_path: Path) -> None:
    given = {**os.environ, "OPTIMIZER_AMQP_URL": "amqps://rabbit.example"}
    said: list[str] = []
    with find_brokers(tmp_path, given, say=said.append) as found:
        assert found.amqp_url == "amqps://rabbit.example"
        assert found.management_url == "https://rabbit.example:15671"
        assert found.origin == "private"
        with redis.Redis.from_url(found.redis_url) as client:
            assert client.ping()
    assert said == [f"starting Redis in {tmp_path}"]


def test_docker_comes_second_and_what_ran_before_stays(tmp_path: Path, docker: dict[str, str]) -> None:
    file = compose(tmp_path)
    with find_brokers(tmp_path, docker, say=ignore, compose_file=file) as found:
        assert found.origin == "docker"
        assert found.amqp_url == "amqp://guest:guest@127.0.0.1:5672/"
    calls = (tmp_path / "docker.calls").read_text().splitlines()
    assert calls[-2:] == [
        f"compose -f {file} up -d --wait rabbitmq redis",
        f"compose -f {file} stop rabbitmq",  # redis ran already, says the fake
    ]


def test_docker_is_looked_for_where_compose_was_told_to_publish(
    tmp_path: Path, docker: dict[str, str]
) -> None:
    docker |= {"OPTIMIZER_AMQP_PORT": "25672", "OPTIMIZER_REDIS_PORT": "26379"}
    with find_brokers(tmp_path, docker, say=ignore, compose_file=compose(tmp_path)) as found:
        assert found.amqp_url == "amqp://guest:guest@127.0.0.1:25672/"
        assert found.redis_url == "redis://127.0.0.1:26379/0"
        assert found.management_url == "http://guest:guest@127.0.0.1:15672"


@pytest.mark.parametrize("why_not", ["no compose file", "forced private", "no engine"])
def test_without_docker_and_servers_one_text_says_what_to_do(
    tmp_path: Path, docker: dict[str, str], nothing_installed: None, why_not: str
) -> None:
    file = None if why_not == "no compose file" else compose(tmp_path)
    if why_not == "forced private":
        docker["OPTIMIZER_BROKERS"] = "private"
    if why_not == "no engine":
        docker["PATH"] = "/nowhere"
    with (
        pytest.raises(NoBroker, match=r"OPTIMIZER_AMQP_URL(?s:.*)Docker(?s:.*)apt-get"),
        find_brokers(tmp_path, docker, say=ignore, compose_file=file),
    ):
        pass


def test_docker_that_is_forced_and_absent_is_an_error(tmp_path: Path) -> None:
    forced = {"OPTIMIZER_BROKERS": "docker", "PATH": "/nowhere"}
    with (
        pytest.raises(NoBroker, match="no engine answers"),
        find_brokers(tmp_path, forced, say=ignore, compose_file=compose(tmp_path)),
    ):
        pass


def test_a_second_start_in_the_same_folder_names_who_holds_it(tmp_path: Path) -> None:
    given = {"OPTIMIZER_AMQP_URL": "amqp://a", "OPTIMIZER_REDIS_URL": "redis://b"}
    with (
        find_brokers(tmp_path, given, say=ignore),
        pytest.raises(FolderInUse, match=f"process {os.getpid()}:"),
        find_brokers(tmp_path, given, say=ignore),
    ):
        pass
    with find_brokers(tmp_path, given, say=ignore):
        pass  # the lock is free again


# What the tests stand on


@pytest.fixture
def docker(tmp_path: Path) -> dict[str, str]:
    """An environment whose ``docker`` answers, has redis running, and writes down its calls."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$*" >>{tmp_path}/docker.calls\n'
        'case "$*" in info*) echo 27.0 ;; *" ps "*) echo redis ;; esac\n'
    )
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:/usr/bin:/bin"}


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.nodes.finding.rabbitmq_server", lambda _: None)
    monkeypatch.setattr("sandbox.nodes.finding.redis_server", lambda _: None)


def compose(folder: Path) -> Path:
    file = folder / "compose.yaml"
    file.touch()
    return file


def ignore(_: str) -> None:
    pass


def private() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "OPTIMIZER_BROKERS": "private"}


async def publish(amqp_url: str, body: bytes) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "kept", mandatory=True)


async def fetch(amqp_url: str) -> bytes:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("kept")
        message = await queue.get(timeout=20, fail=True)
        assert message is not None
        await message.ack()
        return message.body


def api(management_url: str, path: str) -> dict[str, str]:
    url = urlsplit(management_url)
    keys = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    bare = f"http://{url.hostname}:{url.port}"
    keys.add_password(None, bare, url.username or "", url.password or "")
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(keys))
    with opener.open(bare + path, timeout=10) as answer:
        found: dict[str, str] = json.load(answer)
        return found


def brokers_of_a_killed_process(folder: Path) -> dict[str, object]:
    """Start nodes in a process of their own and kill it once they run."""
    code = (
        "import os, sys, pathlib, signal\n"
        "from sandbox.nodes import find_brokers\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with find_brokers(folder, os.environ, say=lambda _: None) as found:\n"
        "    print(found.amqp_url, found.redis_url, flush=True)\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen(  # our own code
        [sys.executable, "-c", code, str(folder)],
        env=private(),
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        amqp, redis_url = parent.stdout.readline().split()
        parent.kill()
    return {"amqp": amqp, "redis": redis_url, "pids": pids(folder)}


def pids(folder: Path) -> list[str]:
    return [(folder / name / "pid").read_text() for name in ("rabbitmq", "redis")]


def traces_of(folder: Path) -> list[str]:
    """Ports in use and processes that mention the folder, after a moment to vanish."""
    deadline = time.monotonic() + 5.0
    while (traces := _traces(folder)) and time.monotonic() < deadline:
        wait_until(lambda: not _traces(folder), 0.5)
    return traces


def _traces(folder: Path) -> list[str]:
    ports = [
        f"{name} {port}"
        for file in folder.rglob("ports.json")
        for name, port in json.loads(file.read_text()).items()
        if not is_free(port)
    ]
    processes = [str(pid) for pid in _processes() if _mentions(pid, folder)]
    return ports + processes


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def _mentions(pid: int, folder: Path) -> bool:
    if pid == os.getpid():
        return False
    try:
        place = Path(f"/proc/{pid}")
        told = (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
        return str(folder).encode() in told or (place / "cwd").readlink().is_relative_to(folder)
    except OSError:
        return False


def listens_only_on_loopback(pid: int) -> bool:
    """Whether every listening IPv4 socket of this process is bound to 127.0.0.1."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # closed while we looked
            continue
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.append(fields[1].partition(":")[0])
    return len(found) >= 3 and set(found) == {"0100007F"}
