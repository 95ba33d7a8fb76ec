"""What the proxy gives up before it looks at the first hostile byte."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on all machines
_ALL_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_READ = (1 << 2) | (1 << 3)  # READ_FILE, READ_DIR
_BIND_TCP = 1  # it never listens itself: from ABI 4 on
_SCOPES = 0b11  # abstract Unix sockets, signals: from ABI 6 on
_MIB = 1_048_576

READABLE = ("/etc", "/usr", "/lib", "/lib64")
"""All that the system's resolver and its authorities' directory need, beside the place that
/etc/resolv.conf leads to."""


def become(uid: int | None) -> None:
    """Be this user and group and no other, for good.

    Raises:
        OSError: this process may not.
    """
    if uid is not None and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def confine(*, files: int) -> bool:
    """No core, no tracing, no new rights, bounded memory and descriptors, files only to read.

    Gives whether the kernel holds it to `READABLE` (Landlock); the rest always holds.

    Raises:
        OSError: a bound could not be set.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, files)
    _limit(resource.RLIMIT_AS, 2_048 * _MIB)
    _limit(resource.RLIMIT_FSIZE, 16 * _MIB)
    with contextlib.suppress(OSError):
        return _landlock(libc)
    return False


def _limit(which: int, most: int) -> None:
    hard = resource.getrlimit(which)[1]
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (least, least))


def _landlock(libc: ctypes.CDLL) -> bool:
    """Landlock(7): every right on files is taken, reading given back below a few directories."""
    abi = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        return False
    rights = max(mask for since, mask in _ALL_FILE_RIGHTS.items() if since <= abi)
    # struct landlock_ruleset_attr: handled_access_fs, handled_access_net (4), scoped (6)
    attr = struct.pack("=QQQ", rights, _BIND_TCP, _SCOPES)
    attr = attr[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = libc.syscall(_LANDLOCK_CREATE, attr, len(attr), 0)
    if ruleset < 0:
        return False
    try:
        for path in (*READABLE, os.path.dirname(os.path.realpath("/etc/resolv.conf"))):
            with contextlib.suppress(FileNotFoundError):
                parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
                rule = struct.pack("=Qi", _READ, parent)
                added = libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0)
                os.close(parent)
                if added != 0:
                    return False
        return int(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)) == 0
    finally:
        os.close(ruleset)
