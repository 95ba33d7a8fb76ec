"""Which directories of the host an operator may show to a run, and which file names a run may use.

Imported by the spawner, which checks what it is told even though the gateway checked before:
standard library only.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from remit.runners import beneath

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_NEVER = ("/proc", "/sys", "/dev", "/run", "/boot", "/etc")
"""Neither these nor anything below them: kernel interfaces, sockets and the host's secrets."""


Identity = tuple[int, int]
"""Device and inode: which directory it is, whatever else gets its name."""


class SourceFault(ValueError):
    """Why a directory cannot be shown at a mount."""


def source_fault(source: str, *, uid: int | None = None, state: str | None = None) -> str | None:
    """Why this directory cannot be shown at a mount, or None. Arguments as `shown`."""
    try:
        shown(source, uid=uid, state=state)
    except SourceFault as fault:
        return str(fault)
    return None


def shown(source: str, *, uid: int | None = None, state: str | None = None) -> Identity:
    """Which directory would be shown at a mount.

    Whoever can write above it can put another in its place afterwards: what is mounted then has to
    be compared with this.

    Args:
        uid: who has to reach it (by owner and "others" bits; groups and ACLs are not looked at,
            bubblewrap itself finds out).
        state: the gateway's own directory, which no mount may hold or be in.

    Raises:
        SourceFault: it cannot be shown.
    """
    if fault := _named_fault(source, state):
        raise SourceFault(fault)
    try:
        fd = beneath.plain_path(source)
    except OSError as exc:
        raise SourceFault(_UNOPENED.get(exc.errno or 0, "cannot be opened")) from None
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    if not stat.S_ISDIR(found.st_mode):
        raise SourceFault("is not a directory")
    if uid is not None and not reachable(source, uid):
        raise SourceFault(f"cannot be reached by user {uid}, as which runs with mounts act")
    return found.st_dev, found.st_ino


_UNOPENED = {
    errno.ELOOP: "is a symbolic link, or leads through one",
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "does not exist",
}


def _named_fault(source: str, state: str | None) -> str | None:
    # `normpath` leaves two slashes at the front, as POSIX lets them mean something else.
    plain = source.startswith("/") and not source.startswith("//") and "\0" not in source
    if not plain or os.path.normpath(source) != source:
        return "is not an absolute, plain path"
    if source == "/" or any(_within(source, root) for root in _NEVER):
        return "is a part of the host that is never shown to a run"
    if state is not None and (_within(source, state) or _within(state, source)):
        return "holds the gateway's own state, or is a part of it"
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
