"""What becomes of the tools of MCP servers, written into the log: who held one back, who let it go.

A tool that is not what was accepted is held back by `ports.Servers`; here it gets its entry. That
someone accepts a definition is written down before it is done, with who, and the digests of what was
and what is: no definition is offered on a person's word that the log does not hold. Texts of a
definition are the server's own words, so they are sealed and can be erased.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from remit.canonical import encode
from remit.errors import Code, Conflict, NotFound, RemitError
from remit.model import EntryDraft, Operator, PartDifference, ToolState, ToolStatus
from remit.ports import Ledger, Servers
from remit.telemetry import logger
from remit.visible import shown

QUARANTINED = "tool.quarantined"
RELEASED = "tool.released"
PINNED = "tool.pinned"
PIN_FAILED = "tool.pin_failed"

HELD = frozenset(
    {
        ToolState.NEW,
        ToolState.CHANGED,
        ToolState.REPEATED,
        ToolState.COLLIDES,
        ToolState.UNUSABLE,
    }
)
"""The states in which a tool is kept from callers by what its server says, not by the operator."""

AT_ONCE = 100
"""Most entries of one round; a server that holds back more tools than that has the rest told in the
rounds after it."""
MAX_TEXT = 65_536
"""Characters of each part's difference that are sealed; the digest covers all of it."""
MAX_STANDING = 1_000
"""Entries of each kind that are looked at for what an earlier life of the gateway has told."""
EVERY_S = 30.0
"""How often states are looked at, where nothing says that they have changed."""

log = logger()

Name = tuple[str, str]
"""A tool by its server and its name there."""


