"""Hearing what a server over HTTP tells: a POST whose answer lasts (2026-07-28), or a session."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from itertools import count
from typing import Any

from remit import canonical
from remit.errors import Code, UpstreamFault
from remit.upstreams.http_agreed import SHAKEN, Agreed, Transport
from remit.upstreams.http_answer import HttpRefusal, messages, parsed, refusal
from remit.upstreams.http_connection import Head, HttpConnection, Sent
from remit.upstreams.http_line import Line
from remit.upstreams.http_session import Session
from remit.upstreams.http_sse import Events
from remit.upstreams.limits import Limits
from remit.upstreams.messages import Allowance, invalid, outcome_of
from remit.upstreams.notices import (
    ACKNOWLEDGED,
    LISTEN,
    Hearing,
    Hears,
    tell,
    unhonoured,
    wanted,
)
from remit.upstreams.revisions import Revision, dressed

_REVISION = Revision.R2026_07_28
_NUMBERS = count(1)


async def hearing_of(
    line: Line, url: str, agreed: Agreed, limits: Limits, *, lists: frozenset[str], hears: Hears
) -> Hearing:
    """Hear as the server's revision and transport have it; the time is the caller's to bound.

    Raises:
        UpstreamFault: there is nothing to be heard.
    """
    if agreed.transport is Transport.STATELESS:
        return _Listened(line, limits, lists, hears)
    if agreed.transport is Transport.EVENTS:
        session = await Session.listening(line, limits, url, SHAKEN)
    else:
        session = await Session.shaken(line, limits, SHAKEN)
    try:
        return _InSession(session, await session.hear(lists, hears))
    except BaseException:
        await asyncio.shield(session.close())
        raise


class _InSession:
    """A session that is held open for this alone."""

    def __init__(self, session: Session, hearing: Hearing) -> None:
        self._session = session
        self._hearing = hearing

    async def hold(self, uris: frozenset[str]) -> Mapping[str, UpstreamFault]:
        return await self._hearing.hold(uris)

    async def over(self) -> UpstreamFault:
        return await self._hearing.over()

    async def close(self) -> None:
        await self._session.close()


class _Listened:
    """One `subscriptions/listen`, and another in its place when what is wanted changes."""

    def __init__(self, line: Line, limits: Limits, lists: frozenset[str], hears: Hears) -> None:
        self._line = line
        self._limits = limits
        self._lists = lists
        self._hears = hears
        self._stream: _Stream | None = None
        self._over: asyncio.Future[UpstreamFault] = asyncio.get_running_loop().create_future()

    async def hold(self, uris: frozenset[str]) -> Mapping[str, UpstreamFault]:
        before = self._stream
        stream = _Stream(self._line, self._limits, wanted(self._lists, uris), self._hears)
        self._stream = stream
        stream.task.add_done_callback(lambda _: self._ended(stream))
        try:
            found = await stream.acknowledged()
        finally:
            if before is not None:
                await before.close()
        return unhonoured(found, uris)

    def _ended(self, stream: _Stream) -> None:
        if stream is self._stream and stream.fault is not None and not self._over.done():
            self._over.set_result(stream.fault)

    async def over(self) -> UpstreamFault:
        return await asyncio.shield(self._over)

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()


class _Stream:
    """The answer to one `subscriptions/listen`, read as it comes."""

    def __init__(self, line: Line, limits: Limits, params: dict[str, Any], hears: Hears) -> None:
        self._line = line
        self._limits = limits
        self._params = params
        self._hears = hears
        self._allowance = Allowance(limits)
        self._first: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self.fault: UpstreamFault | None = None
        self.task = asyncio.create_task(self._listen())

    async def acknowledged(self) -> Mapping[str, Any]:
        """What the server says that it will tell.

        Raises:
            UpstreamFault: nothing.
        """
        waited: list[asyncio.Future[Any]] = [self.task, self._first]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if self._first.done():
            return self._first.result()
        raise self.fault or UpstreamFault(Code.CANCELLED, "nobody listens any more")

    async def close(self) -> None:
        """Close the stream, which ends the subscription (MCP 2026-07-28 §Cancellation)."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            await self._heard()
            self.fault = UpstreamFault(Code.UPSTREAM_GONE, "the MCP server ended its subscription")
        except UpstreamFault as fault:
            self.fault = fault

    async def _heard(self) -> None:
        number = next(_NUMBERS)
        params = dressed(self._params, _REVISION, {})
        body = canonical.encode(
            {"jsonrpc": "2.0", "id": number, "method": LISTEN, "params": params}
        )
        headers = [("MCP-Protocol-Version", _REVISION.value), ("Mcp-Method", LISTEN)]
        request = self._line.request("POST", headers, body, sent=Sent(), listens=True)
        async with request as (got, head):
            if head.status != 200:
                told = await refusal(got, head, self._line.limits)
                raise told if isinstance(told, HttpRefusal) else _refused(told)
            await self._messages(got, head, number)

    async def _messages(self, got: HttpConnection, head: Head, number: int) -> None:
        limits, most = self._limits, self._limits.line_bytes
        async with aclosing(messages(got, head, Events(2 * most), most)) as each:
            async for data in each:
                value = parsed(data, depth=limits.depth, most=most, values=limits.values)
                if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
                    raise invalid("the MCP server sent what is no JSON-RPC message")
                if "method" not in value:
                    if value.get("id") != number:
                        raise invalid("the MCP server answered a request that was not made here")
                    raise _refused(value)
                self._allowance.spend(len(data))
                self._told(value)

    def _told(self, value: dict[str, Any]) -> None:
        method, params = value["method"], value.get("params", {})
        if "id" in value or not isinstance(method, str) or not isinstance(params, dict):
            raise invalid("the MCP server asked something itself, which its revision has not")
        if method == ACKNOWLEDGED:
            if not self._first.done():
                self._first.set_result(params)
        elif self._first.done():
            tell(self._hears, method, params)


def _refused(value: dict[str, Any]) -> UpstreamFault:
    """The fault in an answer, which ends the stream whatever it is."""
    outcome = outcome_of(value, 0)
    if isinstance(outcome, UpstreamFault):
        return outcome
    return UpstreamFault(Code.UPSTREAM_GONE, "the MCP server ended its subscription")
