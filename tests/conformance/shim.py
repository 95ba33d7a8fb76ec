"""A loopback relay that adds one header, for outside checks that cannot send a credential.

Every request goes on as it came, byte for byte, with an `Authorization` header added; every
answer comes back untouched.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

MAX_HEAD = 64 * 1024
CHUNK = 64 * 1024


class Shim:
    """Relays 127.0.0.1:`port` to 127.0.0.1:`to`."""

    def __init__(self, to: int, key: str) -> None:
        self._to = to
        self._header = f"Authorization: Bearer {key}\r\n\r\n".encode()
        self.port = 0

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_HEAD)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._to)
            ends.append(back_writer)
            halves = [
                asyncio.ensure_future(self._requests(reader, back_writer)),
                asyncio.ensure_future(_pipe(back_reader, writer)),
            ]
            await _until_one_ends(halves)
        finally:
            # Whenever this is cancelled, and without waiting: a connection that outlives its loop
            # is found by the collector, in the middle of some other test.
            for each in ends:
                each.close()

    async def _requests(self, reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            to.write(head[:-2] + self._header)
            fields = _fields(head)
            if b"chunked" in fields.get(b"transfer-encoding", b""):
                await _relay_chunks(reader, to)
            else:
                await _relay(reader, to, int(fields.get(b"content-length", b"0")))
            await to.drain()


def _fields(head: bytes) -> dict[bytes, bytes]:
    lines = head.split(b"\r\n")[1:]
    pairs = (line.partition(b":") for line in lines if line)
    return {name.strip().lower(): value.strip().lower() for name, _, value in pairs}


async def _relay(reader: asyncio.StreamReader, to: asyncio.StreamWriter, size: int) -> None:
    while size:
        data = await reader.read(min(size, CHUNK))
        if not data:
            raise ConnectionError("the request ended before its body")
        to.write(data)
        size -= len(data)


async def _relay_chunks(reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    while True:
        line = await reader.readuntil(b"\r\n")
        to.write(line)
        size = int(line.split(b";")[0], 16)
        await _relay(reader, to, size + 2)
        if size == 0:
            return


async def _pipe(reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        to.write(data)
        await to.drain()


@contextmanager
def shim(to: int, key: str) -> Iterator[int]:
    """Relay in a thread until the block ends; gives the port."""
    relay = Shim(to, key)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(relay.listen())
    thread = threading.Thread(target=loop.run_forever, name="shim")
    thread.start()
    try:
        yield relay.port
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _until_one_ends(halves: list[asyncio.Task[None]]) -> None:
    try:
        await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for half in halves:
            half.cancel()
        await asyncio.gather(*halves, return_exceptions=True)


async def _stop(server: asyncio.Server) -> None:
    server.close()
    me = asyncio.current_task()
    while others := [task for task in asyncio.all_tasks() if task is not me]:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)  # what was closed is let go of on the loop's next turn
