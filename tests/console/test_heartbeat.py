import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

from console.heartbeat import HEARTBEAT_FILE, NOTIFY_SOCKET, SILENCE_S, beating, what_is_wrong
from tests.support.waiting import until


async def test_a_process_counts_as_alive_from_when_it_is_ready_until_it_ends(tmp_path: Path) -> None:
    environ = {HEARTBEAT_FILE: str(tmp_path / "beat")}
    ready = asyncio.Event()
    async with beating(ready, environ):
        assert "no heartbeat" in (what_is_wrong(environ) or "")
        ready.set()
        await until(lambda: what_is_wrong(environ) is None)
    assert "no heartbeat" in (what_is_wrong(environ) or "")


async def test_a_process_that_hangs_counts_as_dead_and_again_as_alive_when_it_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "beat"
    environ = {HEARTBEAT_FILE: str(file)}
    async with beating(environ=environ):
        await until(file.exists)
        long_ago = file.stat().st_mtime - SILENCE_S - 60
        os.utime(file, (long_ago, long_ago))
        assert "the last heartbeat was" in (what_is_wrong(environ) or "")
        await until(lambda: what_is_wrong(environ) is None)


async def test_systemd_hears_when_a_process_is_ready_and_that_it_goes_on(tmp_path: Path) -> None:
    ready, heard = asyncio.Event(), list[bytes]()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.setblocking(False)
        systemd.bind(str(tmp_path / "notify"))
        asyncio.get_running_loop().add_reader(systemd, lambda: heard.append(systemd.recv(100)))
        async with beating(ready, {NOTIFY_SOCKET: str(tmp_path / "notify")}):
            await asyncio.sleep(0)
            assert heard == []
            ready.set()
            await until(lambda: len(heard) == 2)
        asyncio.get_running_loop().remove_reader(systemd)

    assert heard == [b"READY=1\nWATCHDOG=1", b"WATCHDOG=1"]


async def test_a_file_that_cannot_be_written_stops_nobody_and_fails_the_check(tmp_path: Path) -> None:
    environ = {HEARTBEAT_FILE: str(tmp_path / "absent" / "beat")}
    async with beating(environ=environ):
        await asyncio.sleep(0)
        assert "no heartbeat" in (what_is_wrong(environ) or "")


def test_a_check_without_a_file_says_what_is_missing() -> None:
    assert what_is_wrong({}) == f"{HEARTBEAT_FILE} is not set"


def test_the_check_is_a_command_for_containers(tmp_path: Path) -> None:
    file = tmp_path / "beat"
    command = [sys.executable, "-m", "console.heartbeat"]
    environ = {**os.environ, HEARTBEAT_FILE: str(file)}

    failed = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr.strip()) == (
        1,
        f"no heartbeat: {file}: No such file or directory",
    )
    file.touch()
    assert subprocess.run(command, env=environ, check=False).returncode == 0
