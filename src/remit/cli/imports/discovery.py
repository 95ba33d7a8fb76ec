"""Look at each imported server once, and see what tools it has.

One of a command is started in a sandbox with what it would have in every run but its secrets and
its way out; one at a URL is asked there and shown no credential: no policy has decided on anything
yet. What it says of its tools is kept as what was seen first, as `remit serve` would keep it, and is
otherwise only shown.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.catalog.server_spec import ServerSpec
from remit.clock import SystemClock
from remit.errors import Code, RemitError, UpstreamFault
from remit.model import Effect, Health
from remit.servers.asking import Asker, Listing, Silent
from remit.servers.judging import judge
from remit.servers.pins import Pinned, PinStore
from remit.servers.tools import ServerTools
from remit.upstreams.definitions import Definition
from remit.upstreams.hints import at_least
from remit.upstreams.names import skeleton
from remit.upstreams.notices import announced

if TYPE_CHECKING:
    from remit.config import Settings

AT_A_TIME = 2
"""How many servers are started at once."""

ASKED_AT_A_TIME = 8
ASKED_WITHIN_S = 20.0
"""How many servers at a URL are asked at once, and how long each may take for all of it."""


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
    """What a server listed, and of what changes it says that it tells.

    `why` says why there is no list, and is safe to show.
    """

    tools: tuple[SeenTool, ...] = ()
    pinned: Mapping[str, Pinned] = field(default_factory=dict)
    announces: frozenset[str] = frozenset()
    why: str | None = None


def pins_of(settings: Settings) -> Path:
    """Where the gateway keeps what it has accepted of servers' tools."""
    return settings.data_dir / "servers" / "pins"


def look(settings: Settings, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Seen]:
    """What each server lists, by name; changes nothing that stays.

    One that does not start, or says nothing within a minute (20 seconds at a URL), is told of, and
    costs the others nothing.
    """
    servers = [ServerTools(ServerSpec.model_validate(dict(entry))) for entry in entries]
    if not servers:
        return {}
    found = asyncio.run(_look(settings, servers))
    names = {skeleton(tool.name) for tool in settings.tools}
    return {each.spec.name: _seen(settings, each, found[each.spec.name], names) for each in servers}


async def _look(
    settings: Settings, servers: Sequence[ServerTools]
) -> Mapping[str, Listing | Silent]:
    started = [each for each in servers if each.spec.url is None]
    reached = [each for each in servers if each.spec.url is not None]
    some, others = await asyncio.gather(_start(settings, started), _ask(settings, reached))
    return {**some, **others}


async def _start(
    settings: Settings, servers: Sequence[ServerTools]
) -> Mapping[str, Listing | Silent]:
    if not servers:
        return {}
    try:
        with tempfile.TemporaryDirectory(prefix="remit-import-") as state:
            return await _started(settings, servers, Path(state))
    except RemitError as error:
        why = error.message + (f" ({error.hint})" if error.hint else "")
    except OSError as error:
        why = f"{error.strerror}"
    return {each.spec.name: Silent(health=Health.UNREACHABLE, why=why) for each in servers}


async def _started(
    settings: Settings, servers: Sequence[ServerTools], state: Path
) -> Mapping[str, Listing | Silent]:
    from remit.processes import sandbox_settings
    from remit.runners.sandbox import SandboxRunner

    gateway = f"import-{os.getpid()}"
    chosen = replace(sandbox_settings(settings, state, gateway), classes=())
    runner = await SandboxRunner.open(chosen)
    asker = Asker(runner, None, SystemClock(), gateway=gateway, profiles=settings.profiles)
    try:
        return await _each(servers, asker.ask, AT_A_TIME)
    finally:
        await runner.aclose()


async def _ask(
    settings: Settings, servers: Sequence[ServerTools]
) -> Mapping[str, Listing | Silent]:
    if not servers:
        return {}
    from remit.processes import asked_elsewhere

    try:
        http = asked_elsewhere(settings, lambda _server, _items: None)
    except RemitError as error:
        silent = Silent(health=Health.UNREACHABLE, why=error.message)
        return {each.spec.name: silent for each in servers}

    async def one(server: ServerTools) -> Listing | Silent:
        name, url = server.spec.name, server.spec.url
        assert url is not None, "only servers at a URL are asked"
        try:
            async with asyncio.timeout(ASKED_WITHIN_S):
                items = await http.list_tools(name, url, None, within_s=ASKED_WITHIN_S)
        except TimeoutError:
            why = f"it did not list its tools within {ASKED_WITHIN_S:g} s"
            return Silent(health=Health.UNREACHABLE, why=why)
        except UpstreamFault as fault:
            return Silent(health=Health.UNREACHABLE, why=_why(server.spec, fault))
        return Listing(items=items, announces=announced(http.offers(name)))

    try:
        return await _each(servers, one, ASKED_AT_A_TIME)
    finally:
        await http.aclose()


async def _each(
    servers: Sequence[ServerTools],
    ask: Callable[[ServerTools], Awaitable[Listing | Silent]],
    at_once: int,
) -> Mapping[str, Listing | Silent]:
    places = asyncio.Semaphore(at_once)

    async def one(server: ServerTools) -> Listing | Silent:
        async with places:
            return await ask(server)

    found = await asyncio.gather(*(one(each) for each in servers))
    return {each.spec.name: answer for each, answer in zip(servers, found, strict=True)}


def _why(spec: ServerSpec, fault: UpstreamFault) -> str:
    """Why a server at a URL gave no list, and what to write where it wants to be shown something."""
    if fault.code is not Code.UPSTREAM_UNAUTHORIZED:
        return fault.message + (f" ({fault.hint})" if fault.hint else "")
    if spec.authorization is not None:
        return (
            "it lists its tools for a token alone, and none is shown to look; `unsafe_look: true` in "
            f"runners.credentials.{spec.authorization} lets Remit show it"
        )
    return (
        "it wants to be shown a token: write `authorization: HANDLE` for it, and under "
        "runners.credentials a section HANDLE with the broker static (a token that you have), "
        "client_credentials (Remit's own) or authorization_code (each person's own); docs/servers.md "
        "has each"
    )


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
    return Seen(
        tools=tuple(sorted(tools, key=lambda tool: tool.name)),
        pinned=judged.pinned,
        announces=answer.announces,
    )


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
