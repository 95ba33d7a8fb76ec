"""The gateway's messages that make a run, checked again by the process that acts on them.

The gateway checked the plan; the spawner may run as root, so it believes none of it. Imported by
the spawner: standard library only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from remit.runners.group import GroupLimits
from remit.runners.jail import JailRequest
from remit.runners.mounts import (
    IDENTIFIER,
    NAME,
    Identity,
    SourceFault,
    env_fault,
    file_fault,
    shown,
)

MIB = 1024 * 1024
_MAX_ARGUMENTS = 4096
_CEILINGS = {
    "wall_s": 7 * 86_400,
    "memory_mb": 1 << 20,
    "pids": 1 << 16,
    "cpu_percent": 100_000,
    "tmp_mb": 1 << 16,
    "open_files": 1 << 20,
}
_LEAST_OPEN_FILES = 16  # bubblewrap itself needs about a dozen
_OWN = {"sandbox": (0, 2), "gvisor": (96 * MIB, 192)}
"""Memory and processes that a kind of environment takes beside its command's: bubblewrap's monitor
and PID 1; gVisor's kernel, file server, and their threads."""

_MAX_IO_MB = 100_000
_RUNNER = re.compile(r"[a-z][a-z0-9-]{0,39}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseWanted:
    """A base system as a message names it: `host`, or `directory` or `image` by path and digest."""

    kind: str = "host"
    path: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one cell is to be, with each limit in the unit that the kernel takes. `shown` says which
    directories its mounts are, in their order."""

    lease: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[tuple[str, str, bool], ...] = ()
    shown: tuple[Identity, ...] = ()
    files: tuple[str, ...] = ()
    collect: tuple[str, ...] = ()
    deadline_ms: int
    wall_s: int
    memory_bytes: int
    pids: int
    cpu_percent: int
    tmp_bytes: int
    open_files: int
    runner: str = "sandbox"
    base: BaseWanted = field(default_factory=BaseWanted)
    io_bytes_per_s: int | None = None
    egress: bool = False
    handed: bool = False
    dialogue: bool = False

    @property
    def streams(self) -> int:
        """How many standard streams its message brings: the others are made here."""
        return 1 if self.dialogue else 3

    @property
    def left_s(self) -> float:
        """Seconds until the lease's deadline, never negative."""
        return max(0.0, self.deadline_ms / 1000 - time.time())

    def group_limits(self) -> GroupLimits:
        own_memory, own_processes = _OWN.get(self.runner, _OWN["sandbox"])
        return GroupLimits(
            memory_bytes=self.memory_bytes + own_memory,
            own_processes=own_processes,
            pids=self.pids,
            cpu_percent=self.cpu_percent,
            io_bytes_per_s=self.io_bytes_per_s,
            io_paths=(self.base.path or "/usr", *(source for _, source, _ in self.mounts)),
            io_writes=any(writable for _, _, writable in self.mounts),
        )

    def jail(self) -> JailRequest:
        return JailRequest(
            argv=self.argv,
            env=self.env,
            tmp_bytes=self.tmp_bytes,
            mounts=self.mounts,
            files=self.files,
            trust=self.egress,
            handed=self.handed,
        )


def read(message: Mapping[str, Any], *, mount_uid: int | None, state: str | None = None) -> Request:
    """The request of a provision message; `state` is the gateway's own directory.

    Raises:
        ValueError: with a reason that names no value of the message.
        KeyError, TypeError: a field is missing or is no such thing.
    """
    request = Request(
        **_common(message),
        **_of_profile(message),
        lease=identifier(message["lease"]),
        handed=message.get("handed") is True,
        dialogue=message.get("dialogue") is True,
    )
    _check_command(request)
    return _with_mounts(request, mount_uid, state)


def read_park(
    message: Mapping[str, Any], *, mount_uid: int | None, state: str | None = None
) -> Request:
    """The request of a slot; its command is the caller's to fill in. Errors as `read`."""
    request = Request(
        **_limits(message["limits"]),
        **_of_profile(message),
        lease=identifier(message["lease"]),
        argv=_strings(message.get("prefix", [])),
        deadline_ms=_milliseconds(message["deadline_ms"]),
        handed=True,
    )
    return _with_mounts(request, mount_uid, state)


def read_claim(message: Mapping[str, Any], slot: Request) -> Request:
    """The request of a run that takes over a slot, which keeps its mounts, base and egress.

    Raises:
        ValueError: also where the slot is not one for this run.
        KeyError, TypeError: as `read`.
    """
    request = replace(
        slot, lease=identifier(message["lease"]), **_common(message), mounts=slot.mounts
    )
    _check_command(request)
    if request.tmp_bytes != slot.tmp_bytes or request.open_files > slot.open_files:
        raise ValueError("the slot is not of the run's limits")
    return request


def identifier(value: object) -> str:
    """A lease or gateway id, safe as a directory's name.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
        raise ValueError("a lease id is not an identifier")
    return value


def _common(message: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "argv": _strings(message["argv"]),
        "env": tuple((str(name), str(value)) for name, value in message["env"]),
        "files": _strings(message["files"]),
        "collect": _strings(message["collect"]),
        "deadline_ms": _milliseconds(message["deadline_ms"]),
        **_limits(message["limits"]),
    }


def _of_profile(message: Mapping[str, Any]) -> dict[str, Any]:
    """The profile's part; a message without one means the host's base and no more."""
    profile = message.get("profile") or {}
    runner, io_mb = profile.get("runner", "sandbox"), profile.get("io_mb_per_s")
    if not isinstance(runner, str) or not _RUNNER.fullmatch(runner):
        raise ValueError("the runner is no runner")
    if io_mb is not None and (type(io_mb) is not int or not 1 <= io_mb <= _MAX_IO_MB):
        raise ValueError("the limit io_mb_per_s is out of range")
    mounts = [*profile.get("mounts", []), *message.get("mounts", [])]
    return {
        "runner": runner,
        "base": _base(profile.get("base") or {"kind": "host"}),
        "mounts": tuple((str(n), str(s), w is True) for n, s, w in mounts),
        "io_bytes_per_s": None if io_mb is None else io_mb * MIB,
        "egress": message.get("egress") is True,
    }


def _base(given: Mapping[str, Any]) -> BaseWanted:
    kind, path, digest = given.get("kind"), given.get("path"), given.get("digest")
    if kind == "host":
        return BaseWanted()
    if kind not in {"directory", "image"}:
        raise ValueError("the base is of no known kind")
    if not isinstance(path, str) or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError("the base has no path or no digest")
    return BaseWanted(kind=kind, path=path, digest=digest)


def _milliseconds(value: object) -> int:
    if type(value) is not int:
        raise ValueError("a deadline is no whole number")
    return value


def _limits(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, ceiling in _CEILINGS.items():
        value = given[name]
        if type(value) is not int or not 1 <= value <= ceiling:
            raise ValueError(f"the limit {name} is out of range")
        found[name] = value
    return {
        "wall_s": found["wall_s"],
        "memory_bytes": found["memory_mb"] * MIB,
        "pids": found["pids"],
        "cpu_percent": found["cpu_percent"],
        "tmp_bytes": found["tmp_mb"] * MIB,
        "open_files": max(_LEAST_OPEN_FILES, found["open_files"]),
    }


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_ARGUMENTS:
        raise ValueError("a list is missing or too long")
    return tuple(str(item) for item in value)


def _check_command(request: Request) -> None:
    if not request.argv or not request.argv[0] or any("\0" in item for item in request.argv):
        raise ValueError("the command is empty or holds a NUL")
    for name, value in request.env:
        if (fault := env_fault(name)) or "\0" in value:
            raise ValueError(f"an environment variable {fault or 'holds a NUL'}")
    for path in (*request.files, *request.collect):
        if fault := file_fault(path):
            raise ValueError(f"a file {fault}")


def _with_mounts(request: Request, mount_uid: int | None, state: str | None) -> Request:
    names = [name for name, _, _ in request.mounts]
    if len(set(names)) != len(names):
        raise ValueError("two mounts have the same name")
    found: list[Identity] = []
    for name, source, _ in request.mounts:
        if not NAME.fullmatch(name):
            raise ValueError("a mount's name is not plain letters, digits, - and _")
        try:
            found.append(shown(source, uid=mount_uid, state=state))
        except SourceFault as fault:
            raise ValueError(f"the mount {name} {fault}") from None
    return replace(request, shown=tuple(found))
