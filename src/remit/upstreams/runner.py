"""The `Runner` of calls of MCP servers, around the one that makes the environments.

What is no call of a server goes straight through. A call goes to a process made for it alone, or
to a server over HTTP; whichever it is, the run ends with the server's answer as its output.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from remit.errors import Code, RunnerFault
from remit.model import (
    Capabilities,
    Destruction,
    Ending,
    Frame,
    HandedFile,
    Lease,
    RunResult,
    RunSpec,
    SessionMode,
)
from remit.ports import Dialogue, Runner
from remit.profile import ELSEWHERE
from remit.upstreams.asking import HttpServers, Seen
from remit.upstreams.elsewhere import ElsewhereRun
from remit.upstreams.reports import Reports
from remit.upstreams.spoken import Eras
from remit.upstreams.stdio import Means, ProcessRun


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
    """

    def __init__(self, inner: Runner, *, asked: HttpServers | None, seen: Seen) -> None:
        self._inner = inner
        self._asked = asked
        self._means = Means(inner=inner, seen=seen, eras=Eras())
        self._runs: dict[str, CallRun] = {}

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
        if call.url is not None:
            if self._asked is None:
                raise RunnerFault(Code.RUNNER_LACKS, "no server can be asked over HTTP here")
            return ElsewhereRun(self._asked, lease, spec, call)
        if call.session is not SessionMode.PER_CALL:
            raise RunnerFault(Code.RUNNER_LACKS, "no process of a server can be kept here")
        return ProcessRun(self._means, lease, spec, call)

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

    async def sweep(self, live: frozenset[str]) -> Sequence[Destruction]:
        return await self._inner.sweep(live | self._runs.keys())
