"""One process of an MCP server that is kept for several calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from remit.errors import Code, UpstreamFault
from remit.model import (
    Destruction,
    Ending,
    Lease,
    Method,
    RunSpec,
    SessionFacts,
    Traffic,
    UpstreamCall,
)
from remit.ports import Clock, KeepingRunner
from remit.upstreams.asking import check_definition, checked, has_tools
from remit.upstreams.conversation import Conversation
from remit.upstreams.spoken import processed
from remit.upstreams.stdio import Means, limits_of

END_WITHIN_S = 2.0
"""How long the process has to end by itself once its input is closed, and then once it is told to."""

FRESH_S = 30.0
"""How long the list that calls are compared with is believed; not all servers say that theirs is
another."""

PACE_S = 1.0
"""How long after a server says that its tools changed it is asked for them, if no call does so."""

_MARGIN_S = 30


def reaches(spec: RunSpec) -> bool:
    """Whether a run of this may reach out, or use what is lent for reaching out."""
    return bool(spec.egress or spec.credentials)


def _heeded(work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
    """Its task; what it raises is for those who wait for it, if anybody does."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


class Session:
    """The process, the conversation with it, and the calls that are being made of it.

    Args:
        key: what its process is (`sessions.session_key`).
        keeper: makes the environment, where what is in it may reach out.
        now: seconds that never go back.
    """

    def __init__(
        self,
        means: Means,
        clock: Clock,
        gateway: str,
        key: RunSpec,
        *,
        keeper: KeepingRunner | None,
        now: Callable[[], float],
    ) -> None:
        assert key.upstream is not None
        self.id = clock.new_id("session")
        self._means = means
        self._keeper = keeper if reaches(key) else None
        self._now = now
        self._spec = key
        self._call = key.upstream
        # The process may live as long as the session may be used, and its last call after that.
        lives_s = self._call.age_s + key.limits.wall_s + _MARGIN_S
        self._process = processed(replace(key, limits=replace(key.limits, wall_s=lives_s)))
        self._opened_ms = clock.now_ms()
        self._lease = Lease(
            id=self.id, gateway=gateway, fence=0, deadline_ms=self._opened_ms + lives_s * 1000
        )
        self._opened = self._used = now()
        self._calls = 0
        self._listing = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._items: list[dict[str, object]] = []
        self._listed = 0.0
        self._looking: asyncio.Future[None] | None = None
        self._talk: Conversation | None = None
        self.in_use = 0
        self.ended: str | None = None
        self._making = _heeded(self._make())
        self._opening: asyncio.Future[None] | None = None

    @property
    def age_ms(self) -> int:
        """How long ago it was begun."""
        return round((self._now() - self._opened) * 1000)

    @property
    def revision(self) -> str | None:
        """The revision of MCP that was agreed on; None before."""
        return None if self._talk is None else self._talk.opened.revision.value

    @property
    def facts(self) -> SessionFacts:
        """What records say of it."""
        return SessionFacts(
            id=self.id,
            server=self._call.server,
            opened_ms=self._opened_ms,
            calls=self._calls,
            ended=self.ended,
        )

    def enter(self) -> None:
        """A call takes its place in it."""
        self._calls += 1
        self.in_use += 1

    def leave(self) -> None:
        """A call is over."""
        self.in_use -= 1
        self._used = self._now()

    def unfit(self) -> str | None:
        """Why no other call may be made of it; None if one may."""
        now = self._now()
        if now - self._opened >= self._call.age_s:
            return f"it was {self._call.age_s} s old"
        if not self.in_use and now - self._used >= self._call.idle_s:
            return f"nobody used it for {self._call.idle_s} s"
        made = self._opening or self._making
        broken = made.done() and made is not self._making and not self._live
        if broken or (made.done() and (made.cancelled() or made.exception() is not None)):
            return "it ended or could not be opened"
        return None

    @property
    def _live(self) -> bool:
        return self._talk is not None and self._talk.live

    @property
    def by_turns(self) -> bool:
        """Whether its calls are made one after another, because they may reach out."""
        return self._keeper is not None

    async def attach(self, lease: Lease, spec: RunSpec) -> bool:
        """Wait for a call's turn, and give it the way out; false if the session ended meanwhile.

        Raises:
            RunnerFault: it cannot have the way out.
        """
        assert self._keeper is not None
        await asyncio.shield(self._making)
        await self._turn.acquire()
        try:
            if self.ended is not None or self.unfit() is not None:
                self._turn.release()
                return False
            await self._keeper.attach(self._lease, lease, processed(spec))
        except BaseException:
            self._turn.release()
            raise
        return True

    async def detach(self, lease: Lease) -> Traffic | None:
        """Take the way out back from a call that has it; every connection of it is closed then."""
        assert self._keeper is not None
        try:
            return await self._keeper.detach(lease)
        finally:
            self._turn.release()

    def begin(self) -> None:
        """Let the server go, if it has not been."""
        if self._opening is None:
            self._opening = _heeded(self._open())

    async def ready(self, call: UpstreamCall, *, changes: bool = False) -> Conversation:
        """The conversation, once the server lists the called tool as the plan has it.

        Args:
            changes: whether the call may change something; it is then compared with a list that
                was asked for after it came.

        Raises:
            UpstreamFault, RunnerFault: it cannot be called; nothing was sent.
        """
        came = self._now()
        self.begin()
        assert self._opening is not None
        await asyncio.shield(self._opening)
        talk = self._talk
        if talk is None:
            raise UpstreamFault(Code.UPSTREAM_GONE, "the server's process could not be kept")
        if call.method is not Method.TOOLS_CALL:
            await checked(call, talk.items, self._means.seen)
            return talk
        async with self._listing:
            old = self._now() - self._listed >= FRESH_S or (changes and self._listed < came)
            if talk.tools_changed or old:
                await self._list(talk)
        check_definition(call, self._items)
        return talk

    async def _make(self) -> None:
        if self._keeper is None:
            await self._means.inner.provision(self._lease, self._process)
        else:
            await self._keeper.keep(self._lease, self._process)

    async def _open(self) -> None:
        inner = self._means.inner
        await asyncio.shield(self._making)
        await inner.start(self._lease)
        with self._means.eras.of(self._spec, self._call.server) as era:
            talk = await Conversation.open(
                inner.dialogue(self._lease),
                capabilities={},
                limits=limits_of(self._spec),
                revisions=era.revisions,
            )
            era.agreed(talk.opened.revision)
        try:
            await self._list(talk)
        except BaseException:
            await talk.close()
            raise
        self._talk = talk
        if has_tools(talk.opened.capabilities):
            talk.when_tools_change(lambda: self._look_soon(talk))

    def _look_soon(self, talk: Conversation) -> None:
        """The server says that its tools are others now: look, whether or not anybody calls one."""
        if self._looking is None or self._looking.done():
            self._looking = _heeded(self._look(talk))

    async def _look(self, talk: Conversation) -> None:
        while talk.tools_changed and talk.live:
            await asyncio.sleep(PACE_S)
            async with self._listing:
                if talk.tools_changed:
                    await self._list(talk)

    async def _list(self, talk: Conversation) -> None:
        if not has_tools(talk.opened.capabilities):
            return
        self._items, self._listed = await talk.list_tools(), self._now()
        self._means.seen(self._call.server, self._items)

    async def end(self) -> Destruction:
        """End the process and give the evidence, which names the session.

        Raises:
            RunnerFault: it could not be destroyed.
        """
        for task in (self._looking, self._opening, self._making):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._talk is not None:
            try:
                await self._end_process(self._talk)
            finally:
                await self._talk.close()
        evidence = await self._means.inner.destroy(self._lease)
        return replace(evidence, session=self.facts)

    async def _end_process(self, talk: Conversation) -> None:
        inner = self._means.inner
        grace_s = END_WITHIN_S if talk.live else 0.0
        inner.dialogue(self._lease).close_input()
        ending = asyncio.ensure_future(inner.collect(self._lease))
        try:
            await asyncio.wait([ending], timeout=grace_s)
            if not ending.done():
                await inner.stop(self._lease, grace_s=grace_s)
            result = await ending
        finally:
            ending.cancel()
        if result.ending not in (Ending.EXIT, Ending.CANCELLED):
            self.ended = f"{self.ended} ({result.ending.value})"
