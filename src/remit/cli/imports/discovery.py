"""Start each imported server once, in a sandbox, and see what tools it has.

A server is given what it would have in every run but its secrets and its way out: no policy has
decided on anything yet. What it says of its tools is kept as what was seen first, as `remit serve`
would keep it, and is otherwise only shown.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.catalog.server_spec import ServerSpec
from remit.clock import SystemClock
from remit.errors import RemitError
from remit.model import Effect
from remit.servers.asking import Asker, Listing, Silent
from remit.servers.judging import judge
from remit.servers.pins import Pinned, PinStore
from remit.servers.tools import ServerTools
from remit.upstreams.definitions import Definition
from remit.upstreams.hints import at_least
from remit.upstreams.names import skeleton

if TYPE_CHECKING:
    from remit.config import Settings

AT_A_TIME = 2
"""How many servers are started at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTool:
    """A tool of a server: its name there and here, and whether the server says that it only reads.

    `odd` says why it is not offered before someone has looked at it; None if it is.
    """

    name: str
    offered_as: str
    says_read: bool = False
    odd: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a server listed; `why` says why there is no list, and is safe to show."""

    tools: tuple[SeenTool, ...] = ()
    pinned: Mapping[str, Pinned] = field(default_factory=dict)
    why: str | None = None


def pins_of(settings: Settings) -> Path:
    """Where the gateway keeps what it has accepted of servers' tools."""
    return settings.data_dir / "servers" / "pins"


def look(settings: Settings, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Seen]:
    """What each server of a command lists, by name; changes nothing that stays.

    A server that is reached over HTTP is not asked here. One that does not start, or says nothing
    within a minute, is told of, and costs the others nothing.
    """
    specs = [ServerSpec.model_validate(dict(entry)) for entry in entries]
    started = [ServerTools(spec) for spec in specs if spec.command is not None]
    if not started:
        return {}
    try:
        with tempfile.TemporaryDirectory(prefix="remit-import-") as state:
            found = asyncio.run(_ask(settings, started, Path(state)))
    except RemitError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return {each.spec.name: Seen(why=error.message + hint) for each in started}
    except OSError as error:
        return {each.spec.name: Seen(why=f"{error.strerror}") for each in started}
    names = {skeleton(tool.name) for tool in settings.tools}
    return {
        each.spec.name: _seen(settings, each, answer, names)
        for each, answer in zip(started, found, strict=True)
    }


async def _ask(
    settings: Settings, servers: Sequence[ServerTools], state: Path
) -> list[Listing | Silent]:
    from remit.processes import sandbox_settings
    from remit.runners.sandbox import SandboxRunner

    gateway = f"import-{os.getpid()}"
    chosen = replace(sandbox_settings(settings, state, gateway), classes=())
    runner = await SandboxRunner.open(chosen)
    places = asyncio.Semaphore(AT_A_TIME)
    asker = Asker(runner, None, SystemClock(), gateway=gateway, profiles=settings.profiles)

    async def one(server: ServerTools) -> Listing | Silent:
        async with places:
            return await asker.ask(server)

    try:
        return await asyncio.gather(*(one(each) for each in servers))
    finally:
        await runner.aclose()


def _seen(
    settings: Settings, server: ServerTools, answer: Listing | Silent, others: set[Any]
) -> Seen:
    if isinstance(answer, Silent):
        return Seen(why=answer.why)
    name = server.spec.name
    own = {skeleton(str(item.get("name"))) for item in answer.items}
    judged = judge(
        name,
        PinStore(pins_of(settings)).read(name),
        answer.items,
        others=frozenset(others - own),
        now_ms=SystemClock().now_ms(),
    )
    tools = [
        _tool(server, listed, one) for listed, one in judged.pinned.items() if one.seen is not None
    ]
    tools += [
        SeenTool(name=listed, offered_as=server.offered_as(listed), odd=aside.why)
        for listed, aside in judged.asides.items()
        if listed not in judged.pinned
    ]
    return Seen(tools=tuple(sorted(tools, key=lambda tool: tool.name)), pinned=judged.pinned)


def _tool(server: ServerTools, listed: str, one: Pinned) -> SeenTool:
    seen = one.seen
    assert seen is not None
    odd = None
    if one.held:
        odd = "it is not what was accepted before"
    elif one.accepted is None:
        signs = sorted({f"{each.sign} in {each.place}" for each in seen.signs})
        odd = seen.fault or f"something in it is odd: {', '.join(signs[:3])}"
    return SeenTool(
        name=listed,
        offered_as=server.offered_as(listed),
        says_read=odd is None and _says_read(seen.definition),
        odd=odd,
    )


def _says_read(definition: Definition) -> bool:
    said = definition.annotations.value() if definition.annotations else {}
    return said.get("readOnlyHint") is True and at_least(definition).effect is Effect.READ
