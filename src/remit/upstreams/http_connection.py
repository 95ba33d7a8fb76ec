"""One connection to an HTTP server: HTTP/1.1 (RFC 9112), one request at a time.

The answer is read by llhttp. Heads are bounded, bodies are held back from the server while nobody
reads them, and whatever is not one well-formed answer is a fault that ends the connection.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from remit.errors import Code, UpstreamFault
from remit.upstreams.http_limits import HttpLimits

_HELD = 256 * 1024
"""Bytes of a body that are held before the server is made to wait."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer; names in lower case, repeated ones joined by commas."""

    status: int
    headers: dict[str, str]

    @property
    def media_type(self) -> str:
        """What the body is said to be, without parameters; empty if it is not said."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(slots=True)
class Sent:
    """Whether any byte of a request may have gone out; what it knows outlives a cancellation."""

    value: bool = False


class HttpConnection(asyncio.Protocol):
    """Made by `Way`; whoever took it gives it back to its pool, or aborts it."""

    def __init__(self, limits: HttpLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._transport: asyncio.Transport | None = None  # until it is connected
        self._broken = False
        self._busy = False
        self._paused = False
        self._rest: Callable[[], None] | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._begin()
        self._whole = True
        self.used_s = self._loop.time()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._head: Head | None = None
        self._head_bytes = 0
        self._headers: dict[str, str] = {}
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._whole = False
        self._framed = False
        self._fault: UpstreamFault | None = None
        self._wake: asyncio.Future[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether it may be asked: it is open, nothing is out, and nothing has come in.

        The kernel is asked: what the loop has not read yet is an end, or an answer too many.
        """
        if self._broken or self._busy or self._transport is None:
            return False
        told = self._transport.get_extra_info("socket")
        if told is None or told.fileno() < 0:
            return False
        look = select.poll()
        look.register(told.fileno(), select.POLLIN | select.POLLHUP)
        return not look.poll(0)

    @property
    def broken(self) -> bool:
        """Whether it has ended, or will with the answer that it is at."""
        return self._broken

    async def ask(self, request: bytes, sent: Sent) -> Head:
        """Send a whole request, and wait for the head of its answer.

        Raises:
            UpstreamFault: `upstream_gone` or `upstream_invalid`.
        """
        assert self._transport is not None, "it is connected"
        self._begin()
        if self._broken:
            raise _gone("the MCP server closed the connection", sent=False)
        self._busy = True
        sent.value = True
        self._transport.write(request)
        while self._head is None:
            await self._more()
        return self._head

    async def read(self) -> bytes:
        """The next bytes of the body; none at its end.

        Raises:
            UpstreamFault: `upstream_gone` or `upstream_invalid`.
        """
        while not self._chunks:
            if self._whole:
                return b""
            await self._more()
        chunk = b"".join(self._chunks)
        self._chunks.clear()
        self._held = 0
        if self._paused:
            self._resume()
        return chunk

    def rest(self, done: Callable[[], None]) -> None:
        """Nobody wants more of this answer: `done` is called once it has ended, or the connection.

        What does not end soon is cut.
        """
        self._chunks.clear()
        self._held = 0
        if self._whole or self._broken:
            self._free(done)
        else:
            self._rest = done
            self._cut = self._loop.call_later(self._limits.drain_s, self.abort)
            if self._paused:
                self._resume()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()

    def abort(self) -> None:
        """End it at once."""
        self._broken = True
        if self._cut is not None:
            self._cut.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _free(self, done: Callable[[], None]) -> None:
        self._rest = None
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
        self._busy = False
        self.used_s = self._loop.time()
        done()

    async def _more(self) -> None:
        self._check()
        self._wake = self._loop.create_future()
        try:
            await self._wake
        finally:
            self._wake = None
        self._check()

    def _check(self) -> None:
        """What came before the fault is read first."""
        if self._fault is not None and not self._chunks:
            raise self._fault

    def _woken(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _fail(self, fault: UpstreamFault) -> None:
        if self._fault is None and not self._whole:
            self._fault = fault
        self.abort()
        self._woken()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._expecting():
            self.abort()  # nobody asked for this
            return
        self._head_bytes += len(data) if self._head is None else 0
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(_invalid("the MCP server's answer is not one HTTP answer"))
            return
        if self._endless():
            self._fail(_invalid("the MCP server's answer has an endless head"))
            return
        if self._held > _HELD and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._woken()
        self._rested()

    def _rested(self) -> None:
        if self._whole and self._rest is not None:
            self._free(self._rest)

    def _endless(self) -> bool:
        return self._head is None and self._head_bytes > self._limits.head_bytes

    def _expecting(self) -> bool:
        return self._busy and not self._whole

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._broken = True
        if self._busy and self._head is not None and not self._framed and exc is None:
            self._whole = True  # a body without a length ends with the connection
        where = "before it had answered" if self._head is None else "in the middle of its answer"
        self._fail(_gone(f"the MCP server closed the connection {where}", sent=True))
        if self._rest is not None:
            self._free(self._rest)

    # httptools

    def on_message_begin(self) -> None:
        if self._whole:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None:
            return  # a trailer
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > 2 * self._limits.head_bytes:
            raise ValueError("an endless head")
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = {}  # an interim answer (RFC 9110 §15.2); the real one follows
            return
        headers = self._headers
        self._framed = "content-length" in headers or "transfer-encoding" in headers
        self._framed = self._framed or status in (204, 304)
        self._head = Head(status, headers)

    def on_body(self, body: bytes) -> None:
        if self._rest is None and self._head is not None:
            self._chunks.append(body)
            self._held += len(body)

    def on_message_complete(self) -> None:
        if self._head is not None:
            self._whole = True
            self._broken = self._broken or not self._parser.should_keep_alive()


def _gone(message: str, *, sent: bool) -> UpstreamFault:
    return UpstreamFault(Code.UPSTREAM_GONE, message, sent=sent)


def _invalid(message: str) -> UpstreamFault:
    return UpstreamFault(Code.UPSTREAM_INVALID, message, sent=True)
