"""Servers with the handshake (2025-03-26 to 2025-11-25) over Streamable HTTP, as a byte stream.

Each line that is written is one POST; what its answer holds comes back as lines. So the checks,
the handshake and the bookkeeping are those of every other conversation.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

from remit import canonical
from remit.errors import Code, UpstreamFault
from remit.upstreams.http_answer import HttpRefusal, messages, refusal
from remit.upstreams.http_connection import Head, HttpConnection, Sent
from remit.upstreams.http_inbox import Inbox
from remit.upstreams.http_line import Line
from remit.upstreams.http_parameters import header_value
from remit.upstreams.http_sse import Events
from remit.upstreams.limits import Limits
from remit.upstreams.messages import invalid
from remit.upstreams.revisions import Revision

_SESSION = "mcp-session-id"
_TAKEN = (200, 202, 204)
_RETRY_S = 1.0
_LONGEST_S = 30.0
_TRIES = 3
"""How often a stream is taken up again that gives nothing new."""


class StreamableStream:
    """A `ByteStream` to one session of one server.

    Args:
        session: the id that the server gave the session; None while it gave none.
        revision: what was agreed on; None before the handshake.
    """

    def __init__(
        self,
        line: Line,
        limits: Limits,
        *,
        session: str | None = None,
        revision: Revision | None = None,
    ) -> None:
        self._line = line
        self._limits = limits
        self._posts: dict[int, asyncio.Task[None]] = {}
        self.inbox = Inbox(limits)
        self.session = session
        self.revision = revision

    async def read(self) -> bytes:
        """The next message, as a line."""
        return await self.inbox.read()

    async def write(self, data: bytes, /) -> None:
        """Send one message; of what is no request, its taking is awaited."""
        message = json.loads(data)
        number = message.get("id") if "method" in message else None
        work = self._guarded(self._post(data.rstrip(b"\n"), message, number))
        if number is not None:
            self._posts[number] = asyncio.create_task(work)
            return
        await work
        if message.get("method") == "notifications/cancelled":
            given_up = self._posts.pop(message["params"]["requestId"], None)
            if given_up is not None:
                given_up.cancel()

    async def hear(self, begun: asyncio.Event) -> None:
        """Pass on what the server says by itself, until it no longer does (GET, 2025-11-25
        §Listening for Messages from the Server).

        Args:
            begun: set once it listens.

        Raises:
            UpstreamFault: always; the server has no such stream, or it has ended.
        """
        events, fruitless = Events(2 * self._limits.line_bytes), 0
        while fruitless < _TRIES:
            before = events.last_id
            again = [("Last-Event-ID", header_value(before.decode("latin-1")))] if before else []
            request = self._line.request("GET", [*self._headers(), *again], sent=Sent())
            async with request as (got, head):
                if head.status != 200 or head.media_type != "text/event-stream":
                    break
                begun.set()
                await self._heard(got, head, events, -1)
            if not events.last_id:
                break
            fruitless = fruitless + 1 if events.last_id == before else 0
            wait_s = _RETRY_S if events.retry_ms is None else events.retry_ms / 1000
            await asyncio.sleep(min(max(wait_s, _RETRY_S / 10), _LONGEST_S))
            events = events.again()
        if not begun.is_set():
            raise invalid("the MCP server has no stream on which it could tell what changes")
        raise UpstreamFault(Code.UPSTREAM_GONE, "the MCP server ended its stream of events")

    async def close(self) -> None:
        """Give up what is under way, and tell the server that the session is over."""
        posts, self._posts = self._posts, {}
        if self.inbox.fault is None and self.revision is not None:  # no handshake is ever cancelled
            for number in posts:
                params = {"requestId": number}
                told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._line.limits.close_s):
                        await self._guarded(self._post(canonical.encode(told), told, None))
        for post in posts.values():
            post.cancel()
        await asyncio.gather(*posts.values(), return_exceptions=True)
        if self.session is not None:
            with contextlib.suppress(UpstreamFault, TimeoutError):
                async with (
                    asyncio.timeout(self._line.limits.close_s),
                    self._line.request("DELETE", self._headers(), sent=Sent()),
                ):
                    pass

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except UpstreamFault as fault:
            self.inbox.end(fault)

    async def _post(self, body: bytes, message: dict[str, Any], number: int | None) -> None:
        sent = Sent()
        if number is not None:
            self.inbox.calls[number] = sent
        events: Events | None = Events(2 * self._limits.line_bytes)
        request = self._line.request("POST", self._headers(), body, sent=sent)
        try:
            async with request as (got, head):
                if number is not None:
                    events = await self._answered(got, head, message, number)
                elif head.status not in _TAKEN:
                    await refusal(got, head, self._line.limits)  # a notification may be left
            if number is not None and events is not None:
                await self._taken_up(events, number)
        finally:
            if number is not None:
                self._posts.pop(number, None)
        if number is not None:
            self.inbox.calls.pop(number, None)

    async def _answered(
        self, got: HttpConnection, head: Head, message: dict[str, Any], number: int
    ) -> Events | None:
        """Pass on what the answer holds; None if the result was in it, else where it broke off."""
        shakes = message["method"] == "initialize"
        if shakes:
            self.session = _session_of(head)
        if head.status != 200:
            told = await refusal(got, head, self._line.limits)
            if isinstance(told, HttpRefusal):
                raise self._meaning(told)
            if told.get("id") not in (None, number):
                raise invalid("the MCP server answered a request that was not made here")
            await self.inbox.take(canonical.encode({**told, "id": number}))
            return None
        events = Events(2 * self._limits.line_bytes)
        answer = await self._heard(got, head, events, number)
        if answer is None:
            return events
        if shakes:
            self.revision = _revision_of(answer)
        return None

    async def _heard(
        self, got: HttpConnection, head: Head, events: Events, number: int
    ) -> dict[str, Any] | None:
        """Pass on the messages of one answer; gives the one that was waited for."""
        try:
            async with aclosing(messages(got, head, events, self._limits.line_bytes)) as each:
                async for data in each:
                    value = await self.inbox.take(data)
                    if (answer := _answer_in(value, number)) is not None:
                        return answer
        except UpstreamFault as fault:
            if fault.code is not Code.UPSTREAM_GONE or not events.last_id:
                raise
        return None

    async def _taken_up(self, events: Events, number: int) -> None:
        """Listen on where a stream broke off, as a server may want it (2025-11-25, SEP-1699).

        Raises:
            UpstreamFault: the answer never came.
        """
        fruitless = 0
        while events.last_id and fruitless < _TRIES:
            before, events = events.last_id, events.again()
            wait_s = _RETRY_S if events.retry_ms is None else events.retry_ms / 1000
            await asyncio.sleep(min(max(wait_s, _RETRY_S / 10), _LONGEST_S))
            again = ("Last-Event-ID", header_value(before.decode("latin-1")))
            request = self._line.request("GET", [*self._headers(), again], sent=Sent())
            async with request as (got, head):
                if head.status != 200 or head.media_type != "text/event-stream":
                    break
                if await self._heard(got, head, events, number) is not None:
                    return
            fruitless = fruitless + 1 if events.last_id == before else 0
        raise UpstreamFault(Code.UPSTREAM_GONE, "the MCP server ended its answer before the result")

    def _meaning(self, told: HttpRefusal) -> UpstreamFault:
        if told.status != 404 or self.session is None:
            return told
        message = "the MCP server has ended the session"
        return UpstreamFault(Code.UPSTREAM_GONE, message, sent=True, hint="call again")

    def _headers(self) -> list[tuple[str, str]]:
        headers = []
        if self.session is not None:
            headers.append(("Mcp-Session-Id", self.session))
        if self.revision is not None:
            headers.append(("MCP-Protocol-Version", self.revision.value))
        return headers


def _answer_in(value: Any, number: int) -> dict[str, Any] | None:
    """The answer to this request, in a message or a batch of them."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict) and "method" not in each and each.get("id") == number:
            return each
    return None


def _session_of(head: Head) -> str | None:
    given = head.headers.get(_SESSION)
    if given is not None and not (len(given) <= 1024 and all("!" <= c <= "~" for c in given)):
        raise invalid("the MCP server gave its session an impossible id")
    return given or None


def _revision_of(answer: dict[str, Any]) -> Revision | None:
    result = answer.get("result")
    named = result.get("protocolVersion") if isinstance(result, dict) else None
    return next((each for each in Revision if each == named), None)
