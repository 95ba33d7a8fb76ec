"""Reads the files a run left in its job directory, after every process of the run is dead.

The job directory is a sized tmpfs inside the run's mount namespace, so a full disk is the run's
own problem; the spawner keeps that namespace alive by its descriptor. A short-lived child enters
it as the run's user, and opens each name with `openat2` so that no symlink is followed and nothing
but a regular file is read. Nobody of the run is left to change anything underneath; another run
that was passed a descriptor, by a socket in a directory they share, may: what is read is counted,
not believed. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Sequence

from remit.runners import beneath
from remit.runners.enter import become, enter
from remit.runners.jail import JOB_DIR

MAX_BYTES = 16 * 1024 * 1024
"""The most that is read back from one run, all files together."""

_PATIENCE_S = 10
_MISSING = {2, 20}  # ENOENT, ENOTDIR


def start(
    namespace: int | None,
    paths: Sequence[str],
    into: Sequence[int],
    uid: int | None,
    *,
    privileged: bool,
    job: str = JOB_DIR,
) -> int:
    """Fork the reader. `into` holds a memfd for each path and one more for the findings.

    The findings are a JSON list with one of `ok`, `missing`, `irregular` or `too_large` for each
    path. The reader ends 0, or otherwise if it could not read at all. Without a namespace, `job`
    is a directory of this process's own.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.alarm(_PATIENCE_S)
        if namespace is not None:
            enter(namespace, privileged=privileged)
        become(uid)
        os.write(into[-1], json.dumps(_read_all(job, paths, into)).encode("ascii"))
        os._exit(0)
    finally:
        os._exit(1)


def _read_all(job: str, paths: Sequence[str], into: Sequence[int]) -> list[str]:
    directory = beneath.directory(job)
    left, found = MAX_BYTES, []
    for path, target in zip(paths, into, strict=False):
        finding, size = read_one(directory, path, target, left)
        left -= size
        found.append(finding)
    return found


def read_one(directory: int, path: str, target: int, limit: int) -> tuple[str, int]:
    """Copy one file to `target`; say what was found and how many bytes were taken."""
    try:
        fd = beneath.open_beneath(directory, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as exc:
        return ("missing" if exc.errno in _MISSING else "irregular"), 0
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            return "irregular", 0
        if facts.st_size > limit:
            return "too_large", 0
        size = 0
        while part := os.read(fd, 1 << 20):
            size += len(part)
            if size > limit:
                os.ftruncate(target, 0)
                return "too_large", 0
            os.write(target, part)
        return "ok", size
    finally:
        os.close(fd)
