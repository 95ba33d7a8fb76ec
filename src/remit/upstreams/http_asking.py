"""MCP servers over HTTP, asked by the gateway itself; implements `asking.HttpServers`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import Any

import remit
from remit.canonical import digest_of
from remit.errors import Code, ConfigError, UpstreamFault
from remit.model import SHOWN_AS, Capabilities, Lease, RunSpec
from remit.upstreams.asking import Seen, elsewhere
from remit.upstreams.http_background import Background
from remit.upstreams.http_connection import Sent
from remit.upstreams.http_limits import HttpLimits
from remit.upstreams.http_server import Doing, Server, ServerState
from remit.upstreams.http_session import timed_out
from remit.upstreams.http_target import target_of
from remit.upstreams.http_way import Look, Way, resolve
from remit.upstreams.limits import Limits
from remit.upstreams.lists import Wanted, Words
from remit.upstreams.messages import Progress
from remit.upstreams.notices import Hearing, Hears, bounded

_ENVELOPE = 64 * 1024
"""Bytes that an answer may have beyond what a call may output."""

_NONE: Mapping[str, float] = {}


class PooledServers:
    """Every server over HTTP, each with connections, sessions and a breaker of its own.

    Made without touching anything; a server is first asked when somebody calls one of its tools
    or lists them.

    Args:
        internal: `(host, port)` whose address may be private though a name is written in the url.
        ca_pem: authorities (PEM) of servers' certificates, beside the system's.
        limits, http_limits: what is borne of each server.
        look: the resolver.
        list_age_s: how old the list may be that a call is compared with which changes something,
            by the name of the server; unless it is said, it is read anew.
        clock: seconds, never going back.
        seen: told each list of tools that calls are compared with; it may be one caller's alone.
    """

    def __init__(
        self,
        *,
        internal: AbstractSet[tuple[str, int]] = frozenset(),
        ca_pem: str = "",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        http_limits: HttpLimits = HttpLimits(),  # noqa: B008 - frozen
        look: Look = resolve,
        list_age_s: Mapping[str, float] = _NONE,
        clock: Callable[[], float] = time.monotonic,
        seen: Seen = lambda _server, _items: None,
    ) -> None:
        self._seen = seen
        self._way = Way(internal=internal, ca_pem=ca_pem, look=look)
        self._limits = limits
        self._http_limits = http_limits
        self._clock = clock
        self._list_age_s = list_age_s
        self._servers: dict[str, Server] = {}
        self._background = Background()
        self._closed = False
        told = {"internal": _pairs(internal), "version": remit.__version__}
        self._digest = digest_of("remit.http/1", {**told, "ca": digest_of("remit.ca/1", ca_pem)})

    @property
    def capabilities(self) -> Capabilities:
        """The profile `http`: nothing is isolated."""
        return elsewhere(digest=self._digest, version=remit.__version__)

    def state(self, server: str) -> ServerState | None:
        """How a server does, as far as it was asked; None if it never was."""
        found = self._servers.get(server)
        return None if found is None else found.state

    def doing(self, server: str) -> tuple[str, str | None] | None:
        """See `HttpServers.doing`."""
        found = self.state(server)
        if found is None or found.doing is Doing.UNKNOWN:
            return None
        return found.doing.value, found.fault

    async def call(
        self,
        spec: RunSpec,
        lease: Lease,
        authorization: bytes | None,
        *,
        within_s: float,
        progress: Callable[[Progress], None],
    ) -> dict[str, Any]:
        """See `HttpServers.call`.

        Raises:
            UpstreamFault: there is no result.
            InputError: the arguments have no canonical JSON form; nothing was sent.
        """
        call = spec.upstream
        assert call is not None, "only calls of servers come here"
        server, sent = self._server(call.server, call.url or "", call.header), Sent()
        most = spec.limits.output_bytes + _ENVELOPE
        longest = max(most, self._limits.line_bytes)  # lists are longer than what a call may give
        limits = replace(self._limits, call_s=within_s, line_bytes=longest)
        age_s = self._list_age_s.get(call.server, 0.0) if spec.fence_key else None
        try:
            async with asyncio.timeout(within_s):
                return await server.call(
                    call,
                    authorization,
                    limits,
                    most=most,
                    list_age_s=age_s,
                    sent=sent,
                    progress=progress,
                )
        except TimeoutError:
            fault = timed_out(within_s, sent=sent.value)
            server.late(fault)
            raise fault from None

    async def list_tools(
        self,
        server: str,
        url: str,
        authorization: bytes | None,
        *,
        within_s: float,
        header: str = SHOWN_AS,
    ) -> list[dict[str, Any]]:
        """See `HttpServers.list_tools`.

        Of a modern server tools whose `x-mcp-header` is not allowed are left out, as its revision
        asks.

        Raises:
            UpstreamFault: there is no whole list.
        """
        found = self._server(server, url, header)
        try:
            async with asyncio.timeout(within_s):
                return await found.list_tools(authorization, self._limits)
        except TimeoutError:
            fault = timed_out(within_s, sent=False)
            found.late(fault)
            raise fault from None

    async def words(
        self,
        server: str,
        url: str,
        authorization: bytes | None,
        wanted: Wanted,
        *,
        within_s: float,
        header: str = SHOWN_AS,
    ) -> Words:
        """See `HttpServers.words`.

        Raises:
            UpstreamFault: there is no whole list.
        """
        found = self._server(server, url, header)
        try:
            async with asyncio.timeout(within_s):
                return await found.words(authorization, self._limits, wanted)
        except TimeoutError:
            fault = timed_out(within_s, sent=False)
            found.late(fault)
            raise fault from None

    async def hear(
        self,
        server: str,
        url: str,
        authorization: bytes | None,
        lists: frozenset[str],
        hears: Hears,
        *,
        within_s: float,
        header: str = SHOWN_AS,
    ) -> Hearing:
        """See `HttpServers.hear`.

        Raises:
            UpstreamFault: there is none.
        """
        found = self._server(server, url, header)
        try:
            async with asyncio.timeout(within_s):
                return await found.hear(authorization, bounded(self._limits), lists, hears)
        except TimeoutError:
            fault = timed_out(within_s, sent=False)
            found.late(fault)
            raise fault from None

    def offers(self, server: str) -> Mapping[str, Any]:
        """See `HttpServers.offers`."""
        found = self._servers.get(server)
        return {} if found is None else found.offers

    def _server(self, name: str, url: str, header: str) -> Server:
        if self._closed:
            raise UpstreamFault(Code.CANCELLED, "the gateway asks no more MCP servers")
        found = self._servers.get(name)
        if found is not None and (found.url, found.header) == (url, header):
            return found
        try:
            target = target_of(url)
        except ConfigError as fault:
            raise UpstreamFault(Code.UPSTREAM_UNREACHABLE, fault.message, hint=fault.hint) from None
        if found is not None:
            self._background.run(found.close())
        limits = self._http_limits
        made = Server(
            self._way,
            target,
            url,
            self._background,
            header=header,
            limits=limits,
            clock=self._clock,
            seen=partial(self._seen, name),
        )
        self._servers[name] = made
        return made

    async def aclose(self) -> None:
        """Close every connection, and tell servers that their sessions are over."""
        self._closed = True
        for server in self._servers.values():
            await server.close()
        await self._background.end()


def _pairs(named: AbstractSet[tuple[str, int]]) -> Sequence[str]:
    return sorted(f"{host}:{port}" for host, port in named)
