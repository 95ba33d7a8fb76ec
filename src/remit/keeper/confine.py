"""What the keeper gives up: a user that can do more, being looked into, cores, new rights."""

from __future__ import annotations

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

MAX_DESCRIPTORS = 1_024
MAX_PROCESSES = 256
"""Threads of brokers' resolvers count too; where the user is shared, so does all else of it."""


def harden() -> None:
    """No core, no tracing and no reading of its memory by its own user, no new rights.

    To be called before there are threads: each has `no_new_privs` of its own.

    Raises:
        OSError: the kernel does not let it.
    """
    os.umask(0o077)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MAX_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def become(uid: int | None) -> None:
    """Be this user and group and no other, for good; all threads of the process.

    Raises:
        OSError: this process may not.
    """
    if uid is not None and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        resource.setrlimit(resource.RLIMIT_NPROC, (MAX_PROCESSES, MAX_PROCESSES))
        _prctl(_PR_SET_DUMPABLE, 0)  # the kernel may have set it anew with the user


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
