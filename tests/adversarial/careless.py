"""A proxy that goes wherever it is asked to, and puts a credential in without a thought.

It is where programs that try to get past the egress proxy have to succeed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from urllib.parse import urlsplit


class Careless:
    """One listener on loopback; `port` is where."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def aclose(self) -> None:
        """End what is still served: nobody else holds such a task, and it may wait for ever."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.ensure_future(self._served(reader, writer))
        self._tasks.add(serving)
        serving.add_done_callback(self._tasks.discard)

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, _, rest = head.partition("\r\n")
                method, target, version = first.split(" ", 2)
                if method == "CONNECT":
                    there = await _reach(*_place(target))
                    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    there = await self._forward(method, target, version, rest)
                await _both((reader, writer), there)
        finally:
            writer.close()

    async def _forward(
        self, method: str, target: str, version: str, rest: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if target.startswith("http"):
            parts = urlsplit(target)
            place, path, secure = parts.netloc, parts.path or "/", parts.scheme == "https"
        else:
            place, _, path = target[1:].partition("/")
            path, secure = f"/{path}", True
        there = await _reach(*_place(place), secure=secure)
        lines = [line for line in rest.split("\r\n") if not line.lower().startswith("host:")]
        if "authorization" not in rest.lower():
            lines.insert(0, f"Authorization: Bearer {self._secret}")
        head = "\r\n".join([f"{method} {path} {version}", f"Host: {place}", *lines])
        there[1].write(head.encode("latin-1"))
        return there


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.rpartition("@")[2].strip("[]"), int(port) & 0xFFFF


async def _reach(
    host: str, port: int, *, secure: bool = False
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not secure:
        return await asyncio.open_connection(host, port)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError:
        return await asyncio.open_connection(host, port)


async def _both(
    one: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    other: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, ssl.SSLError):
                while data := await reader.read(65_536):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()

    await asyncio.gather(pump(one[0], other[1]), pump(other[0], one[1]))
