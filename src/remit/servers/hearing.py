"""Opening the connection on which a server is heard: outside any call, and with nothing of one.

It gets what looking at a server gets (see `asking`): its command in its profile, directories to read
from, no way out; at a URL no credential but what `unsafe_look` lets it be shown. What is lent for a
look ends soon, so a connection that was made with it is made anew before that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from remit.errors import Code, RemitError, RunnerFault, UpstreamFault
from remit.model import Lease, RunSpec
from remit.ports import Runner
from remit.servers.asking import Asker, End
from remit.servers.tools import ServerTools
from remit.telemetry import logger
from remit.upstreams import limits as bounds
from remit.upstreams.conversation import Conversation
from remit.upstreams.hearing import hearing
from remit.upstreams.lines import ByteStream
from remit.upstreams.notices import Hearing, Hears, bounded

WITHIN_S = 60.0
"""How long opening may take."""

SHOWN_S = 90.0
"""How long a connection lasts that was made with a credential for a look."""

AGE_S = 3_600.0
CLOSE_S = 5.0
_MARGIN_S = 120

log = logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A connection that is open, and how many seconds it is to be used at most."""

    hearing: Hearing
    age_s: float
    end: End
    """Ends it and what was made for it; bounded in time, raises nothing but cancellation."""


class Opens(Protocol):
    """Opens connections to hear servers."""

    async def open(self, server: ServerTools, lists: frozenset[str], hears: Hears) -> Heard:
        """Hear of changes of these lists, and of no resource yet.

        Raises:
            UpstreamFault, RunnerFault: it cannot be heard.
        """


class Opener:
    """Opens them with what servers are looked at with."""

    def __init__(self, means: Asker, *, within_s: float = WITHIN_S) -> None:
        self._means = means
        self._within_s = within_s

    async def open(self, server: ServerTools, lists: frozenset[str], hears: Hears) -> Heard:
        """See `Opens.open`."""
        try:
            async with asyncio.timeout(self._within_s):
                if server.spec.url is None:
                    return await self._started(server, lists, hears)
                return await self._called(server, server.spec.url, lists, hears)
        except TimeoutError:
            message = f"the server was not ready to be heard within {self._within_s:g} s"
            raise UpstreamFault(Code.UPSTREAM_TIMEOUT, message) from None

    async def _called(
        self, server: ServerTools, url: str, lists: frozenset[str], hears: Hears
    ) -> Heard:
        http = self._means.http
        if http is None:
            raise RunnerFault(Code.RUNNER_LACKS, "no server can be asked over HTTP here")
        token, back = await self._means.shown(server) or (None, _nothing)
        try:
            found = await http.hear(
                server.spec.name,
                url,
                token,
                lists,
                hears,
                within_s=self._within_s,
                header=server.spec.header,
            )
        except BaseException:
            await asyncio.shield(back())
            raise

        async def end() -> None:
            await _closed(found)
            await back()

        age_s = AGE_S if token is None else SHOWN_S
        return Heard(hearing=found, age_s=age_s, end=end)

    async def _started(self, server: ServerTools, lists: frozenset[str], hears: Hears) -> Heard:
        age_s = server.spec.session_age_s
        spec = self._means.process(server)
        lives = replace(spec, limits=replace(spec.limits, wall_s=age_s + _MARGIN_S))
        process = _Process(self._means.runner, lives, lambda: self._means.lease(age_s + _MARGIN_S))
        try:
            talk = await Conversation.open(
                await process.stream(),
                capabilities={},
                limits=bounded(replace(bounds.Limits(), open_s=self._within_s)),
                again=process.stream,
            )
            found = hearing(talk, lists, hears)
        except BaseException:
            await asyncio.shield(process.end())
            raise

        async def end() -> None:
            await _closed(found)
            await process.end()

        return Heard(hearing=found, age_s=age_s, end=end)


class _Process:
    """The process of one connection; a second one where an old server ends at the first question."""

    def __init__(self, runner: Runner, spec: RunSpec, lease: Callable[[], Lease]) -> None:
        self._runner = runner
        self._spec = spec
        self._new_lease = lease
        self._lease: Lease | None = None

    async def stream(self) -> ByteStream:
        await self.end()
        self._lease = lease = self._new_lease()
        await self._runner.provision(lease, self._spec)
        await self._runner.start(lease)
        return self._runner.dialogue(lease)

    async def end(self) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            await self._runner.destroy(lease)
        except RunnerFault as fault:
            log.critical("watch_not_destroyed", lease=lease.id, code=fault.code.value)


async def _nothing() -> None:
    """Nothing was lent."""


async def _closed(found: Hearing) -> None:
    with suppress(TimeoutError, RemitError):
        async with asyncio.timeout(CLOSE_S):
            await found.close()


_: type[Opens] = Opener
