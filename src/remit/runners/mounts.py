"""Which directories of the host an operator may show to a run, and which file names a run may use.

Imported by the spawner, which checks what it is told even though the gateway checked before:
standard library only.
"""

from __future__ import annotations

import os
import re
import stat

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_NEVER = ("/proc", "/sys", "/dev", "/run", "/boot", "/etc")
"""Neither these nor anything below them: kernel interfaces, sockets and the host's secrets."""


def source_fault(source: str, *, uid: int | None = None) -> str | None:
    """Why this directory cannot be shown at a mount, or None.

    With `uid`, also whether that user can reach it (by owner and "others" bits; groups and ACLs
    are not looked at, bubblewrap itself finds out).
    """
    # `normpath` leaves two slashes at the front, as POSIX lets them mean something else.
    plain = source.startswith("/") and not source.startswith("//") and "\0" not in source
    if not plain or os.path.normpath(source) != source:
        return "is not an absolute, plain path"
    if source == "/" or any(_within(source, root) for root in _NEVER):
        return "is a part of the host that is never shown to a run"
    real = os.path.realpath(source)
    if real == "/" or any(_within(real, root) for root in _NEVER):
        return "leads to a part of the host that is never shown to a run"
    try:
        found = os.lstat(source)
    except OSError:
        return "does not exist"
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    if uid is not None and not reachable(real, uid):
        return f"cannot be reached by user {uid}, as which runs with mounts act"
    return None


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root + "/")


def reachable(path: str, uid: int) -> bool:
    """Whether this user can get to a directory, by owner and "others" bits."""
    while True:
        found = os.stat(path)
        bit = stat.S_IXUSR if found.st_uid == uid else stat.S_IXOTH
        if not found.st_mode & bit:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def file_fault(name: str) -> str | None:
    """Why this is not a path for a file in the job directory, or None."""
    if not name or len(name) > 255 or "\0" in name:
        return "is empty, too long or holds a NUL"
    if name.startswith("/") or any(part in {"", ".", ".."} for part in name.split("/")):
        return "is not a plain path below the job directory"
    return None


def env_fault(name: str) -> str | None:
    """Why this is not a name for an environment variable, or None."""
    return None if _ENV_NAME.fullmatch(name) else "is not a variable name"
