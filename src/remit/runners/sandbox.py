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
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from remit.runners import probe, seccomp
from remit.runners.attempt import Attempt, Once
from remit.runners.bubblewrap import Bubblewrap, find
from remit.runners.channel import Channel, Report, SpawnerGone
from remit.runners.leases import Leases
from remit.runners.link import Link
from remit.runners.mounts import IDENTIFIER
from remit.runners.wire import close_all, sealed_file

UID_BASE = 300_000
_SPENT_KEPT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """What the operator decides about the sandbox runner.

    Args:
        state_dir: a directory of the gateway's own; lease files go to `leases` in it.
        gateway: this gateway's id; part of the name of every cgroup.
        bwrap: the bubblewrap to use; None looks for the system's and the bundled one.
        unsafe_degraded: run even where memory and processes are limited by rlimits alone.
        uid_base: with root, runs with mounts act as this host user, others as one above it.
        max_runs: sandboxes at a time; more wait until their lease's deadline.
    """

    state_dir: Path
    gateway: str
    bwrap: Path | None = None
    unsafe_degraded: bool = False
    uid_base: int = UID_BASE
    max_runs: int = 32


class SandboxRunner:
    """The `Runner` over a spawner process. Make one with `open`, before secrets and threads."""

    def __init__(self, settings: SandboxSettings, bwrap: Bubblewrap | None) -> None:
        self._settings = settings
        self._bwrap = bwrap
        self._leases = Leases(settings.state_dir)
        self._places = asyncio.Semaphore(settings.max_runs)
        self._attempts: dict[str, Attempt] = {}
        self._spent: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._capabilities = probe.nothing(bwrap)
        self._about: dict[str, str] = {}
        greeting = {
            "gateway": settings.gateway,
            "bwrap": "" if bwrap is None else bwrap.path,
            "uid_base": settings.uid_base,
            "max_runs": settings.max_runs,
        }
        self._link = Link(greeting, self._take, self._lose)

    @classmethod
    async def open(cls, settings: SandboxSettings) -> SandboxRunner:
        """Start the spawner and find out, by probe jobs, what holds on this machine.

        Does not raise where sandboxes cannot be had: `capabilities` then says what is missing,
        and `provision` refuses.
        """
        if not IDENTIFIER.fullmatch(settings.gateway):
            raise ValueError("the gateway's id is not plain letters, digits, '.', - and _")
        bwrap = find(settings.bwrap, for_others=os.geteuid() == 0)
        runner = cls(settings, bwrap)
        if bwrap is not None and platform.machine() in seccomp.ARCHITECTURES:
            with contextlib.suppress(SpawnerGone):
                await runner._link.connect()
                runner._capabilities = await probe.examine(runner._probe, runner._link.hello, bwrap)
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
        await self._link.close()

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def mount_uid(self) -> int | None:
        """The host user as which runs with mounts act; None where that is the gateway's own."""
        return self._settings.uid_base if self._link.hello.get("own_uid") else None

    @property
    def cgroup_mode(self) -> str:
        """`v2`, `hybrid`, `v1` or `none`: where the limits are kept."""
        return str(self._link.hello["mode"])

    @property
    def spawner_pid(self) -> int | None:
        return None if self._link.channel is None else self._link.channel.pid

    # ---------------------------------------------------------------------------- provision

    async def provision(self, lease: Lease, spec: RunSpec) -> None:
        found = self._capabilities
        if found.tier is Tier.NONE:
            raise _unavailable("no sandbox can be made on this machine", hint=found.hint)
        if found.tier is Tier.DEGRADED and not self._settings.unsafe_degraded:
            raise RunnerFault(
                Code.RUNNER_DEGRADED,
                "this machine cannot hold the limits of a sandbox",
                hint=found.hint,
            )
        await self._provision(lease, spec)

    async def _provision(self, lease: Lease, spec: RunSpec) -> None:
        if (known := self._attempts.get(lease.id)) is not None:
            _accept(await known.provisioned.wait())
            return
        if not IDENTIFIER.fullmatch(lease.id) or lease.id in self._spent:
            raise _unavailable("this lease cannot be used, or not again")
        attempt = self._attempts[lease.id] = Attempt(lease, spec, self._flood)
        try:
            await self._take_place(attempt)
            channel = await self._link.connect()
            self._leases.write(lease, self._link.hello["roots"])
            attempt.written = True
            await _request(channel, attempt)
            _accept(await attempt.provisioned.wait())
        except BaseException as exc:
            await asyncio.shield(self._undo(attempt))
            if isinstance(exc, (SpawnerGone, OSError)):
                raise _unavailable("the sandbox could not be asked for") from exc
            raise

    async def _take_place(self, attempt: Attempt) -> None:
        left_s = attempt.lease.deadline_ms / 1000 - time.time()
        try:
            if self._places.locked():
                async with asyncio.timeout(max(0.0, left_s)):
                    await self._places.acquire()
            else:
                await self._places.acquire()
        except TimeoutError:
            raise _unavailable("no place for a run became free in time") from None
        attempt.placed = True

    async def _undo(self, attempt: Attempt) -> None:
        """Nothing of a failed provision may stay: neither a process nor its place."""
        attempt.capture.finish()
        if attempt.sent:
            await self._gone(attempt)
        if attempt.written:
            self._leases.remove(attempt.lease.id)
        self._forget(attempt)

    # -------------------------------------------------------------------------------- a run

    def profile(self, name: str) -> Capabilities | None:
        return self._capabilities if name == self._capabilities.profile else None

    async def start(self, lease: Lease, files: Sequence[HandedFile] = ()) -> None:
        attempt = self._known(lease)
        if not attempt.starting:
            channel = self._link.channel
            if channel is None or attempt.lost or attempt.ended.done:
                raise _unavailable("the sandbox ended before its start")
            try:
                await channel.send({"op": "start", "lease": lease.id})
            except SpawnerGone:
                raise _unavailable("the spawner is gone") from None
            attempt.starting = True
        answer = await attempt.started.wait()
        if answer is None:
            raise _unavailable("the spawner was lost during the start", started=True)
        if answer["ev"] != "started":
            raise _unavailable("the sandbox ended before its start")

    async def stream(self, lease: Lease) -> AsyncIterator[Frame]:
        async for frame in self._known(lease).capture.frames():
            yield frame

    async def stop(self, lease: Lease, *, grace_s: float) -> None:
        attempt = self._attempts.get(lease.id)
        if attempt is None or attempt.ended.done:
            return
        await self._tell(attempt, {"op": "stop", "grace_s": grace_s})
        await attempt.ended.wait()

    async def collect(self, lease: Lease) -> RunResult:
        attempt = self._known(lease)
        await attempt.ended.wait()
        return attempt.result(self._about)

    def _known(self, lease: Lease) -> Attempt:
        if (attempt := self._attempts.get(lease.id)) is None:
            raise _unavailable("this lease has no sandbox")
        return attempt

    async def _tell(self, attempt: Attempt, message: dict[str, Any]) -> None:
        if (channel := self._link.channel) is not None:
            with contextlib.suppress(SpawnerGone):
                await channel.send({**message, "lease": attempt.lease.id})

    def _flood(self, attempt: Attempt) -> None:
        kill = self._tell(attempt, {"op": "kill", "why": "output"})
        task = asyncio.get_running_loop().create_task(kill)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -------------------------------------------------------------------------- destruction

    async def destroy(self, lease: Lease) -> Destruction:
        attempt = self._attempts.get(lease.id)
        if attempt is None:
            attempt = Attempt(lease, probe.NOTHING, self._flood)
        found = await self._gone(attempt)
        attempt.capture.finish()
        if lease.id in self._attempts:
            self._forget(attempt)
        if found is None:
            # Its lease stays written, so that a sweep finds it; no place is held for it.
            return _evidence(_UNSEEN, lease.id, self._leases)
        self._leases.remove(lease.id)
        return _evidence(found, lease.id, self._leases)

    async def _gone(self, attempt: Attempt) -> dict[str, Any] | None:
        """The spawner's evidence; the next spawner's if this one is lost on the way."""
        lease_id = attempt.lease.id
        for _ in range(2):
            if attempt.evidence is not None:
                break
            if attempt.destroyed.done:
                attempt.destroyed = Once()
            self._attempts.setdefault(lease_id, attempt)
            with contextlib.suppress(SpawnerGone):
                await (await self._link.connect()).send({"op": "destroy", "lease": lease_id})
                await attempt.destroyed.wait()
        return attempt.evidence

    def _forget(self, attempt: Attempt) -> None:
        self._attempts.pop(attempt.lease.id, None)
        self._spent[attempt.lease.id] = None
        if len(self._spent) > _SPENT_KEPT:
            self._spent.popitem(last=False)
        if attempt.placed:
            attempt.placed = False
            self._places.release()

    async def sweep(self, live: frozenset[str]) -> Sequence[Destruction]:
        """Destroy what is found and has no live lease; what this process itself holds is live."""
        await self._link.connect()
        known = live | frozenset(self._attempts)
        files = self._leases.found()
        roots = {root for roots in files.values() for root in roots}
        stale = [name for name in files if name not in known and IDENTIFIER.fullmatch(name)]
        try:
            found = await self._link.sweep(live=sorted(known), leases=stale, roots=sorted(roots))
        except SpawnerGone:
            raise _unavailable("the spawner ended during a sweep") from None
        for each in found:
            self._leases.remove(each["lease"])
        return [_evidence(each, each["lease"], self._leases) for each in found]

    # -------------------------------------------------------------------- from the spawner

    def _take(self, report: Report) -> None:
        attempt = self._attempts.get(str(report.message.get("lease")))
        if attempt is None:
            close_all(report.fds)
        else:
            attempt.take(report)

    def _lose(self) -> None:
        for attempt in self._attempts.values():
            attempt.lose()

    async def _probe(self, spec: RunSpec, name: str) -> RunResult | None:
        """Run a probe job, whatever the tier; None if no sandbox could be made."""
        lease = Lease(
            id=f"probe-{name}-{os.getpid()}",
            gateway=self._settings.gateway,
            fence=0,
            deadline_ms=round(time.time() * 1000) + 10_000,
        )
        self._spent.pop(lease.id, None)
        try:
            await self._provision(lease, spec)
            await self.start(lease)
            return await self.collect(lease)
        except RunnerFault:
            return None
        finally:
            await self.destroy(lease)


