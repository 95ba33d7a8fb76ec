"""One connection to an OPA server: HTTP/1.1 (RFC 9112), one request at a time.

The answer is read by llhttp, as the gateway's own server reads requests. Whatever is not exactly
one well-formed, framed answer is a fault, and ends the connection.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from dataclasses import dataclass, field
from typing import cast

import httptools

from remit.errors import Code, PolicyFault

MAX_ANSWER = 1024 * 1024
"""Bytes of one answer, its head included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """A whole answer; header names are in lower case, of repeated ones the last counts."""

    status: int
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


class Connection(asyncio.Protocol):
    """Made by the transport, which also gives it back to its pool or aborts it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[HttpAnswer] | None = None
        self._broken = False
        self.used_s = self._loop.time()

    @property
    def idle(self) -> bool:
        """Whether it may be asked: it is open, nothing is out, and nothing has come in.

        The kernel is asked: what the loop has not read yet is an end, or an answer too many.
        """
        if self._broken or self._waiting is not None or self._transport is None:
            return False
        told = self._transport.get_extra_info("socket")
        if told is None or told.fileno() < 0:
            return False
        look = select.poll()
        look.register(told.fileno(), select.POLLIN | select.POLLHUP)
        return not look.poll(0)

    async def exchange(self, request: bytes) -> HttpAnswer:
        """Send a whole request and wait for its whole answer.

        Raises:
            PolicyFault: `policy_unavailable` if it breaks off or is no HTTP, `policy_bad_decision`
                if it is too large, `policy_not_ready` if the server refuses our certificate.
        """
        assert self._waiting is None, "one request at a time"
        assert self._transport is not None, "it is connected"
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._read = 0
        self._answer: HttpAnswer | None = None
        self._waiting = self._loop.create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        finally:
            self._waiting = None
            self.used_s = self._loop.time()

    def abort(self) -> None:
        """End it at once; OPA then stops evaluating what it was asked."""
        self._broken = True
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():
            self.abort()  # nobody asked for this
            return
        self._read += len(data)
        if self._read > MAX_ANSWER:
            self._fail(Code.POLICY_BAD_DECISION, "the OPA server's answer is larger than 1 MiB")
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Code.POLICY_UNAVAILABLE, "the OPA server's answer is not one HTTP answer")
            return
        if self._answer is not None:
            self._waiting.set_result(self._answer)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError):
            self._fail(
                Code.POLICY_NOT_READY,
                "the OPA server broke off TLS",
                "it may want a client certificate: policy.opa.cert_file",
            )
        else:
            self._fail(Code.POLICY_UNAVAILABLE, "the OPA server closed before its answer was whole")

    # httptools

    def on_message_begin(self) -> None:
        if self._answer is not None:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        # After an interim answer (RFC 9110 §15.2) another comes, which belongs to no later question.
        self._broken = self._broken or status < 200 or not self._parser.should_keep_alive()
        self._answer = HttpAnswer(status=status, headers=self._headers, body=bytes(self._body))

    def _fail(self, code: Code, message: str, hint: str | None = None) -> None:
        self.abort()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(PolicyFault(code, message, hint=hint))
