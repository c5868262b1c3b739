"""A TCP proxy that can cut a line and hold it cut, or swallow what the server says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress


class Proxy:
    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = True
        self._silent = False
        self.port = 0

    def cut(self) -> None:
        """Ends every connection, and takes no new one."""
        self._open = False
        for writer in list(self._writers):
            writer.transport.abort()

    def silence(self) -> None:
        """Swallows what the server says from now on."""
        self._silent = True

    def restore(self) -> None:
        self._open = True
        self._silent = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        back_reader, back_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back_writer}
        try:
            await asyncio.gather(
                _pump(reader, back_writer, lambda: True), _pump(back_reader, writer, lambda: not self._silent)
            )
        finally:
            self._writers -= {writer, back_writer}


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[], bool]
) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            if passes():
                writer.write(data)
                await writer.drain()
    writer.close()


@asynccontextmanager
async def proxy_to(host: str, port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
        proxy.cut()
