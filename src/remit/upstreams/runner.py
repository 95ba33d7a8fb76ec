"""The `Runner` of calls of MCP servers, around the one that makes the environments.

What is no call of a server goes straight through. A call goes to a process made for it alone, to
one that is kept for such calls, or to a server over HTTP; whichever it is, the run ends with the
server's answer as its output.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from remit.errors import Code, RunnerFault
from remit.model import (
    Capabilities,
    Destruction,
    Ending,
    Frame,
    HandedFile,
    Lease,
    Method,
    RunResult,
    RunSpec,
    SessionMode,
)
from remit.ports import Clock, Consents, Dialogue, KeepingRunner, Runner, Watches
from remit.profile import ELSEWHERE
from remit.upstreams.asking import HttpServers, Seen
from remit.upstreams.elsewhere import ElsewhereRun
from remit.upstreams.kept import SessionRun
from remit.upstreams.reports import Reports
from remit.upstreams.sessions import MOST, Sessions
from remit.upstreams.spoken import Eras
from remit.upstreams.stdio import Means, ProcessRun
from remit.upstreams.watched import WatchedRun

_GONE_KEPT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How processes are kept: for which gateway, how many (of one server `most_of` it), and by
    which clocks.

    `keeper` makes those that may reach out, a call at a time; without one none of them is kept.
    """

    clock: Clock
    gateway: str
    keeper: KeepingRunner | None = None
    most: int = MOST
    most_of: Mapping[str, int] = field(default_factory=dict)
    now: Callable[[], float] = time.monotonic

    def open(self, means: Means) -> Sessions:
        """No session yet, and the place for them."""
        return Sessions(
            means,
            self.clock,
            self.gateway,
            keeper=self.keeper,
            now=self.now,
            most=self.most,
            most_of=self.most_of,
        )


class CallRun(Protocol):
    """One run that is a call of a server, in whichever way it is made."""

    @property
    def reports(self) -> Reports: ...

    async def provision(self) -> None: ...

    async def start(self, files: Sequence[HandedFile]) -> None: ...

    async def stop(self, *, grace_s: float) -> None: ...

    async def collect(self) -> RunResult | None: ...

    async def destroy(self) -> Destruction: ...


class UpstreamRunner:
    """Runs calls of MCP servers; every other run is the inner runner's.

    Args:
        inner: makes the environments of servers that are started here; whoever gives it closes it.
        asked: asks servers over HTTP; None where there are none. Whoever gives it closes it.
        seen: told each list of tools that a server gave, before any of them is called.
        sessions: the processes that are kept; None where none is. `aclose` ends them.
        watches: hears what servers tell by themselves; None where nobody does.
        consents: told when a server does not take what a person's consent gave; None where none is.
    """

    def __init__(
        self,
        inner: Runner,
        *,
        asked: HttpServers | None,
        seen: Seen,
        sessions: SessionSettings | None = None,
        watches: Watches | None = None,
        consents: Consents | None = None,
    ) -> None:
        self._inner = inner
        self._consents = consents
        self._watches = watches
        self._asked = asked
        self._means = Means(inner=inner, seen=seen, eras=Eras())
        self._runs: dict[str, CallRun] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._sessions = None if sessions is None else sessions.open(self._means)

    async def aclose(self) -> None:
        """End every process that is kept. Idempotent."""
        if self._sessions is not None:
            await self._sessions.aclose()

    async def drain(self, reason: str) -> None:
        """Use no process that is kept again; each ends when its calls are over."""
        if self._sessions is not None:
            await self._sessions.drain(reason)

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    def profile(self, name: str) -> Capabilities | None:
        if name == ELSEWHERE:
            return None if self._asked is None else self._asked.capabilities
        return self._inner.profile(name)

    async def provision(self, lease: Lease, spec: RunSpec) -> None:
        if spec.upstream is None:
            await self._inner.provision(lease, spec)
            return
        if lease.id in self._gone:
            raise RunnerFault(Code.RUNNER_UNAVAILABLE, "this lease cannot be used again")
        if (known := self._runs.get(lease.id)) is None:
            known = self._runs[lease.id] = self._made(lease, spec)
        try:
            await known.provision()
        except BaseException:
            self._runs.pop(lease.id, None)
            raise

    def _made(self, lease: Lease, spec: RunSpec) -> CallRun:
        call = spec.upstream
        assert call is not None
        if call.method is Method.RESOURCES_SUBSCRIBE:
            if self._watches is None:
                raise RunnerFault(Code.RUNNER_LACKS, "nobody hears here what servers tell")
            return WatchedRun(self._watches, lease, spec, self.profile(spec.profile))
        if call.url is not None:
            if self._asked is None:
                raise RunnerFault(Code.RUNNER_LACKS, "no server can be asked over HTTP here")
            return ElsewhereRun(self._asked, lease, spec, call, self._consents)
        if call.session is SessionMode.PER_CALL:
            return ProcessRun(self._means, lease, spec, call)
        if self._sessions is None:
            raise RunnerFault(Code.RUNNER_LACKS, "no process of a server can be kept here")
        return SessionRun(self._inner, self._sessions, lease, spec, call)

    async def start(self, lease: Lease, files: Sequence[HandedFile] = ()) -> None:
        if (run := self._runs.get(lease.id)) is None:
            await self._inner.start(lease, files)
        else:
            await run.start(files)

    async def stream(self, lease: Lease) -> AsyncIterator[Frame]:
        run = self._runs.get(lease.id)
        frames = self._inner.stream(lease) if run is None else run.reports.frames()
        async for frame in frames:
            yield frame

    def dialogue(self, lease: Lease) -> Dialogue:
        if lease.id in self._runs:
            raise RunnerFault(Code.RUNNER_LACKS, "the server of a call is spoken with here alone")
        return self._inner.dialogue(lease)

    async def stop(self, lease: Lease, *, grace_s: float) -> None:
        if (run := self._runs.get(lease.id)) is None:
            await self._inner.stop(lease, grace_s=grace_s)
        else:
            await run.stop(grace_s=grace_s)

    async def collect(self, lease: Lease) -> RunResult:
        if (run := self._runs.get(lease.id)) is None:
            return await self._inner.collect(lease)
        return await run.collect() or RunResult(ending=Ending.NOT_STARTED)

    async def destroy(self, lease: Lease) -> Destruction:
        if (run := self._runs.get(lease.id)) is None:
            return await self._inner.destroy(lease)
        try:
            return await run.destroy()
        finally:
            self._runs.pop(lease.id, None)
            self._gone[lease.id] = None
            while len(self._gone) > _GONE_KEPT:
                self._gone.popitem(last=False)

    async def sweep(self, live: frozenset[str]) -> Sequence[Destruction]:
        """Destroy what has no live lease; sessions that are too old, too, and say which ended."""
        if self._sessions is None:
            return await self._inner.sweep(live | self._runs.keys())
        self._sessions.look()
        ended = self._sessions.ended()
        left = await self._inner.sweep(live | self._runs.keys() | self._sessions.ids)
        return [*ended, *left]
