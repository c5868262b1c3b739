"""A TCP proxy that can cut a line, swallow what is said on it, or delay what the server says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lines: set[_Line] = set()
        self._open = True
        self._silent = False
        self._delay_s = 0.0
        self.port = 0

    def cut(self) -> None:
        """Ends every connection, and takes no new one."""
        self._open = False
        for line in list(self._lines):
            line.abort()

    def silence(self) -> None:
        """Swallows what the server says from now on."""
        self._silent = True

    def half_open(self) -> None:
        """Swallows both ways, even an end, for ever, on the lines that are open now; new ones are whole."""
        for line in self._lines:
            line.is_dead = True

    def delay(self, seconds: float) -> None:
        """Holds back what the server says from now on, for so long each time."""
        self._delay_s = seconds

    def restore(self) -> None:
        self._open = True
        self._silent = False
        self._delay_s = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        try:
            back_reader, back_writer = await asyncio.open_connection(*self._target)
        except OSError:  # the server is away
            writer.transport.abort()
            return
        line = _Line(writer, back_writer)
        self._lines.add(line)
        try:
            await asyncio.gather(
                line.pump(reader, back_writer, lambda: True, lambda: 0.0),
                line.pump(back_reader, writer, lambda: not self._silent, lambda: self._delay_s),
            )
        finally:
            self._lines.discard(line)


class _Line:
    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self.is_dead = False
        self._over = asyncio.Event()

    def abort(self) -> None:
        self._over.set()
        for writer in self._writers:
            writer.transport.abort()

    async def pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        passes: Callable[[], bool],
        delay_s: Callable[[], float],
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if wait_s := delay_s():
                    await asyncio.sleep(wait_s)
                if passes() and not self.is_dead:
                    writer.write(data)
                    await writer.drain()
        if self.is_dead:
            await self._over.wait()
        writer.close()


@asynccontextmanager
async def proxy_to(host: str, port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
        proxy.cut()


@asynccontextmanager
async def proxy_before(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before a server, and the URL that leads through it."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    async with proxy_to(parts.hostname or "", parts.port or 5672) as proxy:
        yield proxy, urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{proxy.port}"))
