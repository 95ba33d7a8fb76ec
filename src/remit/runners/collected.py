"""Reads the files a run left in its job directory, after every process of the run is dead.

The job directory is a sized tmpfs inside the run's mount namespace, so a full disk is the run's
own problem; the spawner keeps that namespace alive by its descriptor. A short-lived child enters
it as the run's user, and opens each name with `openat2` so that no symlink is followed and nothing
but a regular file is read. Nothing can change underneath: nobody is left to change it. Imported
by the spawner: standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import stat
from collections.abc import Sequence

from remit.runners.jail import JOB_DIR

MAX_BYTES = 16 * 1024 * 1024
"""The most that is read back from one run, all files together."""

_PATIENCE_S = 10
_SYS_OPENAT2 = 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_NS_GET_USERNS = 0xB701
_LIBC = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def start(namespace: int, paths: Sequence[str], into: Sequence[int], uid: int | None) -> int:
    """Fork the reader. `into` holds a memfd for each path and one more for the findings.

    The findings are a JSON list with one of `ok`, `missing`, `irregular` or `too_large` for each
    path. The reader ends 0, or otherwise if it could not read at all.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.alarm(_PATIENCE_S)
        _enter(namespace, uid)
        os.write(into[-1], json.dumps(_read_all(paths, into)).encode("ascii"))
        os._exit(0)
    finally:
        os._exit(1)


def _enter(namespace: int, uid: int | None) -> None:
    """Join the mount namespace; without root, first the user namespace that owns it."""
    if uid is None:
        owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
        _check(_LIBC.setns(owner, 0))
    _check(_LIBC.setns(namespace, 0))
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _read_all(paths: Sequence[str], into: Sequence[int]) -> list[str]:
    directory = os.open(JOB_DIR, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    left, found = MAX_BYTES, []
    for path, target in zip(paths, into, strict=False):
        finding, size = read_one(directory, path, target, left)
        left -= size
        found.append(finding)
    return found


def read_one(directory: int, path: str, target: int, limit: int) -> tuple[str, int]:
    """Copy one file to `target`; say what was found and how many bytes were taken."""
    how = _OpenHow(
        flags=os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
        mode=0,
        resolve=_NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH,
    )
    fd = _LIBC.syscall(
        _SYS_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
    )
    if fd < 0:
        missing = ctypes.get_errno() in {2, 20}  # ENOENT, ENOTDIR
        return ("missing" if missing else "irregular"), 0
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            return "irregular", 0
        if facts.st_size > limit:
            return "too_large", 0
        size = 0
        while part := os.read(fd, 1 << 20):
            os.write(target, part)
            size += len(part)
        return "ok", size
    finally:
        os.close(fd)
