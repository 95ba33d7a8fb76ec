"""How a short-lived child of the spawner enters a namespace of a run.

With root it enters the namespace itself; without, first the user namespace that owns it, in which
the user who made it holds every capability. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import os

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_LIBC = ctypes.CDLL(None, use_errno=True)


def enter(namespace: int, *, privileged: bool) -> None:
    """Join the namespace that a descriptor stands for.

    Raises:
        OSError: it cannot be entered.
    """
    if not privileged:
        owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
        _check(_LIBC.setns(owner, 0))
        os.close(owner)
    _check(_LIBC.setns(namespace, 0))


def become(uid: int | None) -> None:
    """From here on act as the run's own user of the host, if it has one."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "setns")
