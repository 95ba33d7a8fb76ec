"""A conversation with a server of the handshake over HTTP, and what its faults mean."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from remit.errors import Code, UpstreamFault
from remit.model import UpstreamCall
from remit.upstreams.answers import extra_of
from remit.upstreams.conversation import Conversation
from remit.upstreams.exchange import Exchange
from remit.upstreams.hearing import hearing
from remit.upstreams.http_answer import HttpRefusal
from remit.upstreams.http_connection import Sent
from remit.upstreams.http_legacy import StreamableStream
from remit.upstreams.http_line import Line
from remit.upstreams.http_sse_stream import EventsStream
from remit.upstreams.limits import Limits
from remit.upstreams.lists import Kind
from remit.upstreams.messages import Progress
from remit.upstreams.notices import Hearing, Hears
from remit.upstreams.opening import Opened
from remit.upstreams.revisions import Revision


class Session:
    """One conversation and its stream; whoever opened it closes it."""

    def __init__(self, conversation: Conversation, stream: StreamableStream | EventsStream) -> None:
        self._conversation = conversation
        self._stream = stream
        self._hearing: asyncio.Task[None] | None = None

    @classmethod
    async def shaken(cls, line: Line, limits: Limits, revisions: Sequence[Revision]) -> Self:
        """A new session over Streamable HTTP.

        Raises:
            UpstreamFault: there is none; no call was sent. It is an HttpRefusal where the server
                answered the handshake with nothing but a status.
        """
        return await cls._open(StreamableStream(line, limits), limits, revisions)

    @classmethod
    async def listening(
        cls, line: Line, limits: Limits, url: str, revisions: Sequence[Revision]
    ) -> Self:
        """A new session of the transport of 2024-11-05.

        Raises:
            UpstreamFault: there is none; no call was sent.
        """
        stream = EventsStream(line, limits, url)
        try:
            await stream.open()
        except BaseException:
            await stream.close()
            raise
        return await cls._open(stream, limits, revisions)

    @classmethod
    def resumed(cls, line: Line, limits: Limits, opened: Opened) -> Self:
        """A conversation with a server that keeps no sessions, by what was agreed before."""
        stream = StreamableStream(line, limits, revision=opened.revision)
        exchange = Exchange(stream, limits)
        exchange.batches = opened.revision.batches
        return cls(Conversation(exchange, opened, {}, limits), stream)

    @classmethod
    async def _open(
        cls,
        stream: StreamableStream | EventsStream,
        limits: Limits,
        revisions: Sequence[Revision],
    ) -> Self:
        try:
            conversation = await Conversation.open(
                stream, capabilities={}, limits=limits, revisions=revisions
            )
        except UpstreamFault as fault:
            await stream.close()
            raise (stream.inbox.fault or fault) from None
        except BaseException:
            await stream.close()
            raise
        return cls(conversation, stream)

    async def hear(self, lists: frozenset[str], hears: Hears) -> Hearing:
        """Hear in it what the server tells; it is used for nothing else, and closed after that.

        Raises:
            UpstreamFault: the server tells nothing by itself.
        """
        found = hearing(self._conversation, lists, hears)
        if isinstance(self._stream, StreamableStream):
            begun = asyncio.Event()
            self._hearing = asyncio.create_task(self._heard(self._stream, begun))
            waiting = asyncio.create_task(begun.wait())
            try:
                await asyncio.wait({self._hearing, waiting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            if not begun.is_set():
                fault = self._stream.inbox.fault
                raise fault or UpstreamFault(Code.UPSTREAM_GONE, "the MCP server tells nothing")
        return found

    async def _heard(self, stream: StreamableStream, begun: asyncio.Event) -> None:
        try:
            await stream.hear(begun)
        except UpstreamFault as fault:
            stream.inbox.end(fault)

    @property
    def opened(self) -> Opened:
        """What was agreed."""
        return self._conversation.opened

    @property
    def named(self) -> bool:
        """Whether the server keeps something for it."""
        return not isinstance(self._stream, StreamableStream) or self._stream.session is not None

    @property
    def live(self) -> bool:
        """Whether it can still be used."""
        return self._conversation.live and self._stream.inbox.fault is None

    @property
    def tools_changed(self) -> bool:
        """See `Conversation.tools_changed`."""
        return self._conversation.tools_changed

    def when_tools_change(self, told: Callable[[], None]) -> None:
        """See `Conversation.when_tools_change`."""
        self._conversation.when_tools_change(told)

    async def list_tools(self) -> list[dict[str, Any]]:
        """Every tool; see `Conversation.list_tools`."""
        try:
            return await self._conversation.list_tools()
        except UpstreamFault as fault:
            raise self._meant(fault, sent=False) from None

    async def items(self, kind: Kind) -> list[dict[str, Any]]:
        """A whole list; see `Conversation.items`."""
        try:
            return await self._conversation.items(kind)
        except UpstreamFault as fault:
            raise self._meant(fault, sent=False) from None

    async def call(
        self,
        call: UpstreamCall,
        limits: Limits,
        *,
        sent: Sent,
        progress: Callable[[Progress], None],
    ) -> dict[str, Any]:
        """Call a tool; see `Conversation.call`. `sent` is told also where this is cancelled."""
        extra_of(call, self.opened.revision)
        try:
            return await self._conversation.call(
                call.tool,
                call.arguments.value(),
                within_s=limits.call_s,
                progress=progress,
                method=call.method,
            )
        except UpstreamFault as fault:
            told = self._stream.inbox.fault
            sent.value = fault.sent and (told is None or told.sent or self._stream.inbox.sent)
            raise self._meant(fault, sent=sent.value) from None
        except asyncio.CancelledError:
            sent.value = self._stream.inbox.sent
            raise

    def _meant(self, fault: UpstreamFault, *, sent: bool) -> UpstreamFault:
        """The fault of the stream, which says more than what the conversation made of it."""
        told = self._stream.inbox.fault
        if told is None or fault.code is not told.code:
            return _again(fault, fault.answer, sent=sent)
        return _again(told, told.answer if isinstance(told, HttpRefusal) else None, sent=sent)

    async def close(self) -> None:
        """End it, and tell the server."""
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)
        await self._conversation.close()
        await self._stream.close()


def unsent(fault: UpstreamFault) -> UpstreamFault:
    """The fault of something that was no call."""
    return _again(fault, fault.answer, sent=False)


def _again(fault: UpstreamFault, answer: Mapping[str, Any] | None, *, sent: bool) -> UpstreamFault:
    return UpstreamFault(
        fault.code,
        fault.message,
        sent=sent,
        answer=answer,
        challenged=fault.challenged,
        hint=fault.hint,
    )


def timed_out(within_s: float, *, sent: bool) -> UpstreamFault:
    """The fault of a server that was too slow."""
    message = f"the MCP server did not answer within {within_s:g} s"
    return UpstreamFault(Code.UPSTREAM_TIMEOUT, message, sent=sent)
