"""The transport of revision 2024-11-05: one stream of events to hear, POSTs to speak."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from urllib.parse import urljoin

from remit.errors import Code, ConfigError, UpstreamFault
from remit.upstreams.http_answer import HttpRefusal, refusal
from remit.upstreams.http_connection import Sent
from remit.upstreams.http_inbox import Inbox
from remit.upstreams.http_line import Line
from remit.upstreams.http_sse import Event, Events
from remit.upstreams.http_target import Target, target_of
from remit.upstreams.limits import Limits
from remit.upstreams.messages import invalid


class EventsStream:
    """A `ByteStream` to one session of one server; `url` is the server's, as it is written."""

    def __init__(self, line: Line, limits: Limits, url: str) -> None:
        self._line = line
        self._limits = limits
        self._url = url
        self._endpoint: asyncio.Future[Target] = asyncio.get_running_loop().create_future()
        self._listening: asyncio.Task[None] | None = None
        self.inbox = Inbox(limits)

    async def open(self) -> None:
        """Begin to listen, and learn where to speak.

        Raises:
            UpstreamFault: the server has no such stream; no call was sent.
        """
        self._listening = asyncio.create_task(self._listen())
        await self._endpoint

    async def read(self) -> bytes:
        """The next message, as a line."""
        return await self.inbox.read()

    async def write(self, data: bytes, /) -> None:
        """Send one message."""
        target = await self._endpoint
        message, sent = json.loads(data), Sent()
        if "method" in message and "id" in message:
            self.inbox.calls[message["id"]] = sent
        try:
            request = self._line.request("POST", [], data.rstrip(b"\n"), sent=sent, target=target)
            async with request as (got, head):
                if head.status not in (200, 202, 204):
                    told = await refusal(got, head, self._line.limits)
                    if isinstance(told, HttpRefusal):
                        raise told
                    raise invalid("the MCP server answered where it only had to take a message")
        except UpstreamFault as fault:
            self.inbox.end(fault)

    async def close(self) -> None:
        """Stop to listen, which ends the session."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        if not self._endpoint.done():
            self._endpoint.cancel()
        elif not self._endpoint.cancelled():
            self._endpoint.exception()

    async def _listen(self) -> None:
        try:
            async with self._line.request("GET", [], sent=Sent()) as (got, head):
                if head.status != 200 or head.media_type != "text/event-stream":
                    told = await refusal(got, head, self._line.limits)
                    fault = told if isinstance(told, HttpRefusal) else None
                    raise fault or invalid("the MCP server has no stream of events at its url")
                events = Events(2 * self._limits.line_bytes)
                while chunk := await got.read():
                    for event in events.feed(chunk):
                        await self._take(event)
            raise UpstreamFault(Code.UPSTREAM_GONE, "the MCP server ended its stream of events")
        except UpstreamFault as fault:
            self.inbox.end(fault)
            if not self._endpoint.done():
                self._endpoint.set_exception(fault)

    async def _take(self, event: Event) -> None:
        if event.name == b"endpoint":
            if not self._endpoint.done():
                self._endpoint.set_result(self._resolved(event.data))
        elif event.name == b"message" and event.data.strip():
            value = await self.inbox.take(event.data)
            if isinstance(value, dict) and "method" not in value:
                number = value.get("id")
                self.inbox.calls.pop(number if type(number) is int else 0, None)

    def _resolved(self, data: bytes) -> Target:
        """Where to speak: a path of the very server that is listened to, and nowhere else."""
        with suppress(ConfigError, ValueError):
            origin = self._line.target.origin
            found = target_of(urljoin(self._url, data.decode("ascii")))
            if found.origin == origin:
                return found
        raise invalid("the MCP server names another server as the place to speak")