_UNSEEN = {
    "processes_left": 0,
    "cgroup_removed": False,
    "mounts_left": 0,
    "took_us": 0,
    "note": "the spawner was lost; the next sweep looks again",
}


def _evidence(found: dict[str, Any], lease_id: str, leases: Leases) -> Destruction:
    return Destruction(
        lease_id=lease_id,
        processes_left=found["processes_left"],
        cgroup_removed=found["cgroup_removed"],
        directory_removed=not leases.exists(lease_id),
        mounts_left=found["mounts_left"],
        destroyed_ms=round(time.time() * 1000),
        took_us=found["took_us"],
        note=found.get("note"),
    )


def _unavailable(message: str, *, hint: str | None = None, started: bool = False) -> RunnerFault:
    return RunnerFault(Code.RUNNER_UNAVAILABLE, message, hint=hint, started=started)


def _accept(answer: dict[str, Any] | None) -> None:
    """The spawner's answer to a provision.

    Raises:
        RunnerFault: it is anything but a sandbox that stands.
    """
    match answer:
        case None:
            raise _unavailable("the spawner ended before the sandbox stood")
        case {"ev": "provisioned"}:
            return
        case {"ev": "refused", "fault": fault}:
            raise _unavailable(str(fault))
        case _:
            raise _unavailable("bubblewrap could not make the sandbox", hint="run: remit doctor")


async def _request(channel: Channel, attempt: Attempt) -> None:
    spec, limits = attempt.spec, attempt.spec.limits
    fds = [_stdin(spec.stdin), *attempt.capture.open()]
    try:
        fds += [sealed_file("file", content) for _, content in spec.files]
        message = {
            "op": "provision",
            "lease": attempt.lease.id,
            "argv": spec.argv,
            "env": spec.env,
            "mounts": [(mount.name, mount.source, mount.writable) for mount in spec.mounts],
            "files": [name for name, _ in spec.files],
            "collect": spec.collect,
            "deadline_ms": attempt.lease.deadline_ms,
            "limits": {
                "wall_s": limits.wall_s,
                "memory_mb": limits.memory_mb,
                "pids": limits.pids,
                "cpu_percent": limits.cpu_percent,
                "tmp_mb": limits.tmp_mb,
                "open_files": limits.open_files,
            },
        }
        attempt.sent = True
        await channel.send(message, fds)
    finally:
        close_all(fds)


def _stdin(data: bytes) -> int:
    """A whole standard input that needs nobody to feed it: read-only, and of this run alone."""
    if not data:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    written = sealed_file("stdin", data)
    try:
        return os.open(f"/proc/self/fd/{written}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(written)
