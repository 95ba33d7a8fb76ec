"""Speaking MCP, as a client, with one untrusted server at the other end of a byte stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from remit.errors import Code, UpstreamFault
from remit.model import Method
from remit.upstreams.exchange import Exchange
from remit.upstreams.limits import Limits
from remit.upstreams.lines import ByteStream
from remit.upstreams.lists import Kind
from remit.upstreams.messages import Progress, Reply
from remit.upstreams.methods import params_of
from remit.upstreams.opening import Opened, negotiate
from remit.upstreams.pages import everything
from remit.upstreams.revisions import NEWEST_FIRST, Revision, dressed

_DEFAULT = Limits()
_NOTHING: Mapping[str, Any] = {}


class Conversation:
    """An agreed conversation with one server; calls may overlap.

    Promises that each method ends, with a result or with an UpstreamFault that says whether the
    call had been sent, and that nothing but the caller's declared capabilities reaches the
    server. A server's requests are refused, except `ping`. Results are given as the server sent
    them, strictly read but otherwise unchecked: their meaning, schema and text are untrusted.
    Does not start, watch or end the server, and does not close the stream.
    """

    def __init__(
        self,
        exchange: Exchange,
        opened: Opened,
        capabilities: Mapping[str, Any],
        limits: Limits,
    ) -> None:
        self._exchange = exchange
        self._capabilities = capabilities
        self._limits = limits
        self.opened = opened

    @classmethod
    async def open(
        cls,
        stream: ByteStream,
        *,
        capabilities: Mapping[str, Any],
        limits: Limits = _DEFAULT,
        revisions: Sequence[Revision] = NEWEST_FIRST,
        again: Callable[[], Awaitable[ByteStream]] | None = None,
    ) -> Self:
        """Agree on a revision with the server at the other end.

        Args:
            stream: to a server that has been asked nothing yet.
            capabilities: what the caller declared (MCP `ClientCapabilities`); for a server of
                the handshake they hold for the whole conversation.
            limits: how much of the server is borne.
            revisions: those that may be agreed on, best first.
            again: gives a stream to a fresh server; some old servers end at a question from
                before the handshake, and are then asked to shake hands at once. What it raises
                is passed on.

        Raises:
            UpstreamFault: there is no agreement; no call was sent.
        """
        try:
            async with asyncio.timeout(limits.open_s):
                try:
                    return await cls._agree(stream, capabilities, limits, revisions)
                except UpstreamFault as fault:
                    shaken = [each for each in revisions if not each.modern]
                    ended_early = fault.code is Code.UPSTREAM_GONE and len(shaken) < len(revisions)
                    if again is None or not shaken or not ended_early:
                        raise
                return await cls._agree(await again(), capabilities, limits, shaken)
        except TimeoutError:
            message = f"the server agreed on no revision within {limits.open_s:g} s"
            raise UpstreamFault(Code.UPSTREAM_TIMEOUT, message) from None
        except UpstreamFault as fault:
            # What was sent was a question, never a call.
            raise UpstreamFault(fault.code, fault.message, answer=fault.answer) from None

    @classmethod
    async def _agree(
        cls,
        stream: ByteStream,
        capabilities: Mapping[str, Any],
        limits: Limits,
        revisions: Sequence[Revision],
    ) -> Self:
        exchange = Exchange(stream, limits)
        try:
            opened = await negotiate(exchange, revisions, capabilities, limits)
        except BaseException:
            await exchange.close()
            raise
        return cls(exchange, opened, capabilities, limits)

    @property
    def live(self) -> bool:
        """Whether calls can still be made; false for ever after a lie, the end, or `close`."""
        return self._exchange.open

    @property
    def tools_changed(self) -> bool:
        """Whether the server said, since its tools were last listed, that they are others now.

        A server of 2026-07-28 says it only to those who subscribed, which nobody does here.
        """
        return self._exchange.tools_changed

    def when_tools_change(self, told: Callable[[], None]) -> None:
        """Have this called when `tools_changed` becomes true; must return at once and not raise."""
        self._exchange.when_tools_change = told
        if self._exchange.tools_changed:
            told()

    async def items(self, kind: Kind) -> list[dict[str, Any]]:
        """Every item of a list, in the server's order, as it sent them.

        Raises:
            UpstreamFault: there is no whole list. Reading a list is no call: `sent` is false.
        """
        return await (self.list_tools() if kind is Kind.TOOLS else self._everything(kind))

    async def _everything(self, kind: Kind) -> list[dict[str, Any]]:
        async def page(params: dict[str, Any]) -> Reply:
            return await self._exchange.request(
                kind.method,
                dressed(params, self.opened.revision, self._capabilities),
                within_s=self._limits.list_s,
            )

        return await everything(page, self._limits, kind)

    async def list_tools(self) -> list[dict[str, Any]]:
        """Every tool of the server, in its order, as it sent them.

        Each is an object with a `name` of its own; nothing else of it is checked.

        Raises:
            UpstreamFault: there is no whole list. Reading a list is no call: `sent` is false.
        """
        self._exchange.tools_changed = False
        try:
            return await self._everything(Kind.TOOLS)
        except BaseException:
            self._exchange.tools_changed = True  # what is known of them is as old as before
            raise

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        progress: Callable[[Progress], None] | None = None,
        key: str | None = None,
        within_s: float | None = None,
        method: Method = Method.TOOLS_CALL,
        extra: Mapping[str, Any] = _NOTHING,
        capabilities: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call a tool, and give the result object as the server sent it.

        Args:
            name: the tool's name at this server.
            arguments: JSON values; sent in their canonical form.
            progress: called with each report on this call; must return at once, and not raise.
            key: a name by which `cancel` finds the call; not sent.
            within_s: seconds until it is given up; the limit `call_s` if not said.
            method: what is asked of the server; where it calls no tool, see `methods`.
            extra: more parameters of the request, beside name and arguments.
            capabilities: what a server without handshake is told of this call's caller, if not
                what the conversation was opened with.

        Raises:
            UpstreamFault: there is no result; `sent` says whether the call may have run.
            InputError: the arguments have no canonical JSON form; nothing was sent.
        """
        reply = await self._exchange.request(
            method.value,
            dressed(
                {**params_of(method, name, arguments), **extra},
                self.opened.revision,
                self._capabilities if capabilities is None else capabilities,
            ),
            within_s=self._limits.call_s if within_s is None else within_s,
            progress=progress,
            key=key,
        )
        return reply.result

    async def ask(
        self, method: str, params: Mapping[str, Any], *, within_s: float | None = None
    ) -> dict[str, Any]:
        """Ask for something that is no call, such as to be told of changes; gives the result.

        Raises:
            UpstreamFault: there is none.
        """
        reply = await self._exchange.request(
            method,
            dressed(params, self.opened.revision, self._capabilities),
            within_s=self._limits.list_s if within_s is None else within_s,
        )
        return reply.result

    def when_told(self, told: Callable[[str, Mapping[str, Any]], None]) -> None:
        """Have this called with each notification of the server; returns at once, does not raise."""
        self._exchange.told = told

    async def over(self) -> UpstreamFault:
        """Wait until it has ended; why."""
        return await self._exchange.over()

    def cancel(self, key: str) -> bool:
        """Give up the calls of this key, tell the server, and say whether there was one.

        Each then raises `cancelled`. Cancelling the task that awaits `call` does the same.
        """
        return self._exchange.cancel(key)

    async def written(self) -> None:
        """Wait until the server was sent all that it is to be told, a cancel among it."""
        await self._exchange.written()

    async def close(self) -> None:
        """End it; each call in flight raises `cancelled`. The stream stays its maker's."""
        await self._exchange.close()

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()
