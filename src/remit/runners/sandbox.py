"""The sandbox runner: bubblewrap made by the spawner, seen through the `Runner` port.

This process never forks a run. It writes the lease, hands the spawner a request with pipes, and
reads output and reports; every limit is enforced by the kernel or by the spawner, so that a
gateway that is slow, stuck or killed loosens nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    Traffic,
)
from remit.ports import Dialogue
from remit.profile import DEFAULT, Profile, RunnerKind
from remit.runners import gvisor, orders, probe, seccomp
from remit.runners.attempt import Attempt
from remit.runners.attempts import Attempts
from remit.runners.bubblewrap import find
from remit.runners.building import Builder
from remit.runners.channel import SpawnerGone
from remit.runners.egress.client import EgressProxy
from remit.runners.faults import unavailable
from remit.runners.keeping import Keeping
from remit.runners.mounts import IDENTIFIER
from remit.runners.pool import SlotClass
from remit.runners.slots import Slots, most_slots
from remit.runners.trust import TrustStore
from remit.runners.wayout import WayOut
from remit.runners.wire import close_all

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
        profiles: the environments that there are, by name.
        authorities: authorities (PEM) that runs with a way out trust beside the system's.
        classes: what slots are kept for, in profiles that keep some (see `slots.classes_of`).
    """

    state_dir: Path
    gateway: str
    bwrap: Path | None = None
    runsc: Path | None = None
    gvisor_platform: str | None = None
    unsafe_degraded: bool = False
    uid_base: int = UID_BASE
    max_runs: int = 32
    profiles: Mapping[str, Profile] = field(default_factory=lambda: {DEFAULT: Profile()})
    authorities: bytes = b""
    classes: tuple[SlotClass, ...] = ()


