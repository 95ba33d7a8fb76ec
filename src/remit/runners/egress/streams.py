"""Bytes to and from a peer, plain or in TLS: nothing is read ahead of need, so memory is bounded.

A stream sends before it returns and reads only what is asked for; whoever is slow slows the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

PIECE = 65_536
"""Most that is read at once."""

Count = Callable[[int, int], None]
"""Told of bytes that came in and bytes that went out; may refuse by raising."""


class Stream(Protocol):
    """One direction each way, closed as a whole."""

    async def receive(self) -> bytes:
        """What came next, at most `PIECE` bytes; nothing at the end."""

    async def send(self, data: bytes) -> None:
        """Give all of it to the peer's side of the kernel."""

    def finish(self) -> None:
        """Say that nothing more is sent."""

    @property
    def quiet(self) -> bool:
        """Whether nothing waits to be read, not even the end."""


class PlainStream:
    """A TCP connection. `count` is told of every byte before it is used."""

    def __init__(self, sock: socket.socket, count: Count | None = None) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.count = count
        self._loop = asyncio.get_running_loop()
        self._unread = b""

    async def receive(self) -> bytes:
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        data = await self._loop.sock_recv(self.sock, PIECE)
        await asyncio.sleep(0)  # what was there already was read without a turn of the loop
        if self.count is not None:
            self.count(len(data), 0)
        return data

    def unread(self, data: bytes) -> None:
        """Have the next `receive` give this."""
        self._unread = data + self._unread

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            piece = view[:PIECE]
            if self.count is not None:
                self.count(0, len(piece))
            await self._loop.sock_sendall(self.sock, piece)
            view = view[PIECE:]

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    @property
    def quiet(self) -> bool:
        if self._unread:
            return False
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class TlsStream:
    """TLS over a plain stream. One reader and one writer may use it at the same time."""

    def __init__(
        self, under: PlainStream, context: ssl.SSLContext, *, server: bool, host: str | None = None
    ) -> None:
        self._under = under
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=host
        )
        self._flushing = asyncio.Lock()

    async def handshake(self) -> None:
        """Raises ssl.SSLError or ConnectionError where it does not come to an end."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()  # the alert that says why
                raise
            else:
                await self._flush()
                return

    async def receive(self) -> bytes:
        while True:
            try:
                return self._tls.read(PIECE)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            done = self._tls.write(view[:PIECE])
            view = view[done:]
            await self._flush()

    def finish(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        data = self._outgoing.read()
        with contextlib.suppress(OSError):
            self._under.sock.send(data)
        self._under.finish()

    @property
    def quiet(self) -> bool:
        return self._tls.pending() == 0 and self._incoming.pending == 0 and self._under.quiet

    async def _fill(self) -> None:
        data = await self._under.receive()
        if not data:
            raise ConnectionAbortedError("the peer ended within TLS")
        self._incoming.write(data)

    async def _flush(self) -> None:
        async with self._flushing:
            while self._outgoing.pending:
                await self._under.send(self._outgoing.read(PIECE))
