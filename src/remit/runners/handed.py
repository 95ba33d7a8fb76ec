"""Writes files into the memory of a held run: credentials, and the inputs of a claimed slot.

A short-lived child enters the run's mount namespace as the run's user and creates each file with
`openat2`, so that nothing is overwritten and no symlink followed. What it writes to is a tmpfs of
that namespace, never a disk of the host. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from remit.runners import beneath
from remit.runners.enter import become, enter

_PATIENCE_S = 10
_FAULT = 255
"""How the writer ends where it was not the kernel that refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handing:
    """Files to write: `fds` hold the contents of `names`, below `directory`, with `mode`.

    `open_files` is a process and how many files it may have open from now on: the run's own user
    may lower that, where root without CAP_SYS_RESOURCE may not.
    """

    directory: str
    names: Sequence[str]
    fds: Sequence[int]
    mode: int
    open_files: tuple[int, int] | None = None


def start(what: Handing, namespace: int | None, uid: int | None, *, privileged: bool) -> int:
    """Fork the writer. The descriptors stay the caller's.

    It ends 0 if every file was written, with the number of the error if the kernel refused.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.alarm(_PATIENCE_S)
        if namespace is not None:
            enter(namespace, privileged=privileged)
        become(uid)
        os.umask(0)
        if what.open_files is not None:
            waiting, most = what.open_files
            resource.prlimit(waiting, resource.RLIMIT_NOFILE, (most, most))
        directory = beneath.directory(what.directory)
        for name, fd in zip(what.names, what.fds, strict=True):
            _write(directory, name, fd, what.mode)
        os._exit(0)
    except OSError as error:
        os._exit(error.errno or _FAULT)
    finally:
        os._exit(_FAULT)


def why(status: int) -> str:
    """What a writer's wait status says of how it ended."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"ended by signal {-code}"
    return errno.errorcode.get(code, f"status {code}")


def _write(directory: int, name: str, source: int, mode: int) -> None:
    parents = name.split("/")[:-1]
    for depth in range(len(parents)):
        with contextlib.suppress(FileExistsError):
            os.mkdir("/".join(parents[: depth + 1]), 0o755, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    target = beneath.open_beneath(directory, name, flags, mode)
    at = 0
    while sent := os.sendfile(target, source, at, 1 << 20):
        at += sent
    os.close(target)
