"""All servers of the catalog: what they list is judged, kept, offered or held back, and told.

Whatever a server lists comes in by one of two ways: it was asked here, or a call of it has read its
list (`saw`). Both are judged alike and one after the other. What is accepted is on disk before it
is offered; what is held back is held back at once, whatever the disk does.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from remit.catalog.server_spec import Beside, ServerSpec
from remit.errors import Code, Conflict, NotFound, RemitError
from remit.model import (
    PROMPT,
    Noticed,
    PartDifference,
    ResourceLists,
    ServerStatus,
    Tool,
    ToolStatus,
)
from remit.ports import Clock, Servers
from remit.servers.announced import Announced
from remit.servers.asking import Asks, Listing
from remit.servers.beside import ServerPrompts
from remit.servers.catalog import Arranged, WholeCatalog, arrange
from remit.servers.first import FirstLooks
from remit.servers.gathering import Gathering
from remit.servers.heard import Heard
from remit.servers.hearing import Opens
from remit.servers.judging import Judged, judge
from remit.servers.known import Known, differences_of
from remit.servers.named import Names
from remit.servers.pins import Pinned, PinStore
from remit.servers.shelves import ShelfStore, Shelves
from remit.servers.tools import ServerTools
from remit.servers.watches import Watches
from remit.telemetry import logger
from remit.upstreams.lists import Words, prompt_book
from remit.visible import shown

Doing = Callable[[str], tuple[str, str | None] | None]

PACE_S = 1.0
"""How often, at most, lists that calls have read are judged: a server can make each of them
another, and what is offered is written down each time it changes."""

log = logger()


class Oversight:
    """The servers of the catalog; implements `ports.Servers`.

    `catalog` holds what is offered: the command tools, and the tools of servers that were accepted.

    Args:
        specs: what the operator says of each, names and prefixes all different.
        commands: the command tools.
        store: what was accepted before.

    Raises:
        ConfigError: `catalog_invalid`: what was kept of a server is damaged.
    """

    def __init__(
        self, specs: Iterable[ServerSpec], commands: Sequence[Tool], store: PinStore, clock: Clock
    ) -> None:
        self._store = store
        self._clock = clock
        self._commands = tuple(sorted(commands, key=lambda tool: tool.name))
        listed = sorted(specs, key=lambda spec: spec.name)
        self._known = {
            spec.name: Known(ServerTools(spec), store.read(spec.name)) for spec in listed
        }
        self._prompts = {
            spec.name: Known(ServerPrompts(spec), store.read(book), book)
            for spec in listed
            if spec.prompts is Beside.OFFER and (book := prompt_book(spec.name))
        }
        self._books = {each.book: each for each in self._each()}
        self._announced = Announced(store.directory)
        self._shelves = Shelves(listed, ShelfStore(store.directory), self._announced)
        tools = {name: each.tools for name, each in self._known.items()}
        self.watches = Watches(tools, self._announced)
        self._prefixes = {name: each.tools.prefix for name, each in self._known.items()}
        self._names = Names(self._commands)
        for each in self._each():
            self._names.add(each, each.pinned)
        self._gathering, self._other = Gathering(), False
        self._arranged = Arranged(tools=(), refused={})
        self.catalog = WholeCatalog()
        self._put()
        self._asks: Asks | None = None
        self._doing: Doing = lambda _: None
        self._activate: Callable[[], Awaitable[None]] = _nothing
        self._turn = asyncio.Lock()
        self._heard = Heard()
        self._told: list[Callable[[], None]] = []

    @asynccontextmanager
    async def kept(
        self, asks: Asks, activate: Callable[[], Awaitable[None]], opens: Opens | None = None
    ) -> AsyncIterator[None]:
        """Until the block ends: judge what calls read, and ask servers that were never seen.

        Returns at once; whoever is asked is asked meanwhile.

        Args:
            activate: puts what the catalog holds in force in the ledger.
            opens: opens connections to hear servers; None: nobody hears them.
        """
        self._asks, self._activate = asks, activate
        unseen = (
            name
            for name, each in self._known.items()
            if not each.pinned or self._shelves.unseen(name)
        )
        tasks = FirstLooks(unseen, self._answers, self._gathering).begin()
        tasks += [asyncio.ensure_future(self._listen()), asyncio.ensure_future(self._gather())]
        try:
            async with self.watches.kept(opens, self.look):
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------- what servers have listed

    def saw(self, server: str, items: Sequence[dict[str, Any]], *, whole: bool = True) -> None:
        """A call has read this list of the server; see `upstreams.asking.Seen`.

        Args:
            whole: whether what is not in it is gone; see `judge`.
        """
        known = self._books.get(server)
        if known is None:
            return
        known.answered(self._clock.now_ms())
        if items == known.listed:
            self._heard.drop(server)
        else:
            self._heard.put(server, items, whole=whole)

    async def _listen(self) -> None:
        while True:
            await self._heard.wait()
            while (heard := self._heard.take()) is not None:
                server, items, whole = heard
                try:
                    async with self._heard.judging(server, PACE_S):
                        await self._take(self._books[server], items, Noticed.CALL, whole=whole)
                except Exception:
                    log.exception("server_not_judged", server=server)
            await asyncio.sleep(PACE_S)

    async def _answers(self, server: str) -> bool:
        """Ask a server that was never seen; whether it has ever given a list."""
        if self._known[server].listed is None:
            await self._look(server, first=True)
        return self._known[server].listed is not None

    async def _gather(self) -> None:
        """Offer what has waited for long enough."""
        while True:
            await self._gathering.due()
            try:
                async with self._turn:
                    await self._offer()
            except Exception:
                log.exception("tools_not_offered")

    async def _take(
        self,
        known: Known,
        items: Sequence[dict[str, Any]],
        noticed: Noticed,
        *,
        whole: bool = True,
        first: bool = False,
    ) -> None:
        """Judge a list, keep what came of it, and offer what may be offered.

        Args:
            first: nobody waits for it; if nothing is known of the server so far, and no name in
                the list is taken, it may be offered a little later, together with others'.
        """
        async with self._turn:
            name, first = known.book, first and not known.pinned
            judged = await asyncio.to_thread(
                judge,
                name,
                known.pinned,
                items,
                others=self._names.but(known, (str(item.get("name")) for item in items)),
                now_ms=self._clock.now_ms(),
                whole=whole,
            )
            if judged.pinned != known.pinned and not await self._write(name, judged.pinned):
                judged = replace(judged, pinned=_unaccepted(judged, known.pinned))
            known.judged(items, judged, noticed, whole=whole)
            self._tell(name, judged)
            taken = self._names.add(known, judged.fresh)
            await self._offer_soon(len(judged.fresh), first=first and not taken)

    def _tell(self, server: str, judged: Judged) -> None:
        for name in judged.held:
            log.warning(
                "tool_quarantined", server=server, tool=shown(name), hint="remit tools diff"
            )
        odd = [name for name in judged.fresh if judged.pinned[name].accepted is None]
        if odd:
            log.warning("tools_not_accepted", server=server, tools=len(odd), hint="remit tools")
        if judged.fresh:
            log.info("tools_seen", server=server, tools=len(judged.fresh))

    async def _write(self, server: str, pinned: Mapping[str, Pinned]) -> bool:
        try:
            await asyncio.to_thread(self._store.write, server, pinned)
        except OSError as error:
            log.error("pins_not_kept", server=server, error=error.strerror)  # noqa: TRY400 - a trace says nothing
            return False
        return True

    async def _beside(self, server: str, words: Words | None, *, first: bool) -> None:
        """Take what a server lists beside its tools, if it could be read."""
        if words is None:
            return
        if (prompts := self._prompts.get(server)) is not None:
            prompts.answered(self._clock.now_ms())
            await self._take(prompts, words.prompts or (), Noticed.DISCOVERY, first=first)
        async with self._turn:
            now_ms = self._clock.now_ms()
            other = await asyncio.to_thread(self._shelves.take, server, words, now_ms)
            self._other |= other
            await self._offer_soon(1, first=first)

    def _each(self) -> Iterator[Known]:
        """The tools of each server, and its prompts."""
        yield from self._known.values()
        yield from self._prompts.values()

    async def _offer_soon(self, more: int, *, first: bool) -> None:
        """Offer so many more; what is seen for the first time waits for others, if not for long."""
        if not first or self._gathering.add(more, len(self._arranged.tools)):
            await self._offer()

    async def _offer(self) -> None:
        """Offer what may be offered now; if that is something else, put it in force."""
        with self._gathering.offering():
            other, self._other = self._other, False
            if put := self._put():
                await self._activate()
        for told in list(self._told) if put or other else ():
            told()

    def _put(self) -> bool:
        candidates = (one for each in self._each() for one in each.candidates())
        self._arranged = arrange(self._commands, candidates, self._prefixes)
        every = [*self._arranged.tools, *self._shelves.entries()]
        return self.catalog.put(tuple(sorted(every, key=lambda tool: tool.name)))

    # ------------------------------------------------------------------------- what operators ask

    def statuses(self) -> Sequence[ServerStatus]:
        return [self._status(each) for each in self._known.values()]

    def resources(self) -> Sequence[ResourceLists]:
        return self._shelves.resources()

    def reader(self, uri: str) -> str | None:
        return self._shelves.reader(uri)

    def watcher(self, uri: str) -> str | None:
        return self._shelves.watcher(uri)

    def _status(self, known: Known) -> ServerStatus:
        refused, name = self._arranged.refused, known.book
        beside = self._shelves.status(name)
        if (prompts := self._prompts.get(name)) is not None:
            beside += prompts.all_told(refused)
        calls, fault = self._doing(name) or (None, None)
        return replace(known.status(refused, beside), calls=calls, fault=fault)

    def watch(self, doing: Doing) -> None:
        """Tell operators with each server how calls of it go; see `HttpServers.doing`."""
        self._doing = doing

    def differences(self, server: str, tool: str) -> Sequence[PartDifference]:
        return differences_of(self._tool(server, tool))

    async def look(self, server: str) -> ServerStatus:
        return await self._look(server)

    async def _look(self, server: str, *, first: bool = False) -> ServerStatus:
        known = self._server(server)
        assert self._asks is not None, "nobody asks before `kept`"
        found = await self._asks.ask(known.tools)
        if isinstance(found, Listing):
            known.answered(self._clock.now_ms(), found)
            async with self._turn:
                if await asyncio.to_thread(self._announced.put, server, found.announces):
                    self.watches.announced()
                    await self._offer_soon(1, first=first)
            await self._take(known, found.items, Noticed.DISCOVERY, first=first)
            await self._beside(server, found.words, first=first)
        else:
            known.silent(found)
            log.warning("server_silent", server=server, health=found.health.value, why=found.why)
        return self._status(known)

    async def accept(self, server: str, tool: str, digest: str, *, operator: str) -> ToolStatus:
        async with self._turn:
            known, one = self._holder(server, tool), self._tool(server, tool)
            seen = one.seen
            if seen is None or seen.definition.digest != digest:
                raise Conflict(
                    Code.WRONG_STATE,
                    "the definition last seen of this tool is another",
                    hint="look at it again: remit tools diff",
                )
            accepted = Pinned(
                name=tool,
                accepted=seen,
                accepted_by=operator,
                accepted_ms=self._clock.now_ms(),
            )
            pinned = {**known.pinned, tool: accepted}
            if not await self._write(known.book, pinned):
                raise RemitError(
                    Code.INTERNAL, "what was accepted cannot be kept on disk, so it is not offered"
                )
            known.pinned = pinned
            log.info("tool_accepted", server=server, tool=tool, digest=digest, by=operator)
            await self._offer()
            return known.told(accepted, self._arranged.refused)

    def on_change(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._told.append(changed)
        return lambda: self._told.remove(changed) if changed in self._told else None

    def _server(self, name: str) -> Known:
        known = self._known.get(name)
        if known is None:
            raise NotFound(Code.NOT_FOUND, "there is no such server")
        return known

    def _holder(self, server: str, tool: str) -> Known:
        """Who holds a tool of that name: prompts have their own."""
        known = self._server(server)
        return self._prompts.get(server, known) if tool.startswith(PROMPT) else known

    def _tool(self, server: str, tool: str) -> Pinned:
        one = self._holder(server, tool).pinned.get(tool)
        if one is None:
            raise NotFound(Code.NOT_FOUND, "this server has no such tool that is known")
        return one


async def _nothing() -> None:
    """Nothing is in force yet."""


def _unaccepted(judged: Judged, before: Mapping[str, Pinned]) -> Mapping[str, Pinned]:
    """What was judged, without what was accepted by it: that could not be kept."""
    return {
        name: one
        if name in before or one.accepted is None
        else Pinned(name=name, last=one.accepted)
        for name, one in judged.pinned.items()
    }


_: type[Servers] = Oversight
