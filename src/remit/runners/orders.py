"""What the gateway asks of the spawner, message by message, and what it takes for an answer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from remit.model import HandedFile, Limits, Mount, RunSpec
from remit.profile import Profile
from remit.runners import wayout
from remit.runners.attempt import Attempt
from remit.runners.channel import Channel
from remit.runners.faults import ASK_DOCTOR, unavailable
from remit.runners.wire import close_all, sealed_file


async def provision(channel: Channel, attempt: Attempt, profile: Profile, trust: bytes) -> None:
    """Ask for a sandbox that is held before its command; `trust` is empty without egress.

    Raises:
        SpawnerGone: it did not arrive.
        OSError: no descriptor was left for it.
    """
    spec = attempt.spec
    fds = [*attempt.capture.open()]
    try:
        if not spec.dialogue:
            fds.insert(0, stdin(spec.stdin))
        fds += [sealed_file("file", content) for _, content in spec.files]
        if attempt.out:
            fds.append(sealed_file("trust", trust))
        message = {
            "op": "provision",
            "mounts": _mounts(spec.mounts),
            "profile": profile_told(profile),
            "egress": attempt.out,
            "handed": bool(spec.credentials),
            "dialogue": spec.dialogue,
            **_command(attempt),
        }
        attempt.sent = True
        await channel.send(message, fds)
    finally:
        close_all(fds)


async def park(
    channel: Channel,
    attempt: Attempt,
    profile: Profile,
    trust: bytes,
    *,
    kind: str,
    prefix: Sequence[str],
) -> None:
    """Ask for a slot: a sandbox with nothing of any run in it. Raises as `provision`."""
    fds = [*attempt.capture.open()]
    try:
        if attempt.out:
            fds.append(sealed_file("trust", trust))
        message = {
            "op": "park",
            "lease": attempt.lease.id,
            "kind": kind,
            "prefix": list(prefix),
            "limits": limits_told(attempt.spec.limits),
            "profile": profile_told(profile),
            "egress": attempt.out,
            "deadline_ms": attempt.lease.deadline_ms,
        }
        attempt.sent = True
        await channel.send(message, fds)
    finally:
        close_all(fds)


async def claim(channel: Channel, attempt: Attempt, slot: str) -> None:
    """Ask that a slot become this run. Raises as `provision`."""
    spec = attempt.spec
    fds = [stdin(spec.stdin)]
    try:
        fds += [sealed_file("file", content) for _, content in spec.files]
        await channel.send({"op": "claim", "slot": slot, **_command(attempt)}, fds)
    finally:
        close_all(fds)


async def start(channel: Channel, attempt: Attempt, files: Sequence[HandedFile]) -> None:
    """Ask that the command go, with these files. Raises as `provision`."""
    message = {
        "op": "start",
        "lease": attempt.lease.id,
        "credentials": [file.name for file in files],
    }
    await channel.send(message, [file.fd for file in files])


def _command(attempt: Attempt) -> dict[str, Any]:
    """What of a run is told in the same words to a new sandbox and to a slot."""
    spec = attempt.spec
    return {
        "lease": attempt.lease.id,
        "argv": spec.argv,
        "env": environment(spec, out=attempt.out),
        "files": [name for name, _ in spec.files],
        "collect": spec.collect,
        "deadline_ms": attempt.lease.deadline_ms,
        "limits": limits_told(spec.limits),
    }


def environment(spec: RunSpec, *, out: bool) -> tuple[tuple[str, str], ...]:
    """The run's variables: with a way out the proxy's first, so that the tool's own win."""
    return (*wayout.ENVIRONMENT, *spec.env) if out else spec.env


def profile_told(profile: Profile) -> dict[str, Any]:
    """What of a profile the spawner has to know."""
    base = profile.base
    return {
        "runner": profile.runner.value,
        "base": {"kind": base.kind.value, "path": base.path, "digest": base.digest},
        "mounts": _mounts(profile.mounts),
        "io_mb_per_s": profile.io_mb_per_s,
    }


def _mounts(mounts: Sequence[Mount]) -> list[tuple[str, str, bool]]:
    return [(mount.name, mount.source, mount.writable) for mount in mounts]


def limits_told(limits: Limits) -> dict[str, int]:
    """The limits that the spawner holds; that of output is held by whoever reads it."""
    return {
        "wall_s": limits.wall_s,
        "memory_mb": limits.memory_mb,
        "pids": limits.pids,
        "cpu_percent": limits.cpu_percent,
        "tmp_mb": limits.tmp_mb,
        "open_files": limits.open_files,
    }


def stdin(data: bytes) -> int:
    """A whole standard input that needs nobody to feed it: read-only, and of this run alone."""
    if not data:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    written = sealed_file("stdin", data)
    try:
        return os.open(f"/proc/self/fd/{written}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(written)


def accept(answer: dict[str, Any] | None) -> None:
    """The spawner's answer to a provision.

    Raises:
        RunnerFault: it is anything but a sandbox that stands.
    """
    match answer:
        case None:
            raise unavailable("the spawner ended before the sandbox stood")
        case {"ev": "provisioned" | "parked" | "claimed"}:
            return
        case {"ev": "refused", "fault": fault}:
            raise unavailable(str(fault), hint=_mend(str(fault)))
        case _:
            raise unavailable("bubblewrap could not make the sandbox", hint=ASK_DOCTOR)


def _mend(fault: str) -> str | None:
    """What an operator can do about a refusal of the spawner's."""
    if fault.endswith("another digest than the configuration says"):
        return "`remit doctor --digest PATH` prints what base.digest has to be"
    if fault.startswith("the base "):
        return "look at the profile's `base` in remit.yaml, and at who owns what is there"
    if fault.startswith("the mount "):
        return "look at `mounts` in remit.yaml, and at who owns and may write what is there"
    return None
