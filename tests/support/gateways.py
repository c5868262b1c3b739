"""The gateway: as a process of its own, as people start it, and inside the test's event loop."""

import asyncio
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from gateway.server import base_url, listen, run_gateway
from gateway.speakers import Speakers
from sandbox.nodes import Brokers
from tests.support.house import House, create_vhost, delete_vhost, test_environ
from tests.support.processes import ROOT
from topology.fleet import Fleet

NOWHERE = "amqp://guest:secret@127.0.0.1:9/"


@dataclass
class Gateway:
    base_url: str
    """As OpenAI's SDK takes it, ending in /v1."""
    process: asyncio.subprocess.Process

    @property
    def root_url(self) -> str:
        return self.base_url.removesuffix("/v1")

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 60)


@asynccontextmanager
async def gateway_process(house: House, *options: str) -> AsyncIterator[Gateway]:
    """`optimizer gateway` at a free port, with the house's `fleet.toml`; stopped by SIGTERM at the end."""
    config: Path = house.folder / "fleet.toml"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "console.main", "gateway", "--port", "0", "--config", str(config), *options,
        cwd=ROOT, env=test_environ(house), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    log: list[str] = []
    while line := await asyncio.wait_for(process.stderr.readline(), 60):
        log.append(line.decode())
        if line.strip() == b"ready":
            break
    else:
        raise AssertionError("the gateway ended before it was ready:\n" + "".join(log))
    base_url = log[-2].partition("=")[2].strip().strip("'")
    reading = asyncio.create_task(process.stderr.read(), name="gateway's log")  # a full pipe would stop it
    gateway = Gateway(base_url, process)
    try:
        yield gateway
    finally:
        code = await gateway.stop() if process.returncode is None else process.returncode
        said = (await reading).decode()
        assert (code, "Traceback" in said) == (0, False), said


@asynccontextmanager
async def gateway_here(
    house: House | None,
    fleet: Fleet,
    environ: Mapping[str, str] | None = None,
    load: Callable[[], Fleet] | None = None,
) -> AsyncIterator[str]:
    """A gateway in this event loop, without a house before no broker; gives its base URL."""
    amqp_url = house.amqp_url if house else NOWHERE
    environ = environ or (house.environ if house else {})
    listener = listen("127.0.0.1", 0)
    stop, ready = asyncio.Event(), asyncio.Event()
    speakers = Speakers(fleet.gateway, environ)
    running = asyncio.create_task(
        run_gateway(fleet, speakers, amqp_url, listener, stop=stop, on_ready=ready.set, load=load),
        name="gateway",
    )
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        yield base_url(listener)
    finally:
        stop.set()
        await running


@contextmanager
def house_in(brokers: Brokers, folder: Path) -> Iterator[House]:
    """A house that several tests share."""
    assert brokers.management_url is not None
    name = f"test-{secrets.token_hex(6)}"
    create_vhost(brokers.management_url, name)
    amqp_url = urlunsplit(urlsplit(brokers.amqp_url)._replace(path=f"/{name}"))
    yield House(amqp_url, brokers.redis_url, brokers.management_url, name, f"{name}:", folder)
    delete_vhost(brokers.management_url, name)
