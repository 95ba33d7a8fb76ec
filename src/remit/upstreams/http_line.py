"""Requests of HTTP to one server under one authorization."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import remit
from remit.errors import Code, UpstreamFault
from remit.model import SHOWN_AS
from remit.upstreams.http_answer import head_of
from remit.upstreams.http_connection import Head, HttpConnection, Sent
from remit.upstreams.http_header import header_line
from remit.upstreams.http_limits import HttpLimits
from remit.upstreams.http_pool import Pool
from remit.upstreams.http_target import Target
from remit.upstreams.http_way import Way

_TOKEN = re.compile(rb"[!-~]{1,8192}")
_ACCEPT = "Accept: application/json, text/event-stream\r\n"

Headers = Iterable[tuple[str, str]]


class Line:
    """The one place where a request's head is made: nothing of a caller's is ever in it.

    Args:
        places: the server's bound on requests at once.
        authorization: the token that was lent for this; None for none.
        header: in which it is shown, as `UpstreamCall.header`.
        listening: the server's bound on streams that are only listened to.

    Raises:
        UpstreamFault: `credential_unavailable`: that is no token.
    """

    def __init__(
        self,
        way: Way,
        target: Target,
        places: asyncio.Semaphore,
        limits: HttpLimits,
        authorization: bytes | None,
        *,
        header: str = SHOWN_AS,
        listening: asyncio.Semaphore,
    ) -> None:
        if authorization is not None and not _TOKEN.fullmatch(authorization):
            raise UpstreamFault(
                Code.CREDENTIAL_UNAVAILABLE,
                "the credential for the MCP server is no token",
                hint="its value has to be one word of visible ASCII",
            )
        self._limits = limits
        self._shown = b"" if authorization is None else header_line(header, authorization)
        self._listening = listening
        self._target = target
        self._starts: dict[tuple[str, Target], bytes] = {}
        self._pool = Pool(way, target, places, limits)

    @property
    def target(self) -> Target:
        """Where the server's url points."""
        return self._target

    @property
    def limits(self) -> HttpLimits:
        """What is borne of the server."""
        return self._limits

    @asynccontextmanager
    async def request(
        self,
        method: str,
        headers: Headers,
        body: bytes = b"",
        *,
        sent: Sent,
        target: Target | None = None,
        listens: bool = False,
    ) -> AsyncIterator[tuple[HttpConnection, Head]]:
        """Send a request, and read its answer as long as the context lasts.

        Leaving it by an exception cuts the connection, which is how a modern call is cancelled.

        Args:
            sent: told that bytes go out, right before they do.
            target: another path of the same server.
            listens: its answer lasts, as that to each GET does.

        Raises:
            UpstreamFault: there is no answer's head.
        """
        head = self._start(method, target or self._target) + head_of(headers)
        if method == "POST":
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        places = self._listening if listens or method == "GET" else None
        async with self._pool.connection(places) as connection:
            yield connection, await connection.ask(head + b"\r\n" + body, sent)

    def _start(self, method: str, target: Target) -> bytes:
        found = self._starts.get((method, target))
        if found is None:
            text = (
                f"{method} {target.path} HTTP/1.1\r\nHost: {target.authority}\r\n{_ACCEPT}"
                f"Accept-Encoding: identity\r\nUser-Agent: remit/{remit.__version__}\r\n"
            )
            found = text.encode("ascii") + self._shown
            if target is self._target:
                self._starts[method, target] = found
        return found

    @property
    def unused(self) -> bool:
        """Whether no request is under way."""
        return self._pool.unused

    def close(self) -> None:
        """Cut every connection."""
        self._pool.close()
