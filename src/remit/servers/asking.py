"""Asking a server for its tools when nobody calls one: to see it for the first time, or again.

A server that is started for this gets what the operator wrote for it and no more: no way out and no
credential, because no policy has decided on anything, and its directories read-only. One at a URL is
shown a credential only where the operator wrote that it may be (`unsafe_look`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from remit.catalog.server_means import command_of
from remit.catalog.server_spec import Beside
from remit.command import render_command
from remit.errors import Code, RunnerFault, UpstreamFault
from remit.model import Ending, Health, Lease, Lent, Limits, Loan, RunResult, RunSpec
from remit.ports import Clock, Runner
from remit.profile import Profile
from remit.servers.tools import ServerTools, limits
from remit.telemetry import logger
from remit.upstreams import limits as bounds
from remit.upstreams.asking import HttpServers, has_tools
from remit.upstreams.conversation import Conversation
from remit.upstreams.elsewhere import token_of
from remit.upstreams.lines import ByteStream
from remit.upstreams.lists import Wanted, Words, words_of
from remit.upstreams.notices import announced
from remit.visible import quoted, shown

log = logger()

End = Callable[[], Awaitable[None]]

WITHIN_S = 60.0
"""How long starting a server and listing its tools may take."""

_SLACK_S = 10.0
_TAIL = 300
_BROKEN = frozenset({Code.UPSTREAM_INVALID, Code.UPSTREAM_ERROR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A whole list of tools as the server sent it; its name and version as it claims them."""

    items: Sequence[dict[str, Any]]
    words: Words | None = None
    """What it lists beside its tools; None where it was not asked, or that could not be read."""
    revision: str | None = None
    claimed_name: str | None = None
    claimed_version: str | None = None
    announces: frozenset[str] = frozenset()
    """Of what changes it says that it tells; see `notices.announced`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silent:
    """There is no list, and why; the words are safe to show."""

    health: Health
    why: str


class Asks(Protocol):
    """Asks servers."""

    async def ask(self, server: ServerTools) -> Listing | Silent:
        """Its list of tools now. Ends within bounded time and raises nothing but cancellation."""


class Looks(Protocol):
    """Lends what a server at a URL is shown when it is looked at; see `KeeperClient.look`."""

    async def look(self, lease: Lease, ref: str) -> Lent: ...
    async def take_back(self, lease: Lease) -> Sequence[Loan]: ...
    async def scrub(self, lease: Lease, data: bytes) -> tuple[bytes, int]: ...
    async def unaccepted(self, lease: Lease, scopes: Sequence[str] | None = None) -> None: ...


class Asker:
    """Starts each server of a command once, and asks each of a URL; implements `Asks`.

    Args:
        runner: makes the environments of servers that are started.
        http: asks the others; None where there are none.
        gateway: the gateway's name.
        profiles: the operator's runner profiles, whose ceilings hold here too.
        within_s: how long one server may take.
    """

    def __init__(
        self,
        runner: Runner,
        http: HttpServers | None,
        clock: Clock,
        *,
        gateway: str,
        profiles: Mapping[str, Profile],
        within_s: float = WITHIN_S,
    ) -> None:
        self.runner = runner
        self.http = http
        self._clock = clock
        self._gateway = gateway
        self._profiles = profiles
        self._lends: Looks | None = None
        self._shown: frozenset[str] = frozenset()
        self._heard: frozenset[str] = frozenset()
        self._within_s = within_s

    def lends(
        self, lends: Looks, shown: frozenset[str], heard: frozenset[str] = frozenset()
    ) -> None:
        """Show servers at a URL what the operator wrote may be shown for this: these handles.

        Args:
            heard: those that are shown to hear servers too, for whoever subscribes: never what a
                person consented to, under whose name others would be told.
        """
        self._lends, self._shown, self._heard = lends, shown, heard

    async def ask(self, server: ServerTools) -> Listing | Silent:
        try:
            async with asyncio.timeout(self._within_s):
                if server.spec.url is None:
                    return await self._start(server)
                return await self._call(server, server.spec.url)
        except TimeoutError:
            why = f"it did not list its tools within {self._within_s:g} s"
            return Silent(health=Health.UNREACHABLE, why=why)
        except UpstreamFault as fault:
            return _silent(fault, wants=self._wants(server))
        except RunnerFault as fault:
            hint = "" if fault.hint is None else f" ({fault.hint})"
            return Silent(health=Health.UNREACHABLE, why=fault.message + hint)

    def _wants(self, server: ServerTools) -> str:
        """What an operator can do where a server does not accept who asks it for its tools."""
        ref = server.spec.authorization
        if ref is None:
            return "write `authorization` for it, and the credential that it is to be shown"
        if self._lends is None or ref not in self._shown:
            return (
                f"whether it is shown {ref} to list its tools, unsafe_look says (or unsafe_look_as, "
                "for one that people consent to)"
            )
        return (
            f"it was shown {ref}; a secret that was changed is read when the gateway starts, and "
            "`header` says where a server wants another than a bearer token"
        )

    async def _call(self, server: ServerTools, url: str) -> Listing | Silent:
        if self.http is None:
            return Silent(health=Health.UNREACHABLE, why="no server can be asked over HTTP here")
        ref = server.spec.authorization
        if self._lends is None or ref is None or ref not in self._shown:
            # A credential is lent to runs alone, and this is none.
            return await self._listed(self.http, server, url, None)
        lease = self.lease(self._within_s)
        try:
            token = token_of((await self._lends.look(lease, ref)).files)
            found = await self._listed(self.http, server, url, token)
            return await _unspoilt(found, self._lends, lease)
        except UpstreamFault as fault:
            if fault.challenged is not None:  # what a person gave may be got anew
                with suppress(RunnerFault):
                    await self._lends.unaccepted(lease, fault.challenged or None)
            raise
        finally:
            await asyncio.shield(self._taken_back(self._lends, lease, server, ref))

    async def shown(self, server: ServerTools) -> tuple[bytes, End] | None:
        """What a server at a URL is shown to be heard, and what takes it back; None for nothing.

        Raises:
            RunnerFault: `credential_unavailable`.
        """
        lends, ref = self._lends, server.spec.authorization
        if lends is None or ref is None or ref not in self._heard:
            return None
        lease = self.lease(self._within_s)

        async def back() -> None:
            with suppress(RunnerFault):  # what is not taken back now ends in its time
                await self._taken_back(lends, lease, server, ref)

        try:
            token = token_of((await lends.look(lease, ref)).files)
        except BaseException:
            await asyncio.shield(back())
            raise
        return None if token is None else (token, back)

    async def _taken_back(self, lends: Looks, lease: Lease, server: ServerTools, ref: str) -> None:
        returned = await lends.take_back(lease)
        ended = all(each.revoked for each in returned)
        log.info("server_looked_at", server=server.spec.name, credential=ref, revoked=ended)

    async def _listed(
        self, http: HttpServers, server: ServerTools, url: str, token: bytes | None
    ) -> Listing:
        name, header, within_s = server.spec.name, server.spec.header, self._within_s
        items = await http.list_tools(name, url, token, within_s=within_s, header=header)
        words, wanted = None, wanted_of(server)
        if wanted is not None:
            try:
                words = await http.words(name, url, token, wanted, within_s=within_s, header=header)
            except UpstreamFault as fault:
                _not_read(name, fault)
        return Listing(items=items, words=words, announces=announced(http.offers(name)))

    async def _start(self, server: ServerTools) -> Listing | Silent:
        process = _Process(self.runner, self.process(server), lambda: self.lease(self._within_s))
        try:
            return await process.listing(
                replace(bounds.Limits(), open_s=self._within_s), server.spec.name, wanted_of(server)
            )
        except UpstreamFault as fault:
            return _silent(fault, await process.end())
        finally:
            await process.destroyed()

    def lease(self, within_s: float) -> Lease:
        """A lease of its own for so many seconds."""
        deadline_ms = self._clock.now_ms() + round((within_s + _SLACK_S) * 1000)
        name = self._clock.new_id("look")
        return Lease(id=name, gateway=self._gateway, fence=0, deadline_ms=deadline_ms)

    def process(self, server: ServerTools) -> RunSpec:
        """The process of a server that is started outside of calls."""
        command = command_of(server.spec, writes=False)
        profile = server.spec.runner
        rendered = render_command(command, {})
        most: Limits = limits(server.spec.limits)
        return RunSpec(
            argv=rendered.argv,
            env=rendered.env,
            mounts=command.mounts,
            limits=self._profiles.get(profile, Profile()).ceilings.lower(most),
            profile=profile,
            dialogue=True,
        )


class _Process:
    """The processes of one asking: one, or two where an old server ends at the first question."""

    def __init__(self, runner: Runner, spec: RunSpec, lease: Any) -> None:
        self._runner = runner
        self._spec = spec
        self._new_lease = lease
        self._leases: list[Lease] = []

    async def listing(self, limits: bounds.Limits, server: str, wanted: Wanted | None) -> Listing:
        words = None
        talk = await Conversation.open(
            await self._stream(), capabilities={}, limits=limits, again=self._stream
        )
        async with talk:
            offers = talk.opened.capabilities
            items = await talk.list_tools() if has_tools(offers) else []
            if wanted is not None:
                try:
                    words = await words_of(talk.items, offers, wanted)
                except UpstreamFault as fault:
                    _not_read(server, fault)
        info = talk.opened.info or {}
        return Listing(
            items=items,
            words=words,
            revision=talk.opened.revision.value,
            claimed_name=_claimed(info.get("name")),
            claimed_version=_claimed(info.get("version")),
            announces=announced(talk.opened.capabilities),
        )

    async def _stream(self) -> ByteStream:
        await self.destroyed()
        lease = self._new_lease()
        self._leases.append(lease)
        await self._runner.provision(lease, self._spec)
        await self._runner.start(lease)
        return self._runner.dialogue(lease)

    async def end(self) -> RunResult | None:
        """How the last one ended, which is ended if it has not."""
        if not self._leases:
            return None
        try:
            await self._runner.stop(self._leases[-1], grace_s=0)
            return await self._runner.collect(self._leases[-1])
        except RunnerFault:
            return None

    async def destroyed(self) -> None:
        """Destroy what was made, even if nobody waits for it any more."""
        while self._leases:
            await asyncio.shield(self._runner.destroy(self._leases.pop()))


async def _unspoilt(found: Listing, lends: Looks, lease: Lease) -> Listing | Silent:
    """The listing, if the server did not write into it what it was shown."""
    text = json.dumps([found.items, repr(found.words)], ensure_ascii=False)
    _, traces = await lends.scrub(lease, text.encode(errors="replace"))
    if traces:
        return Silent(health=Health.BROKEN, why="it lists the credential that it was shown")
    return found


def wanted_of(server: ServerTools) -> Wanted | None:
    """What the operator offers of a server beside its tools; None for nothing."""
    prompts, resources = (
        each is Beside.OFFER for each in (server.spec.prompts, server.spec.resources)
    )
    return Wanted(prompts=prompts, resources=resources) if prompts or resources else None


def _not_read(server: str, fault: UpstreamFault) -> None:
    log.warning("server_words_not_listed", server=server, why=fault.message)


def _silent(fault: UpstreamFault, ended: RunResult | None = None, *, wants: str = "") -> Silent:
    why = fault.message
    if fault.code is Code.UPSTREAM_UNAUTHORIZED and wants:
        why += f"; {wants}"
    if ended is not None and ended.ending is Ending.EXIT and ended.exit_code:
        why += f"; it exited with {ended.exit_code}"
    tail = b"" if ended is None else ended.stderr[-_TAIL:].strip()
    if tail:
        why += f"; on standard error it said last: {quoted(tail.decode(errors='replace'), _TAIL)}"
    health = Health.BROKEN if fault.code in _BROKEN else Health.UNREACHABLE
    return Silent(health=health, why=why)


def _claimed(value: object) -> str | None:
    return shown(value, 80) if isinstance(value, str) else None


_: type[Asks] = Asker
