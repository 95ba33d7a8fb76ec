"""From a single-threaded process to bubblewrap: everything between `fork` and `exec`.

The order matters. Control groups first, while this process may still write to them; then
descriptors, so that nothing of ours is inherited; then limits; then the drop to the run's own
user; then the parent-death signal, which a change of user would clear. Imported by the spawner:
standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from remit.runners.jail import WALLS

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SYS_CLONE3 = 435
_CLONE_INTO_CGROUP = 0x2_0000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC_HOLDING_GIL = ctypes.PyDLL(None)  # the child must come back as the thread that runs
_IGNORED_HERE = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The first two by Python, the others by the spawner."""
_MAX_FD = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Limits by rlimit. The last three only where no cgroup holds them (tier `degraded`)."""

    open_files: int
    file_bytes: int
    memory_bytes: int | None = None
    processes: int | None = None
    cpu_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """`fds` become 0, 1, 2, ... in this order; `uid` None keeps the user.

    `entrances` are files of v1 control groups to write `0` to, `cgroup` a cgroup2 directory.
    """

    bwrap: str
    argv: tuple[str, ...]
    fds: tuple[int, ...]
    entrances: Sequence[str]
    cgroup: str | None
    ceilings: Ceilings
    uid: int | None


def become_subreaper() -> None:
    """Orphaned sandboxes come to this process to be reaped, not to the host's init."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def launch(what: Launch) -> int:
    """Fork and exec; give the process id of bubblewrap's monitor.

    A child that cannot get as far as exec ends with 127, having run nothing.
    """
    parent = os.getpid()
    pid = -1 if what.cgroup is None else _fork_into(what.cgroup)
    entered = pid >= 0
    if not entered:
        pid = os.fork()
    if pid:
        return pid
    try:
        if what.cgroup is not None and not entered:
            _write(f"{what.cgroup}/cgroup.procs", b"0")
        _become(what, parent)
    finally:
        os._exit(127)


def _fork_into(cgroup: str) -> int:
    """Fork straight into a cgroup2 group; -1 where `clone3` is refused.

    Entering by a write to `cgroup.procs` waits for an RCU grace period, 5 ms and more; being born
    inside does not. Python does not see this fork, which is sound for a process of one thread
    whose child only makes system calls and then execs.
    """

    class Arguments(ctypes.Structure):  # struct clone_args, linux/sched.h
        _fields_ = tuple(
            (name, ctypes.c_uint64)
            for name in (
                *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack"),
                *("stack_size", "tls", "set_tid", "set_tid_size", "cgroup"),
            )
        )

    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        given = Arguments(flags=_CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=directory)
        pid = _LIBC_HOLDING_GIL.syscall(_SYS_CLONE3, ctypes.byref(given), ctypes.sizeof(given))
        return int(pid)
    finally:
        os.close(directory)


def _become(what: Launch, parent: int) -> None:
    for entrance in what.entrances:
        _write(entrance, b"0")
    _write("/proc/self/oom_score_adj", b"500")  # under host pressure the run goes, not the gateway
    _keep_only(what.fds)
    _lower(what.ceilings)
    os.umask(0o022)
    for number in _IGNORED_HERE:  # exec would keep that, and a stop could not reach the command
        signal.signal(number, signal.SIG_DFL)
    if what.uid is not None:
        os.setgroups([])
        os.setresgid(what.uid, what.uid, what.uid)
        os.setresuid(what.uid, what.uid, what.uid)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    os.execve(what.bwrap, ["bwrap", *WALLS, "--", *what.argv], {})  # noqa: S606


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, data)
    os.close(fd)


def _keep_only(fds: Sequence[int]) -> None:
    """Exactly these stay open, numbered from 0; the copies in between avoid overwriting one."""
    above = len(fds) + 3
    for number, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds]):
        os.dup2(fd, number)
    os.closerange(len(fds), _MAX_FD)


def tasks_of(uid: int | None) -> int:
    """How many processes and threads a user has now; this process's own user if None.

    RLIMIT_NPROC counts all of them, so a limit for one run has to come on top.
    """
    wanted, found = os.geteuid() if uid is None else uid, 0
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                tasks = os.stat(f"/proc/{name}/task")
                found += tasks.st_nlink - 2 if tasks.st_uid == wanted else 0
    return found


def _lower(ceilings: Ceilings) -> None:
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: ceilings.open_files,
        resource.RLIMIT_FSIZE: ceilings.file_bytes,
        resource.RLIMIT_AS: ceilings.memory_bytes,
        resource.RLIMIT_NPROC: ceilings.processes,
        resource.RLIMIT_CPU: ceilings.cpu_seconds,
    }
    for kind, value in wanted.items():
        if value is not None:
            hard = resource.getrlimit(kind)[1]
            limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (limit, limit))
