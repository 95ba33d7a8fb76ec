"""Hearing what a server tells, in a conversation with it that is held open for this alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from remit.errors import Code, UpstreamFault
from remit.upstreams.conversation import Conversation
from remit.upstreams.notices import (
    ACKNOWLEDGED,
    LISTEN,
    Hearing,
    Hears,
    tell,
    unhonoured,
    wanted,
)

AGE_S = 24 * 3_600.0
"""How long one `subscriptions/listen` may last; whoever holds the conversation ends it before."""


def hearing(talk: Conversation, lists: frozenset[str], hears: Hears) -> Hearing:
    """Hear in this conversation, as its revision has it.

    Args:
        talk: nothing is called in it; whoever gives it closes it after the hearing.
        lists: the lists of whose changes is to be heard.
    """
    made = _Listened if talk.opened.revision.modern else _Subscribed
    return made(talk, lists, hears)


class _Subscribed:
    """Up to 2025-11-25: changed lists are told to everybody, resources to those who subscribed."""

    def __init__(self, talk: Conversation, lists: frozenset[str], hears: Hears) -> None:
        self._talk = talk
        self._held: set[str] = set()
        talk.when_told(lambda method, params: tell(hears, method, params))

    async def hold(self, uris: frozenset[str]) -> Mapping[str, UpstreamFault]:
        for uri in sorted(self._held - uris):
            self._held.discard(uri)
            await self._asked("resources/unsubscribe", uri)
        refused = {}
        for uri in sorted(uris - self._held):
            fault = await self._asked("resources/subscribe", uri)
            if fault is None:
                self._held.add(uri)
            else:
                refused[uri] = fault
        return refused

    async def _asked(self, method: str, uri: str) -> UpstreamFault | None:
        """The server's refusal, if it refused.

        Raises:
            UpstreamFault: it did not answer.
        """
        try:
            await self._talk.ask(method, {"uri": uri})
        except UpstreamFault as fault:
            if fault.code is not Code.UPSTREAM_ERROR:
                raise
            return fault
        return None

    async def over(self) -> UpstreamFault:
        return await self._talk.over()

    async def close(self) -> None:
        await self._talk.close()


class _Listened:
    """2026-07-28: one request that lasts, and another in its place when what is wanted changes."""

    def __init__(self, talk: Conversation, lists: frozenset[str], hears: Hears) -> None:
        self._talk = talk
        self._lists = lists
        self._hears = hears
        self._listening: asyncio.Task[dict[str, Any]] | None = None
        self._acknowledged: asyncio.Future[Mapping[str, Any]] | None = None
        self._over: asyncio.Future[UpstreamFault] = asyncio.get_running_loop().create_future()
        talk.when_told(self._told)

    async def hold(self, uris: frozenset[str]) -> Mapping[str, UpstreamFault]:
        before = self._listening
        self._acknowledged = asyncio.get_running_loop().create_future()
        asking = self._talk.ask(LISTEN, wanted(self._lists, uris), within_s=AGE_S)
        self._listening = asyncio.ensure_future(asking)
        self._listening.add_done_callback(self._ended)
        waited: list[asyncio.Future[Any]] = [self._listening, self._acknowledged]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not self._acknowledged.done():
            raise await self.over()
        if before is not None:
            before.cancel()
        return unhonoured(self._acknowledged.result(), uris)

    def _told(self, method: str, params: Mapping[str, Any]) -> None:
        if method == ACKNOWLEDGED:
            if self._acknowledged is not None and not self._acknowledged.done():
                self._acknowledged.set_result(params)
        else:
            tell(self._hears, method, params)

    def _ended(self, task: asyncio.Task[dict[str, Any]]) -> None:
        fault = None if task.cancelled() else task.exception()
        if task is not self._listening or self._over.done():
            return
        if not isinstance(fault, UpstreamFault):
            fault = UpstreamFault(Code.UPSTREAM_GONE, "the server ended its subscription")
        self._over.set_result(fault)

    async def over(self) -> UpstreamFault:
        return await asyncio.shield(self._over)

    async def close(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        await self._talk.written()
        await self._talk.close()
