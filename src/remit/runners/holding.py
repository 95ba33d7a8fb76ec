"""Whether the command of a run still has its standard output.

The end of file that a reader waits for comes when nobody has the writing end any more, and what
makes the sandbox around the command keeps it for as long as the command runs. So a command that
closes its output and goes on is found by looking at what its processes have open. Imported by the
spawner: standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice

MOST_FILES = 4_096
"""Most open files that are looked at; of processes with more nothing is said."""

SHARE = 100
"""How many times as long as it took the next look waits at least: a run decides how much there is to
look at, and whoever looks has other runs to see to."""

Pipe = tuple[int, int]
"""The device and inode of a pipe: the same for both its ends, and nobody else's."""


def pipe_of(fd: int) -> Pipe:
    """The pipe that a descriptor is an end of."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def let_go(pids: Sequence[int], pipe: Pipe) -> bool:
    """Whether there are processes, and none of these has the pipe open.

    False where that cannot be seen. One that passes the pipe on while this looks may be missed, so
    it is asked twice.
    """
    try:
        if any(_is(f"/proc/{pid}/fd/1", pipe) for pid in pids):
            return False
        left = MOST_FILES
        for pid in pids:
            files = _files(pid, left + 1)
            left -= len(files)
            if left < 0 or any(_is(each, pipe) for each in files):
                return False
    except PermissionError:
        return False
    return bool(pids)


def next_s(usual_s: float, took_s: float) -> float:
    """After how many seconds to look again."""
    return max(usual_s, SHARE * took_s)


def _files(pid: int, most: int) -> list[str]:
    try:
        with os.scandir(f"/proc/{pid}/fd") as files:
            return [each.path for each in islice(files, most)]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _is(path: str, pipe: Pipe) -> bool:
    """Asks no file that is no pipe: one of a mount that does not answer would hold up whoever asks."""
    try:
        if not os.readlink(path).startswith("pipe:["):
            return False
        found = os.stat(path)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return (found.st_dev, found.st_ino) == pipe
