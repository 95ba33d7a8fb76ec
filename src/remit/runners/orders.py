"""What the gateway asks of the spawner, message by message, and what it takes for an answer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from remit.model import HandedFile, Limits
from remit.profile import Profile
from remit.runners.attempt import Attempt
from remit.runners.channel import Channel
from remit.runners.faults import unavailable
from remit.runners.wire import close_all, sealed_file


async def provision(
    channel: Channel, attempt: Attempt, *, profile: Profile, trust: bytes | None = None
) -> None:
    """Ask for a sandbox that is held before its command.

    Args:
        trust: the authorities (PEM) that the run trusts, where it is to have a way out.

    Raises:
        SpawnerGone: it did not arrive.
        OSError: no descriptor was left for it.
    """
    spec = attempt.spec
    fds = [stdin(spec.stdin), *attempt.capture.open()]
    try:
        fds += [sealed_file("file", content) for _, content in spec.files]
        if trust is not None:
            fds.append(sealed_file("trust", trust))
        message = {
            "op": "provision",
            "lease": attempt.lease.id,
            "argv": spec.argv,
            "env": spec.env,
            "mounts": [(mount.name, mount.source, mount.writable) for mount in spec.mounts],
            "files": [name for name, _ in spec.files],
            "collect": spec.collect,
            "deadline_ms": attempt.lease.deadline_ms,
            "limits": limits_told(spec.limits),
            "profile": profile_told(profile),
            "egress": trust is not None,
            "handed": bool(spec.credentials),
        }
        attempt.sent = True
        await channel.send(message, fds)
    finally:
        close_all(fds)


async def start(channel: Channel, lease_id: str, files: Sequence[HandedFile]) -> None:
    """Ask that the command go, with these files.

    Raises:
        SpawnerGone: it did not arrive.
    """
    message = {"op": "start", "lease": lease_id, "credentials": [file.name for file in files]}
    await channel.send(message, [file.fd for file in files])


def profile_told(profile: Profile) -> dict[str, Any]:
    """The part of a profile that the spawner makes."""
    base = profile.base
    return {
        "runner": profile.runner.value,
        "base": {"kind": base.kind.value, "path": base.path, "digest": base.digest},
        "mounts": [(mount.name, mount.source, mount.writable) for mount in profile.mounts],
        "io_mb_per_s": profile.io_mb_per_s,
    }


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
        case {"ev": "provisioned"}:
            return
        case {"ev": "refused", "fault": fault}:
            raise unavailable(str(fault))
        case _:
            raise unavailable("bubblewrap could not make the sandbox", hint="run: remit doctor")
