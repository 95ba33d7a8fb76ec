"""The sandbox runner: bubblewrap made by the spawner, seen through the `Runner` port.

This process never forks a run. It writes the lease, hands the spawner a request with pipes, and
reads output and reports; every limit is enforced by the kernel or by the spawner, so that a
gateway that is slow, stuck or killed loosens nothing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from remit.errors import Code, RunnerFault
from remit.model import (
    Capabilities,
    Destruction,
    Frame,
    HandedFile,
    Lease,
    RunResult,
    RunSpec,
    Tier,
)
from remit.profile import Profile
from remit.runners import gvisor, probe, seccomp
from remit.runners.attempts import Attempts
from remit.runners.bubblewrap import find
from remit.runners.channel import SpawnerGone
from remit.runners.faults import unavailable
from remit.runners.mounts import IDENTIFIER

UID_BASE = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """What the operator decides about the sandbox runner.

    Args:
        state_dir: a directory of the gateway's own; lease files go to `leases` in it.
        gateway: this gateway's id; part of the name of every cgroup.
        bwrap: the bubblewrap to use; None looks for the system's and the bundled one.
        runsc: gVisor's to use for profiles that name it; None looks for the system's.
        gvisor_platform: how its kernel gets at what a run does; None takes the first it knows.
        unsafe_degraded: run even where memory and processes are limited by rlimits alone.
        uid_base: with root, runs with mounts act as this host user, others as one above it.
        max_runs: sandboxes at a time; more wait until their lease's deadline.
    """

    state_dir: Path
    gateway: str
    bwrap: Path | None = None
    runsc: Path | None = None
    gvisor_platform: str | None = None
    unsafe_degraded: bool = False
    uid_base: int = UID_BASE
    max_runs: int = 32


class SandboxRunner:
    """The `Runner` over a spawner process. Make one with `open`, before secrets and threads."""

    def __init__(self, settings: SandboxSettings, tools: probe.Tools) -> None:
        self._settings = settings
        self._capabilities = probe.nothing(tools)
        self._about: dict[str, str] = {}
        greeting = {
            "gateway": settings.gateway,
            "bwrap": "" if tools.bwrap is None else tools.bwrap.path,
            "runsc": None if tools.runsc is None else gvisor.told(tools.runsc),
            "uid_base": settings.uid_base,
            "max_runs": settings.max_runs,
        }
        self.attempts = Attempts(settings.state_dir, greeting, settings.max_runs)

    @classmethod
    async def open(cls, settings: SandboxSettings) -> SandboxRunner:
        """Start the spawner and find out, by probe jobs, what holds on this machine.

        Does not raise where sandboxes cannot be had: `capabilities` then says what is missing,
        and `provision` refuses.
        """
        if not IDENTIFIER.fullmatch(settings.gateway):
            raise ValueError("the gateway's id is not plain letters, digits, '.', - and _")
        tools = find_tools(settings)
        runner = cls(settings, tools)
        if tools.bwrap is not None and platform.machine() in seccomp.ARCHITECTURES:
            with contextlib.suppress(SpawnerGone):
                await runner.attempts.link.connect()
                hello = runner.attempts.link.hello
                runner._capabilities = await probe.examine(
                    runner._probe, hello, tools, state_dir=str(settings.state_dir.absolute())
                )
        runner._about = {
            "name": "sandbox",
            "tier": runner.capabilities.tier.value,
            "digest": runner.capabilities.digest,
            "version": runner.capabilities.version,
            "cgroup": runner.cgroup_mode,
        }
        return runner

    async def aclose(self) -> None:
        """End the spawner and with it every run that is left; their results say `lost`."""
        await self.attempts.link.close()

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def mount_uid(self) -> int | None:
        """The host user as which runs with mounts act; None where that is the gateway's own."""
        return self._settings.uid_base if self.attempts.link.hello.get("own_uid") else None

    @property
    def cgroup_mode(self) -> str:
        """`v2`, `hybrid`, `v1` or `none`: where the limits are kept."""
        return str(self.attempts.link.hello["mode"])

    @property
    def spawner_pid(self) -> int | None:
        return None if self.attempts.link.channel is None else self.attempts.link.channel.pid

    # -------------------------------------------------------------------------------- a run

    async def provision(self, lease: Lease, spec: RunSpec) -> None:
        found = self._capabilities
        if found.tier is Tier.NONE:
            raise unavailable("no sandbox can be made on this machine", hint=found.hint)
        if found.tier is Tier.DEGRADED and not self._settings.unsafe_degraded:
            raise RunnerFault(
                Code.RUNNER_DEGRADED,
                "this machine cannot hold the limits of a sandbox",
                hint=found.hint,
            )
        await self.attempts.make(lease, spec)

    def profile(self, name: str) -> Capabilities | None:
        return self._capabilities if name == self._capabilities.profile else None

    async def start(self, lease: Lease, files: Sequence[HandedFile] = ()) -> None:
        attempt = self.attempts.known(lease)
        if not attempt.starting:
            channel = self.attempts.link.channel
            if channel is None or attempt.lost or attempt.ended.done:
                raise unavailable("the sandbox ended before its start")
            try:
                await channel.send({"op": "start", "lease": lease.id})
            except SpawnerGone:
                raise unavailable("the spawner is gone") from None
            attempt.starting = True
        answer = await attempt.started.wait()
        if answer is None:
            raise unavailable("the spawner was lost during the start", started=True)
        if answer["ev"] != "started":
            raise unavailable("the sandbox ended before its start")

    async def stream(self, lease: Lease) -> AsyncIterator[Frame]:
        async for frame in self.attempts.known(lease).capture.frames():
            yield frame

    async def stop(self, lease: Lease, *, grace_s: float) -> None:
        attempt = self.attempts.get(lease.id)
        if attempt is None or attempt.ended.done:
            return
        await self.attempts.tell(attempt, {"op": "stop", "grace_s": grace_s})
        await attempt.ended.wait()

    async def collect(self, lease: Lease) -> RunResult:
        attempt = self.attempts.known(lease)
        await attempt.ended.wait()
        return attempt.result(self._about)

    async def destroy(self, lease: Lease) -> Destruction:
        return await self.attempts.destroy(lease, probe.NOTHING)

    async def sweep(self, live: frozenset[str]) -> Sequence[Destruction]:
        """Destroy what is found and has no live lease; what this process itself holds is live."""
        return await self.attempts.sweep(live)

    async def _probe(self, spec: RunSpec, name: str, _: Profile) -> RunResult | None:
        """Run a probe job, whatever the tier; None if no sandbox could be made."""
        lease = Lease(
            id=f"probe-{name}-{os.getpid()}",
            gateway=self._settings.gateway,
            fence=0,
            deadline_ms=round(time.time() * 1000) + 10_000,
        )
        self.attempts.unspend(lease.id)
        try:
            await self.attempts.make(lease, spec)
            await self.start(lease)
            return await self.collect(lease)
        except RunnerFault:
            return None
        finally:
            await self.destroy(lease)


def find_tools(settings: SandboxSettings, *, gvisors: bool = False) -> probe.Tools:
    """The programs that runs are made with here, as far as there are any.

    Args:
        gvisors: a profile names gVisor; else nobody looks for it, since that takes a while.
    """
    others = os.geteuid() == 0
    return probe.Tools(
        bwrap=find(settings.bwrap, for_others=others),
        runsc=gvisor.find(settings.runsc, settings.gvisor_platform, for_others=others)
        if gvisors
        else None,
    )
