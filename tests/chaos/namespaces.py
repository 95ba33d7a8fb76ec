"""Which namespaces there are that certain users made, and who still holds each of them.

A namespace lives as long as a process is in it, a descriptor is of it, it is mounted somewhere, or a
socket was made in it. All four are looked at, of every process that this one may look into.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping

KINDS = ("user", "net", "mnt", "pid", "ipc", "uts", "cgroup")
NS_GET_USERNS, NS_GET_OWNER_UID, SIOCGSKNS = 0xB701, 0xB704, 0x894C
_PIDFD_GETFD = 438
_OF_NAMESPACE = re.compile(r"[a-z_]+:\[[0-9]+\]")
_LIBC = ctypes.CDLL(None, use_errno=True)

Held = Mapping[int, Collection[str]]
"""Who holds a namespace, by its inode."""


def members(pids: Collection[int]) -> frozenset[int]:
    """The namespaces that these processes are in."""
    return frozenset(_inode(f"/proc/{pid}/ns/{kind}") for pid in pids for kind in KINDS)


def made_by(users: Collection[int], family: Collection[int]) -> Held:
    """The namespaces that live and were made by one of these users.

    Args:
        users: host user ids.
        family: processes whose sockets are looked at too.
    """
    found: dict[int, set[str]] = defaultdict(set)
    theirs: dict[int, bool] = {}
    for inode, held, opened in _all(family):
        if inode not in theirs:
            theirs[inode] = _owner(opened) in users
        if theirs[inode]:
            found[inode].add(held)
    return found


Opener = Callable[[], int]


def _all(family: Collection[int]) -> Iterator[tuple[int, str, Opener]]:
    """Each holder of each namespace, and how to open it."""
    tables: set[int] = set()
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        for kind in KINDS:
            path = f"/proc/{pid}/ns/{kind}"
            if inode := _inode(path):
                yield inode, f"{kind}: process {pid} is in it", _opener(path)
        yield from _open_in(pid)
        if (table := _inode(f"/proc/{pid}/ns/mnt")) and table not in tables:
            tables.add(table)
            yield from _mounted_in(pid)
    for pid in family:
        yield from _sockets_of(pid)


def _open_in(pid: int) -> Iterator[tuple[int, str, Opener]]:
    for path, link in descriptors(pid):
        if _OF_NAMESPACE.fullmatch(link):
            yield _inode(path), f"{link}: a descriptor of process {pid}", _opener(path)


def _mounted_in(pid: int) -> Iterator[tuple[int, str, Opener]]:
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/mountinfo") as table:
            lines = [line for line in table if " - nsfs " in line]
        for line in lines:
            path = f"/proc/{pid}/root{line.split()[4]}"
            yield _inode(path), f"mounted at {line.split()[4]}", _opener(path)


def _sockets_of(pid: int) -> Iterator[tuple[int, str, Opener]]:
    for path, link in descriptors(pid):
        if link.startswith("socket:"):
            with contextlib.suppress(OSError):
                namespace = _namespace_of(pid, int(path.rpartition("/")[2]))
                try:
                    inode = os.fstat(namespace).st_ino
                    held = f"net: {link}, a socket of process {pid}"
                    yield inode, held, functools.partial(os.dup, namespace)
                finally:
                    os.close(namespace)


def _namespace_of(pid: int, fd: int) -> int:
    """The network namespace that another process's socket was made in."""
    process = os.pidfd_open(pid)
    try:
        ours = _LIBC.syscall(_PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    if ours < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        return fcntl.ioctl(ours, SIOCGSKNS)
    finally:
        os.close(ours)


def descriptors(pid: int) -> Iterator[tuple[str, str]]:
    """What a process has open: where under /proc, and what it is."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{name}"
            with contextlib.suppress(OSError):
                yield path, os.readlink(path)


def _owner(opener: Opener) -> int:
    """The user who made a namespace, or the user namespace that it belongs to; -1: not to be told."""
    opened: list[int] = []
    try:
        opened.append(opener())
        with contextlib.suppress(OSError):  # it is a user namespace itself
            found = bytearray(4)
            fcntl.ioctl(opened[0], NS_GET_OWNER_UID, found)
            return int.from_bytes(found, "little")
        opened.append(fcntl.ioctl(opened[0], NS_GET_USERNS))
        found = bytearray(4)
        fcntl.ioctl(opened[1], NS_GET_OWNER_UID, found)
        return int.from_bytes(found, "little")
    except OSError:
        return -1
    finally:
        for each in opened:
            os.close(each)


def _opener(path: str) -> Opener:
    return lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