class Quarantine:
    """Which tools are held back, as far as the log says so.

    Used by one gateway at a time, in its event loop.
    """

    def __init__(self, servers: Servers, ledger: Ledger) -> None:
        self._servers = servers
        self._ledger = ledger
        self._turn = asyncio.Lock()
        self._due = asyncio.Event()
        self._told: dict[Name, tuple[str, str | None]] | None = None

    def changed(self) -> None:
        """Other tools are offered than before; they are looked at soon."""
        self._due.set()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Write down what is held back and let go, until the block ends."""
        self._due.set()
        running = asyncio.ensure_future(self._run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            try:
                await self.write()
            except RemitError as fault:  # what could not be written is still due in the next round
                log.warning("quarantine_not_written", code=fault.code.value)
            except Exception:
                log.exception("quarantine_not_written")

    async def write(self) -> None:
        """Write down each tool that was held back, or let go, since the last time.

        Raises:
            LedgerFault: nothing was written.
        """
        async with self._turn:
            await self._write()

    async def pin(self, operator: Operator, server: str, tool: str, digest: str) -> ToolStatus:
        """Accept the definition of a tool that was looked at, on an operator's word.

        Raises:
            NotFound; Conflict: `wrong_state` where another definition was seen last; LedgerFault:
                it could not be written down, so it was not done.
        """
        async with self._turn:
            status = find(self._servers, server, tool)
            if status.digest != digest:
                raise Conflict(
                    Code.WRONG_STATE,
                    "the definition last seen of this tool is not the one that is named",
                    hint="look at it again: remit tools diff",
                )
            if status.state is ToolState.OFFERED:
                return status
            await self._write(first=(server, status.name))
            named = {
                "server": server, "tool": status.name, "digest": digest, "operator": operator.subject
            }  # fmt: skip
            public = {**named, "offered_as": status.offered_as, "accepted": status.accepted}
            sealed = {"definition": _texts(self._differences(status), status)}
            await self._ledger.append([EntryDraft(event=PINNED, public=public, sealed=sealed)])
            try:
                after = await self._servers.accept(
                    server, listed(status.name), digest, operator=operator.subject
                )
            except RemitError as fault:
                failed = {**named, "code": fault.code.value}
                await self._ledger.append([EntryDraft(event=PIN_FAILED, public=failed)])
                raise
            if self._told is not None:
                self._told.pop((server, status.name), None)
        self.changed()
        return after

    # ------------------------------------------------------------------------------- what is told

    async def _write(self, first: Name | None = None) -> None:
        found = {
            (each.server, each.name): each
            for status in self._servers.statuses()
            for each in status.tools
        }
        if self._told is None:
            self._told = await self._standing() if found else {}
        held = {name: each for name, each in found.items() if each.state in HELD}
        due = [name for name, each in held.items() if self._told.get(name) != _facts(each)]
        due = sorted(due, key=lambda name: name != first)[:AT_ONCE]
        gone = [name for name in self._told if name not in held][:AT_ONCE]
        drafts = [self._quarantined(held[name]) for name in due]
        drafts += [_released(name, found.get(name)) for name in gone]
        if drafts:
            await self._ledger.append(drafts)
        for name in due:
            self._told[name] = _facts(held[name])
        for name in gone:
            del self._told[name]

    async def _standing(self) -> dict[Name, tuple[str, str | None]]:
        """What the log said last of tools that were held back in an earlier life."""
        newest: dict[Name, tuple[int, tuple[str, str | None] | None]] = {}
        for event in (QUARANTINED, RELEASED, PINNED):
            if event != QUARANTINED and not newest:
                break
            for entry in await self._ledger.search({"event": event}, limit=MAX_STANDING):
                said = json.loads(entry.text)
                name = said["server"], said["tool"]
                facts = (said["state"], said.get("digest")) if event == QUARANTINED else None
                if name not in newest or newest[name][0] < entry.index:
                    newest[name] = entry.index, facts
        return {name: facts for name, (_, facts) in newest.items() if facts is not None}

    def _quarantined(self, status: ToolStatus) -> EntryDraft:
        public: dict[str, Any] = {
            "server": status.server,
            "tool": status.name,
            "offered_as": status.offered_as,
            "state": status.state.value,
            "digest": status.digest,
            "accepted": status.accepted,
            "signs": sorted({each.sign for each in status.suspicions}),
        }
        if status.noticed is not None:
            public["noticed"] = status.noticed.value
        texts = _texts(self._differences(status), status)
        return EntryDraft(event=QUARANTINED, public=public, sealed={"definition": texts})

    def _differences(self, status: ToolStatus) -> Sequence[PartDifference]:
        try:
            return self._servers.differences(status.server, listed(status.name))
        except NotFound:  # what could not be read has no definition to differ
            return ()


def find(servers: Servers, server: str, tool: str) -> ToolStatus:
    """One tool of one server, by the server's name for it.

    Raises:
        NotFound.
    """
    for each in servers.statuses():
        if each.name == server:
            for one in each.tools:
                if one.name in (tool, shown(tool)):
                    return one
            raise NotFound(
                Code.NOT_FOUND,
                "this server has no tool of that name that is known",
                hint=f"remit tools list; or ask the server again: remit tools look {server}",
            )
    raise NotFound(Code.NOT_FOUND, "there is no server of that name", hint="remit tools servers")


def listed(name: str) -> str:
    """A tool's name as its server lists it, from how it is shown."""
    return name[1:-1] if name.startswith('"') and len(name) > 1 else name


def _facts(status: ToolStatus) -> tuple[str, str | None]:
    return status.state.value, status.digest


def _released(name: Name, status: ToolStatus | None) -> EntryDraft:
    server, tool = name
    state = "unknown" if status is None else status.state.value
    return EntryDraft(event=RELEASED, public={"server": server, "tool": tool, "state": state})


def _texts(differences: Sequence[PartDifference], status: ToolStatus) -> bytes:
    """What a person is shown of a definition."""
    shown_parts: list[Mapping[str, str]] = [
        {"part": each.part, "diff": each.diff[:MAX_TEXT]} for each in differences
    ]
    signs = [
        {"sign": each.sign, "place": each.place, "excerpt": each.excerpt}
        for each in status.suspicions
    ]
    return encode({"differences": shown_parts, "suspicions": signs})
