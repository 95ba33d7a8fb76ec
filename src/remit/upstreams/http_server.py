"""One server over HTTP: what was agreed with it, how it does, and who asks it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from remit.breaker import Breaker, Gate
from remit.errors import Code, UpstreamFault
from remit.model import UpstreamCall
from remit.upstreams.answers import extra_of
from remit.upstreams.http_agreed import Agreed, Transport, agree
from remit.upstreams.http_answer import NO_PLACE, HttpRefusal
from remit.upstreams.http_background import Background
from remit.upstreams.http_connection import Sent
from remit.upstreams.http_hearing import hearing_of
from remit.upstreams.http_limits import HttpLimits
from remit.upstreams.http_line import Line
from remit.upstreams.http_listed import usable
from remit.upstreams.http_modern import modern_request
from remit.upstreams.http_parameters import parameter_headers
from remit.upstreams.http_peer import Peer
from remit.upstreams.http_session import timed_out, unsent
from remit.upstreams.http_target import Target
from remit.upstreams.http_way import Way
from remit.upstreams.limits import Limits
from remit.upstreams.lists import Wanted, Words, words_of
from remit.upstreams.messages import Progress
from remit.upstreams.methods import header_name, params_of
from remit.upstreams.notices import Hearing, Hears
from remit.upstreams.opening import UNSUPPORTED_VERSION
from remit.upstreams.revisions import Revision

_MODERN = Revision.R2026_07_28
_OUTAGES = (Code.UPSTREAM_UNREACHABLE, Code.UPSTREAM_GONE, Code.UPSTREAM_TIMEOUT)


class Doing(StrEnum):
    """How a server does, as far as it was asked."""

    UNKNOWN = "unknown"
    UP = "up"
    FAILING = "failing"
    """What it was asked last failed."""
    DOWN = "down"
    """It failed several times in a row, and is asked nothing but whether it is there again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What is known of a server over HTTP. `fault` is the code of what went wrong last."""

    doing: Doing
    revision: str | None
    transport: str | None
    calls: int
    sessions: int
    fault: str | None
    fault_message: str | None


class Server:
    """Asks one server for everybody, each authorization apart.

    Args:
        header: in which it is shown each, as `UpstreamCall.header`.
        clock: seconds, never going back.
        seen: told each list of tools that calls are compared with.
    """

    def __init__(
        self,
        way: Way,
        target: Target,
        url: str,
        background: Background,
        *,
        header: str,
        limits: HttpLimits,
        clock: Callable[[], float],
        seen: Callable[[Sequence[dict[str, Any]]], None],
    ) -> None:
        self._seen = seen
        self._way, self._target, self._url = way, target, url
        self.header = header
        self._background = background
        self._limits = limits
        self._clock = clock
        self._places = asyncio.Semaphore(limits.connections)
        self._listening = asyncio.Semaphore(limits.sessions)
        self._breaker = Breaker(clock, failures=limits.failures, pause_s=limits.pause_s)
        self._peers: OrderedDict[bytes, Peer] = OrderedDict()
        self._agreed: Agreed | None = None
        self._agreed_s = 0.0
        self._agreeing = asyncio.Lock()
        self._calls = 0
        self._answered = False
        self._fault: UpstreamFault | None = None

    @property
    def url(self) -> str:
        """As the operator wrote it."""
        return self._url

    @property
    def state(self) -> ServerState:
        """How it does now."""
        doing = Doing.UP if self._answered else Doing.UNKNOWN
        if self._fault is not None:
            doing = Doing.DOWN if self._breaker.open else Doing.FAILING
        agreed = self._agreed
        return ServerState(
            doing=doing,
            revision=None if agreed is None else agreed.opened.revision.value,
            transport=None if agreed is None else agreed.transport.value,
            calls=self._calls,
            sessions=sum(peer.sessions for peer in self._peers.values()),
            fault=None if self._fault is None else self._fault.code.value,
            fault_message=None if self._fault is None else self._fault.message,
        )

    async def call(
        self,
        call: UpstreamCall,
        authorization: bytes | None,
        limits: Limits,
        *,
        most: int,
        list_age_s: float | None = None,
        sent: Sent,
        progress: Callable[[Progress], None],
    ) -> dict[str, Any]:
        """Make a call; the time is the caller's to bound, and no more than `limits.call_s`.

        Args:
            most: bounds the answer's bytes, where nothing but the answer can come.
            list_age_s: how old the list may be that the call is compared with, where that is
                less than is borne of reads.

        Raises:
            UpstreamFault: there is no result.
        """
        async with self._asking(authorization) as peer:
            agreed = await self._agree(peer, limits)
            if agreed.transport is not Transport.STATELESS:
                async with peer.session(agreed, limits, call) as session:
                    await peer.check(agreed, limits, session, call, list_age_s)
                    return await session.call(call, limits, sent=sent, progress=progress)
            mirrored = await peer.check(agreed, limits, None, call, list_age_s)
            arguments = call.arguments.value()
            reply = await modern_request(
                peer.line,
                call.method.value,
                {
                    **params_of(call.method, call.tool, arguments),
                    **extra_of(call, _MODERN),
                },
                replace(limits, line_bytes=most),
                sent=sent,
                name=header_name(call),
                headers=parameter_headers(mirrored, arguments),
                progress=progress,
                capabilities=call.capabilities.value(),
            )
            return reply.result

    async def words(self, authorization: bytes | None, limits: Limits, wanted: Wanted) -> Words:
        """What the server lists now beside its tools.

        Raises:
            UpstreamFault: there is no whole list.
        """
        async with self._asking(authorization) as peer:
            agreed = await self._agree(peer, limits)
            try:
                async with peer.lists(agreed, limits) as ask:
                    return await words_of(ask, agreed.opened.capabilities, wanted)
            except UpstreamFault as fault:
                raise unsent(fault) from None

    async def list_tools(self, authorization: bytes | None, limits: Limits) -> list[dict[str, Any]]:
        """Every tool that the server lists now.

        Raises:
            UpstreamFault: there is no whole list.
        """
        async with self._asking(authorization) as peer:
            agreed = await self._agree(peer, limits)
            try:
                items = await peer.list_tools(agreed, limits)
            except UpstreamFault as fault:
                raise unsent(fault) from None
        return usable(items) if agreed.transport is Transport.STATELESS else items

    async def hear(
        self, authorization: bytes | None, limits: Limits, lists: frozenset[str], hears: Hears
    ) -> Hearing:
        """A connection to hear what it tells; whoever gets it closes it.

        Raises:
            UpstreamFault: there is none.
        """
        async with self._asking(authorization) as peer:
            agreed = await self._agree(peer, limits)
            try:
                return await hearing_of(
                    peer.line, self._url, agreed, limits, lists=lists, hears=hears
                )
            except UpstreamFault as fault:
                raise unsent(fault) from None

    @property
    def offers(self) -> Mapping[str, Any]:
        """What it says that it can do, as far as it was asked."""
        return {} if self._agreed is None else self._agreed.opened.capabilities

    @asynccontextmanager
    async def _asking(self, authorization: bytes | None) -> AsyncIterator[Peer]:
        """Who may ask now; and what came of it is remembered."""
        peer = self._peer(authorization)
        await self._admitted(peer)
        self._calls += 1
        try:
            yield peer
        except UpstreamFault as fault:
            self._came_of(fault)
            raise
        else:
            self._came_of(None)
        finally:
            self._calls -= 1

    def late(self, fault: UpstreamFault) -> None:
        """Somebody's time was up before the server had answered."""
        self._came_of(fault)

    def _came_of(self, fault: UpstreamFault | None) -> None:
        if fault is not None and _another(fault):
            self._agreed = None
        if fault is None or fault.code in (Code.UPSTREAM_ERROR, Code.TOOL_CHANGED):
            self._answered, self._fault = True, None
            self._breaker.succeeded()
            return
        if fault.code is Code.CANCELLED:
            return
        self._fault = fault
        if _outage(fault):
            self._breaker.failed()
        else:
            self._breaker.succeeded()

    async def _admitted(self, peer: Peer) -> None:
        """Let a call pass, or find out first whether the server is there again.

        Raises:
            UpstreamFault: `upstream_unreachable`; it is not asked now.
        """
        gate = self._breaker.admit()
        if gate is Gate.PASS:
            return
        if gate is Gate.TRIAL:
            well: bool | None = None
            try:
                well = await self._there(peer)
            finally:
                self._breaker.tried(well)
            if well:
                return
        raise UpstreamFault(
            Code.UPSTREAM_UNREACHABLE,
            "the MCP server failed several times in a row, and is asked again in a moment",
            hint="remit tools shows how it does",
        )

    async def _there(self, peer: Peer) -> bool:
        """Whether it answers at all; with what does not matter."""
        try:
            async with asyncio.timeout(self._limits.probe_s):
                limits = Limits(line_bytes=self._limits.refusal_bytes)
                await modern_request(peer.line, "server/discover", {}, limits, sent=Sent())
        except TimeoutError:
            return False
        except UpstreamFault as fault:
            return not _outage(fault)
        return True

    async def _agree(self, peer: Peer, limits: Limits) -> Agreed:
        if self._agreed is not None and self._clock() - self._agreed_s < self._limits.agreed_s:
            return self._agreed
        async with self._agreeing:
            if self._agreed is not None and self._clock() - self._agreed_s < self._limits.agreed_s:
                return self._agreed
            try:
                async with asyncio.timeout(limits.open_s):
                    before = self._agreed
                    self._agreed = await agree(peer.line, limits, self._url, before=before)
            except TimeoutError:
                raise timed_out(limits.open_s, sent=False) from None
            self._agreed_s = self._clock()
            return self._agreed

    def _peer(self, authorization: bytes | None) -> Peer:
        key = b"" if authorization is None else hashlib.sha256(authorization).digest()
        found = self._peers.get(key)
        if found is None:
            line = Line(
                self._way,
                self._target,
                self._places,
                self._limits,
                authorization,
                header=self.header,
                listening=self._listening,
            )
            found = self._peers[key] = Peer(line, self._url, self._background, self._seen)
            self._make_room()
        self._peers.move_to_end(key)
        return found

    def _make_room(self) -> None:
        """Forget the authorizations that were not used for longest."""
        for key, peer in list(self._peers.items())[:-1]:
            if len(self._peers) <= self._limits.authorizations:
                return
            if peer.unused:
                del self._peers[key]
                self._background.run(peer.close())

    async def close(self) -> None:
        """End everything with it."""
        for peer in list(self._peers.values()):
            await peer.close()


def _another(fault: UpstreamFault) -> bool:
    """Whether the server may have become another than it was when it agreed."""
    if fault.code is Code.UPSTREAM_INVALID:
        return True
    code = (fault.answer or {}).get("code")
    return fault.code is Code.UPSTREAM_ERROR and (code in NO_PLACE or code == UNSUPPORTED_VERSION)


def _outage(fault: UpstreamFault) -> bool:
    """Whether the server failed, and did not just refuse or lie."""
    answered = isinstance(fault, HttpRefusal) and fault.status < 500
    return fault.code in _OUTAGES and not answered
