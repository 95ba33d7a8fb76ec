"""A provision message, checked again by the process that acts on it.

The gateway checked the plan; the spawner may run as root, so it believes none of it. Imported by
the spawner: standard library only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remit.runners.group import GroupLimits
from remit.runners.jail import JailRequest
from remit.runners.mounts import IDENTIFIER, NAME, env_fault, file_fault, source_fault

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one cell is to be, with each limit in the unit that the kernel takes."""

    lease: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    mounts: tuple[tuple[str, str, bool], ...]
    files: tuple[str, ...]
    collect: tuple[str, ...]
    deadline_ms: int
    wall_s: int
    memory_bytes: int
    pids: int
    cpu_percent: int
    tmp_bytes: int
    open_files: int

    @property
    def left_s(self) -> float:
        """Seconds until the lease's deadline, never negative."""
        return max(0.0, self.deadline_ms / 1000 - time.time())

    def group_limits(self) -> GroupLimits:
        return GroupLimits(
            memory_bytes=self.memory_bytes, pids=self.pids, cpu_percent=self.cpu_percent
        )

    def jail(self) -> JailRequest:
        return JailRequest(
            argv=self.argv,
            env=self.env,
            tmp_bytes=self.tmp_bytes,
            mounts=self.mounts,
            files=self.files,
        )


def read(message: Mapping[str, Any], *, mount_uid: int | None) -> Request:
    """The request of a provision message.

    Raises:
        ValueError: with a reason that names no value of the message.
    """
    limits = _limits(message["limits"])
    request = Request(
        lease=identifier(message["lease"]),
        argv=_strings(message["argv"]),
        env=tuple((str(name), str(value)) for name, value in message["env"]),
        mounts=tuple((str(n), str(s), w is True) for n, s, w in message["mounts"]),
        files=_strings(message["files"]),
        collect=_strings(message["collect"]),
        deadline_ms=int(message["deadline_ms"]),
        wall_s=limits["wall_s"],
        memory_bytes=limits["memory_mb"] * MIB,
        pids=limits["pids"],
        cpu_percent=limits["cpu_percent"],
        tmp_bytes=limits["tmp_mb"] * MIB,
        open_files=max(_LEAST_OPEN_FILES, limits["open_files"]),
    )
    _check(request, mount_uid)
    return request


def identifier(value: object) -> str:
    """A lease or gateway id, safe as a directory's name.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
        raise ValueError("a lease id is not an identifier")
    return value


def _limits(given: Mapping[str, Any]) -> dict[str, int]:
    found = {}
    for name, ceiling in _CEILINGS.items():
        value = given[name]
        if type(value) is not int or not 1 <= value <= ceiling:
            raise ValueError(f"the limit {name} is out of range")
        found[name] = value
    return found


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_ARGUMENTS:
        raise ValueError("a list is missing or too long")
    return tuple(str(item) for item in value)


def _check(request: Request, mount_uid: int | None) -> None:
    if not request.argv or not request.argv[0] or any("\0" in item for item in request.argv):
        raise ValueError("the command is empty or holds a NUL")
    for name, value in request.env:
        if (fault := env_fault(name)) or "\0" in value:
            raise ValueError(f"an environment variable {fault or 'holds a NUL'}")
    for path in (*request.files, *request.collect):
        if fault := file_fault(path):
            raise ValueError(f"a file {fault}")
    names = [name for name, _, _ in request.mounts]
    if len(set(names)) != len(names):
        raise ValueError("two mounts have the same name")
    for name, source, _ in request.mounts:
        if not NAME.fullmatch(name):
            raise ValueError("a mount's name is not plain letters, digits, - and _")
        if fault := source_fault(source, uid=mount_uid):
            raise ValueError(f"the mount {name} {fault}")
