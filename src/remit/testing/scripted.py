"""A runner that does what a test says, without a process; it keeps the order of what it was told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from remit.errors import Code, RunnerFault
from remit.model import (
    Capabilities,
    Channel,
    Destruction,
    Ending,
    Frame,
    HandedFile,
    Lease,
    RunResult,
    RunSpec,
    Tier,
)
from remit.ports import Dialogue
from remit.testing.spoken import Speaker, Spoken

Behaviour = Callable[[RunSpec], Awaitable[RunResult]]

CAPABILITIES = Capabilities(
    name="scripted", tier=Tier.SANDBOX, digest="sha256:" + "5" * 64, version="1"
)


def ends(stdout: bytes = b"", *, exit_code: int = 0) -> Behaviour:
    """A command that prints this and exits."""

    async def behave(_: RunSpec) -> RunResult:
        return RunResult(ending=Ending.EXIT, exit_code=exit_code, stdout=stdout)

    return behave


@dataclass(slots=True)
class ScriptedRunner:
    """Implements `Runner`; `behave` says how each command goes, `told` what was asked in order.

    `profiles` are further profiles beside the default one. `handed` has the files that each run was
    started with. `live` are frames that `stream` gives at once, before the command has ended.
    `speaker` plays the runs that are spoken with, instead of `behave`.
    """

    behave: Behaviour = field(default_factory=ends)
    capabilities: Capabilities = CAPABILITIES
    told: list[tuple[str, str]] = field(default_factory=list)
    specs: dict[str, RunSpec] = field(default_factory=dict)
    profiles: dict[str, Capabilities] = field(default_factory=dict)
    handed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    live: list[Frame] = field(default_factory=list)
    swept: list[Destruction] = field(default_factory=list)
    speaker: Speaker | None = None
    _spoken: dict[str, Spoken] = field(default_factory=dict)
    _runs: dict[str, asyncio.Task[RunResult]] = field(default_factory=dict)
    _stopped: set[str] = field(default_factory=set)

    async def provision(self, lease: Lease, spec: RunSpec) -> None:
        self.told.append(("provision", lease.id))
        self.specs[lease.id] = spec
        if spec.dialogue and self.speaker is not None:
            self._spoken.setdefault(lease.id, Spoken(self.speaker, spec))

    def profile(self, name: str) -> Capabilities | None:
        own = self.capabilities if name == self.capabilities.profile else None
        return self.profiles.get(name, own)

    async def start(self, lease: Lease, files: Sequence[HandedFile] = ()) -> None:
        for file in files:
            with os.fdopen(file.fd, "rb") as handed:
                self.handed.setdefault(lease.id, {})[file.name] = handed.read()
        if ("start", lease.id) in self.told:
            raise RunnerFault(Code.GRANT_SPENT, "a lease is started once", started=True)
        self.told.append(("start", lease.id))

        async def go() -> RunResult:
            if (spoken := self._spoken.get(lease.id)) is not None:
                spoken.start()
                return await spoken.result()
            return await self.behave(self.specs[lease.id])

        self._runs[lease.id] = asyncio.ensure_future(go())

    async def stream(self, lease: Lease) -> AsyncIterator[Frame]:
        for frame in self.live:
            yield frame
        result = await self._result(lease)
        if self.live:
            return
        for seq, (channel, data) in enumerate(
            [(Channel.STDOUT, result.stdout), (Channel.STDERR, result.stderr)]
        ):
            if data:
                yield Frame(seq=seq, channel=channel, data=data)

    def dialogue(self, lease: Lease) -> Dialogue:
        if (spoken := self._spoken.get(lease.id)) is None:
            raise RunnerFault(Code.RUNNER_LACKS, "this run is not spoken with")
        return spoken.dialogue

    async def stop(self, lease: Lease, *, grace_s: float) -> None:
        self.told.append(("stop", lease.id))
        if (spoken := self._spoken.get(lease.id)) is not None:
            await spoken.stop()
            return
        self._stopped.add(lease.id)
        self._runs[lease.id].cancel()

    async def collect(self, lease: Lease) -> RunResult:
        return await self._result(lease)

    async def _result(self, lease: Lease) -> RunResult:
        run = self._runs[lease.id]
        await asyncio.wait([run])
        if run.cancelled():
            return RunResult(ending=Ending.SIGNAL, signal=15)
        return run.result()

    async def destroy(self, lease: Lease) -> Destruction:
        self.told.append(("destroy", lease.id))
        if (spoken := self._spoken.pop(lease.id, None)) is not None:
            await spoken.destroy()
        run = self._runs.get(lease.id)
        if run is not None:
            run.cancel()
        return Destruction(
            lease_id=lease.id,
            processes_left=0,
            cgroup_removed=True,
            directory_removed=True,
            mounts_left=0,
            destroyed_ms=0,
            took_us=0,
        )

    async def sweep(self, live: frozenset[str]) -> Sequence[Destruction]:
        return [each for each in self.swept if each.lease_id not in live]

    def times(self, what: str) -> int:
        """How often this was asked of it."""
        return sum(1 for asked, _ in self.told if asked == what)