class SandboxRunner:
    """The `Runner` over a spawner process. Make one with `open`, before secrets and threads."""

    def __init__(
        self, settings: SandboxSettings, tools: probe.Tools, egress: EgressProxy | None
    ) -> None:
        self.settings = settings
        self._out = None if egress is None else WayOut(egress, TrustStore(settings.authorities))
        self._found = {
            name: probe.nothing(tools, profile, self._out_digest)
            for name, profile in settings.profiles.items()
        }
        greeting = {
            "gateway": settings.gateway,
            "bwrap": "" if tools.bwrap is None else tools.bwrap.path,
            "runsc": None if tools.runsc is None else gvisor.told(tools.runsc),
            "uid_base": settings.uid_base,
            "max_runs": settings.max_runs,
            "max_slots": most_slots(settings.profiles, settings.classes),
            "state": str(settings.state_dir.absolute()),
        }
        self.attempts = Attempts(settings.state_dir, greeting, settings.max_runs)
        self._builder = Builder(self.attempts, self._out)
        self._keeping = Keeping(self.attempts)
        self._slots: Slots | None = None

    @property
    def _out_digest(self) -> str | None:
        return None if self._out is None else self._out.digest

    @classmethod
    async def open(
        cls, settings: SandboxSettings, egress: EgressProxy | None = None
    ) -> SandboxRunner:
        """Start the spawner and find out, by probe jobs, what each profile holds on this machine.

        Args:
            egress: the proxy that runs go out by; without one no run has a way out.

        Does not raise where sandboxes cannot be had: `profile` then says what is missing, and
        `provision` refuses.
        """
        if not IDENTIFIER.fullmatch(settings.gateway):
            raise ValueError("the gateway's id is not plain letters, digits, '.', - and _")
        if DEFAULT not in settings.profiles:
            raise ValueError(f"there is no profile {DEFAULT}")
        gvisors = any(each.runner is RunnerKind.GVISOR for each in settings.profiles.values())
        tools = find_tools(settings, gvisors=gvisors)
        runner = cls(settings, tools, egress)
        if tools.bwrap is not None and platform.machine() in seccomp.ARCHITECTURES:
            with contextlib.suppress(SpawnerGone):
                await runner.attempts.link.connect()
                await runner._examine(tools)
                runner._keep_slots()
        return runner

    async def _examine(self, tools: probe.Tools) -> None:
        found = await asyncio.gather(
            *(
                probe.examine(
                    self._probe,
                    self.attempts.link.hello,
                    tools,
                    profile,
                    state_dir=str(self.settings.state_dir.absolute()),
                    egress=self._out is not None,
                    egress_digest=self._out_digest,
                )
                for profile in self.settings.profiles.values()
            )
        )
        self._found = dict(zip(self.settings.profiles, found, strict=True))

    def _keep_slots(self) -> None:
        """Begin to fill the pool, of profiles whose limits can be changed at a claim."""
        sound = {
            name: profile
            for name, profile in self.settings.profiles.items()
            if self._found[name].tier is Tier.SANDBOX
        }
        if not most_slots(sound, self.settings.classes):
            return
        self._slots = self._builder.shelf = Slots(
            self.attempts,
            self._builder,
            gateway=self.settings.gateway,
            profiles=sound,
            classes=self.settings.classes,
        )
        self._slots.look()

    async def aclose(self) -> None:
        """End the spawner and with it every run that is left; their results say `lost`."""
        if self._slots is not None:
            await self._slots.aclose()
        await self.attempts.link.close()

    async def drain(self, reason: str) -> None:
        """Throw away every slot that waits, because what slots are made from has changed."""
        if self._slots is not None:
            await self._slots.drain(reason)

    @property
    def waiting(self) -> Mapping[str, int]:
        """How many slots of each kind wait to be taken."""
        return {} if self._slots is None else self._slots.waiting

    @property
    def capabilities(self) -> Capabilities:
        return self._found[DEFAULT]

    def profile(self, name: str) -> Capabilities | None:
        return self._found.get(name)

    @property
    def mount_uid(self) -> int | None:
        """The host user as which runs with mounts act; None where that is the gateway's own."""
        return self.settings.uid_base if self.attempts.link.hello.get("uids") == "host" else None

    @property
    def cgroup_mode(self) -> str:
        """`v2`, `hybrid`, `v1` or `none`: where the limits are kept."""
        return str(self.attempts.link.hello["mode"])

    @property
    def spawner_pid(self) -> int | None:
        return None if self.attempts.link.channel is None else self.attempts.link.channel.pid

    # -------------------------------------------------------------------------------- a run

    async def provision(self, lease: Lease, spec: RunSpec) -> None:
        await self._make(lease, spec, kept=False)

    async def keep(self, lease: Lease, spec: RunSpec) -> None:
        await self._make(lease, spec, kept=True)

    async def attach(self, session: Lease, lease: Lease, spec: RunSpec) -> None:
        if (profile := self.settings.profiles.get(spec.profile)) is None:
            raise unavailable("there is no runner profile of that name")
        await self._keeping.attach(session, lease, spec, profile)

    async def detach(self, lease: Lease) -> Traffic | None:
        return await self._keeping.detach(lease)

    async def _make(self, lease: Lease, spec: RunSpec, *, kept: bool) -> None:
        found = self._found.get(spec.profile)
        if found is None:
            raise unavailable("there is no runner profile of that name")
        if (refusal := self._refusal(found)) is not None:
            raise refusal
        if spec.egress and not found.holds.get("egress"):
            raise unavailable("runs of this profile have no way out here", hint=found.hint)
        if spec.dialogue and spec.stdin:
            raise unavailable("a run that is spoken with has no other standard input")
        profile = self.settings.profiles[spec.profile]
        await self._builder.make(lease, spec, profile, out=bool(spec.egress), kept=kept)

    def _refusal(self, found: Capabilities) -> RunnerFault | None:
        """Why runs are not let go in a profile, from what was found of it; None if they are."""
        if found.tier is Tier.NONE:
            return unavailable("no sandbox of this profile can be made here", hint=found.hint)
        if found.tier is Tier.DEGRADED and not self.settings.unsafe_degraded:
            return RunnerFault(
                Code.RUNNER_DEGRADED,
                "this machine cannot hold the limits of a sandbox",
                hint=found.hint,
            )
        return None

    async def start(self, lease: Lease, files: Sequence[HandedFile] = ()) -> None:
        try:
            await self._start(self.attempts.known(lease), files)
        finally:
            close_all([file.fd for file in files])
            if self._slots is not None:
                self._slots.look_soon()

    async def _start(self, attempt: Attempt, files: Sequence[HandedFile]) -> None:
        if not attempt.starting:
            channel = self.attempts.link.channel
            if channel is None or attempt.lost or attempt.ended.done:
                raise unavailable("the sandbox ended before its start")
            try:
                await orders.start(channel, attempt, files)
            except (SpawnerGone, OSError):
                raise unavailable("the spawner could not be told to start it") from None
            attempt.starting = True
        answer = await attempt.started.wait()
        if answer is None:
            raise unavailable("the spawner was lost during the start", started=True)
        if answer["ev"] != "started":
            told = answer.get("fault")
            raise unavailable(f"the sandbox ended before its start{f': {told}' if told else ''}")

    async def stream(self, lease: Lease) -> AsyncIterator[Frame]:
        attempt = self.attempts.known(lease)
        await attempt.made.wait()  # a run in a slot writes where the slot would have
        async for frame in attempt.capture.frames():
            yield frame

    def dialogue(self, lease: Lease) -> Dialogue:
        dialogue = self.attempts.known(lease).dialogue
        if dialogue is None:
            raise RunnerFault(Code.RUNNER_LACKS, "this run is not spoken with")
        if not dialogue.connected:
            raise unavailable("the sandbox does not stand yet")
        return dialogue

    async def stop(self, lease: Lease, *, grace_s: float) -> None:
        attempt = self.attempts.get(lease.id)
        if attempt is None or attempt.ended.done:
            return
        await self.attempts.tell(attempt, {"op": "stop", "grace_s": grace_s})
        await attempt.ended.wait()

    async def collect(self, lease: Lease) -> RunResult:
        attempt = self.attempts.known(lease)
        await attempt.ended.wait()
        traffic = None if attempt.way is None else await attempt.way.close()
        return attempt.result(self._about(attempt.spec.profile), traffic)

    def _about(self, profile: str) -> Mapping[str, str]:
        found = self._found[profile]
        return {
            "name": found.name,
            "profile": profile,
            "tier": found.tier.value,
            "digest": found.digest,
            "version": found.version,
            "cgroup": self.cgroup_mode,
        }

    async def destroy(self, lease: Lease) -> Destruction:
        try:
            return await self.attempts.destroy(lease, probe.NOTHING)
        finally:
            if self._slots is not None:
                self._slots.look()

    async def sweep(self, live: frozenset[str]) -> Sequence[Destruction]:
        """Destroy what is found and has no live lease; what this process itself holds is live."""
        if self._out is not None:
            await self._out.sweep(live | self.attempts.held | self._keeping.runs)
        return await self.attempts.sweep(live)

    async def _probe(self, spec: RunSpec, name: str, profile: Profile) -> RunResult | RunnerFault:
        """Run a probe job, whatever the tier; why not, if no sandbox could be made."""
        lease = Lease(
            id=f"probe-{profile.name}-{name}-{os.getpid()}",
            gateway=self.settings.gateway,
            fence=0,
            deadline_ms=round(time.time() * 1000) + 10_000,
        )
        self.attempts.unspend(lease.id)
        out = name == "look" and self._out is not None
        try:
            await self._builder.make(lease, spec, profile, out=out)
            await self.start(lease)
            return await self.collect(lease)
        except RunnerFault as fault:
            return fault
        finally:
            await self.destroy(lease)


def find_tools(settings: SandboxSettings, *, gvisors: bool = False) -> probe.Tools:
    """The programs that runs are made with here, as far as there are any.

    Args:
        gvisors: a profile names gVisor; else nobody looks for it, since that takes a while.
    """
    others = os.geteuid() == 0
    named = {"bubblewrap": settings.bwrap, "runsc": settings.runsc}
    return probe.Tools(
        named=frozenset(name for name, path in named.items() if path is not None),
        bwrap=find(settings.bwrap, for_others=others),
        runsc=gvisor.find(settings.runsc, settings.gvisor_platform, for_others=others)
        if gvisors
        else None,
    )
