"""One server under one authorization: its connections, its list of tools, its sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from remit.errors import UpstreamFault
from remit.model import Method, SessionMode, UpstreamCall
from remit.upstreams.asking import check_prompt, has_tools
from remit.upstreams.http_agreed import SHAKEN, Agreed, Transport
from remit.upstreams.http_background import Background
from remit.upstreams.http_connection import Sent
from remit.upstreams.http_line import Line
from remit.upstreams.http_listed import Listed, Ttl
from remit.upstreams.http_modern import modern_request
from remit.upstreams.http_parameters import Mirrored
from remit.upstreams.http_session import Session, unsent
from remit.upstreams.limits import Limits
from remit.upstreams.lists import Ask, Kind
from remit.upstreams.messages import Reply
from remit.upstreams.pages import everything

PACE_S = 1.0
"""How long after a server says that its tools changed it is asked for them, if no call does so."""


@dataclass(slots=True, kw_only=True)
class _Kept:
    """A session that several calls share."""

    session: Session
    made_s: float
    used_s: float
    users: int = 0


class Peer:
    """What is kept for one server and one authorization; nothing of it serves another one.

    Args:
        line: makes its requests.
        url: as it is written, for servers that are listened to.
        background: runs what must not hold up a call, such as the end of a session.
        seen: told each list of tools that is kept to compare calls with.
    """

    def __init__(
        self,
        line: Line,
        url: str,
        background: Background,
        seen: Callable[[Sequence[dict[str, Any]]], None],
    ) -> None:
        self._seen = seen
        self.line = line
        self._url = url
        self._background = background
        self._listed: Listed | None = None
        self._listing = asyncio.Lock()
        self._kept: dict[str, _Kept] = {}
        self._keeping = asyncio.Lock()

    async def fresh(
        self,
        agreed: Agreed,
        limits: Limits,
        session: Session | None,
        age_s: float | None = None,
    ) -> Listed:
        """The server's list, not older than what is borne, and than the server says that it holds.

        Args:
            age_s: how old it may be, where that is less.
        """
        now = asyncio.get_running_loop().time()
        most_s = self.line.limits.fresh_s if age_s is None else age_s
        found = self._listed
        told = session is not None and session.tools_changed
        if found is not None and not told and now - found.read_s < min(most_s, found.ttl_s):
            return found
        async with self._listing:
            if self._listed is not None and self._listed.read_s >= now:
                return self._listed  # somebody began to read it after this call came
            read_s, ttl = asyncio.get_running_loop().time(), Ttl()
            items = await self.list_tools(agreed, limits, session, ttl)
            mirrors = agreed.transport is Transport.STATELESS
            self._listed = Listed(items, read_s, mirrors=mirrors, ttl_s=ttl.seconds)
            self._seen(self._listed.items)
            return self._listed

    async def check(
        self,
        agreed: Agreed,
        limits: Limits,
        session: Session | None,
        call: UpstreamCall,
        age_s: float | None = None,
    ) -> Mirrored:
        """That the server still has what is called as planned; and which of its arguments go into
        headers.

        Args:
            age_s: see `fresh`.

        Raises:
            UpstreamFault: `tool_changed`, or there is no list; nothing was sent.
        """
        if call.method is Method.TOOLS_CALL:
            return (await self.fresh(agreed, limits, session, age_s)).check(call)
        if call.method is Method.PROMPTS_GET:
            try:
                async with self.lists(agreed, limits, session) as ask:
                    await check_prompt(call, ask)
            except UpstreamFault as fault:
                raise unsent(fault) from None
        return ()

    async def list_tools(
        self,
        agreed: Agreed,
        limits: Limits,
        session: Session | None = None,
        ttl: Ttl | None = None,
    ) -> list[dict[str, Any]]:
        """Every tool that the server lists now; `ttl` is told what it says of how long it holds."""
        if not has_tools(agreed.opened.capabilities):
            return []
        async with self.lists(agreed, limits, session, ttl) as ask:
            return await ask(Kind.TOOLS)

    @asynccontextmanager
    async def lists(
        self,
        agreed: Agreed,
        limits: Limits,
        session: Session | None = None,
        ttl: Ttl | None = None,
    ) -> AsyncIterator[Ask]:
        """What gives whole lists of the server as they are now."""
        if session is not None:
            yield session.items
        elif agreed.transport is Transport.STATELESS:

            async def ask(kind: Kind) -> list[dict[str, Any]]:
                async def page(params: dict[str, Any]) -> Reply:
                    sent = Sent()
                    reply = await modern_request(self.line, kind.method, params, limits, sent=sent)
                    if ttl is not None:
                        ttl.add(reply.result)
                    return reply

                return await everything(page, limits, kind)

            yield ask
        else:
            opened = await self._opened(agreed, limits)
            try:
                yield opened.items
            finally:
                self._background.run(opened.close())

    @asynccontextmanager
    async def session(
        self, agreed: Agreed, limits: Limits, call: UpstreamCall
    ) -> AsyncIterator[Session]:
        """A session for this call: one of its own, or a kept one where the plan lets it."""
        if call.session is SessionMode.PER_CALL or not agreed.sessions:
            session = await self._opened(agreed, limits)
            try:
                yield session
            finally:
                self._background.run(session.close())
            return
        key = "" if call.session is SessionMode.SHARED else call.caller
        async with self._keeping:
            kept = self._still(key, call) or await self._keep(key, agreed, limits, call.idle_s)
            kept.users += 1
        try:
            yield kept.session
        finally:
            kept.users -= 1
            kept.used_s = asyncio.get_running_loop().time()
            if self._kept.get(key) is not kept and not kept.users:
                self._background.run(kept.session.close())
            elif not kept.session.live:
                self._forget(key, kept)

    def _still(self, key: str, call: UpstreamCall) -> _Kept | None:
        kept, now = self._kept.get(key), asyncio.get_running_loop().time()
        if kept is None:
            return None
        idle = not kept.users and now - kept.used_s >= call.idle_s
        if kept.session.live and not idle and now - kept.made_s < call.age_s:
            return kept
        self._forget(key, kept)
        return None

    def _relist(self, agreed: Agreed, limits: Limits, session: Session) -> None:
        """The server says that its tools are others now: look, whether or not anybody calls one."""

        async def look() -> None:
            with suppress(UpstreamFault):  # then the next call says what is wrong
                await self.fresh(agreed, limits, session)

        if session.live:
            self._background.later(PACE_S, lambda: self._background.run(look()))

    async def _keep(self, key: str, agreed: Agreed, limits: Limits, idle_s: float) -> _Kept:
        while len(self._kept) >= self.line.limits.sessions:
            oldest = min(self._kept, key=lambda each: self._kept[each].used_s)
            self._forget(oldest, self._kept[oldest])
        session = await self._opened(agreed, limits)
        now = asyncio.get_running_loop().time()
        self._kept[key] = _Kept(session=session, made_s=now, used_s=now)
        self._watch(key, self._kept[key], idle_s)
        session.when_tools_change(lambda: self._relist(agreed, limits, session))
        return self._kept[key]

    def _forget(self, key: str, kept: _Kept) -> None:
        """Use it no more; who is still in it ends it."""
        if self._kept.get(key) is kept:
            del self._kept[key]
            if not kept.users:
                self._background.run(kept.session.close())

    def _watch(self, key: str, kept: _Kept, idle_s: float) -> None:
        """End it once nobody has used it for so long."""

        def look() -> None:
            if self._kept.get(key) is not kept:
                return
            since = asyncio.get_running_loop().time() - kept.used_s
            if not kept.users and since >= idle_s:
                self._forget(key, kept)
            else:
                self._background.later(max(idle_s - since, 1.0), look)

        self._background.later(idle_s, look)

    async def _opened(self, agreed: Agreed, limits: Limits) -> Session:
        try:
            if agreed.transport is Transport.EVENTS:
                return await Session.listening(self.line, limits, self._url, SHAKEN)
            if agreed.sessions:
                return await Session.shaken(self.line, limits, SHAKEN)
        except UpstreamFault as fault:
            raise unsent(fault) from None  # what was sent was a greeting, never a call
        return Session.resumed(self.line, limits, agreed.opened)

    @property
    def sessions(self) -> int:
        """How many sessions are kept."""
        return len(self._kept)

    @property
    def unused(self) -> bool:
        """Whether nothing is under way."""
        return self.line.unused and not any(kept.users for kept in self._kept.values())

    async def close(self) -> None:
        """End what is kept."""
        kept, self._kept = list(self._kept.values()), {}
        for each in kept:
            await each.session.close()
        self.line.close()
