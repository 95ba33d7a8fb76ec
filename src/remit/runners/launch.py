"""From a single-threaded process to what makes a sandbox: everything between `fork` and `exec`.

The order in the child matters. Control groups first, while it may still write to them; then
descriptors, so that nothing of ours is inherited; then limits; then the drop to the run's own
user; then the parent-death signal, which a change of user would clear.

What can be computed is computed before the fork: each page that the child writes to, even to
count a reference, is copied. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SYS_CLONE3 = 435
_CLONE_INTO_CGROUP = 0x2_0000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC_HOLDING_GIL = ctypes.PyDLL(None)  # the child must come back as the thread that runs
_MAX_FD = 1_048_576
_CAUGHT_HERE = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Limits by rlimit. The last three only where no cgroup holds them (tier `degraded`)."""

    open_files: int
    file_bytes: int | None
    memory_bytes: int | None = None
    processes: int | None = None
    cpu_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """`fds` become 0, 1, 2, ... in this order; `uid` None keeps the user.

    `argv` is with argument 0. `entrances` are files of v1 control groups to write `0` to, `cgroup`
    a cgroup2 directory. `before_exec` is the last thing the child calls.
    """

    path: str
    argv: tuple[str, ...]
    fds: tuple[int, ...]
    entrances: Sequence[str]
    cgroup: str | None
    ceilings: Ceilings
    uid: int | None
    before_exec: Callable[[], None] | None = None


class _CloneArguments(ctypes.Structure):  # struct clone_args, linux/sched.h
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack"),
            *("stack_size", "tls", "set_tid", "set_tid_size", "cgroup"),
        )
    )


def become_subreaper() -> None:
    """Orphaned sandboxes come to this process to be reaped, not to the host's init."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def catch_signals() -> None:
    """Outlive what the gateway is sent, for a moment: its end is the signal to go.

    Signals are caught, not ignored: exec sets what was caught back to its default, but would hand
    on what is ignored, and then a stop could not reach the command. (Python ignores the first two.)
    """
    for number in _CAUGHT_HERE:
        signal.signal(number, lambda *_: None)
    # What whoever started the gateway ignores (a shell does, for what runs beside it) would be
    # ignored by every command too.
    for left in signal.valid_signals() - set(_CAUGHT_HERE):
        if signal.getsignal(left) is signal.SIG_IGN:
            signal.signal(left, signal.SIG_DFL)


def launch(what: Launch) -> int:
    """Fork and exec; give the process id.

    A child that cannot get as far as exec ends with 127, having run nothing.
    """
    parent, uid = os.getpid(), what.uid
    writes = [(os.fsencode(entrance), b"0") for entrance in what.entrances]
    # Under pressure of the host's memory the run goes, not the gateway.
    writes.append((b"/proc/self/oom_score_adj", b"500"))
    limits = _limits(what.ceilings)
    argv = [os.fsencode(each) for each in what.argv]
    path, count, narrow = os.fsencode(what.path), len(what.fds), what.before_exec
    pid = -1 if what.cgroup is None else _fork_into(what.cgroup)
    if pid < 0:
        if what.cgroup is not None:
            writes.insert(0, (os.fsencode(what.cgroup) + b"/cgroup.procs", b"0"))
        pid = os.fork()
    if pid:
        return pid
    try:
        for file, data in writes:
            fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, data)
            os.close(fd)
        # By way of higher numbers, so that none is overwritten before it was copied.
        above = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, count + 3) for fd in what.fds]
        for number in range(count):
            os.dup2(above[number], number)
        os.closerange(count, _MAX_FD)
        for kind, value in limits:
            resource.setrlimit(kind, value)
        os.umask(0o022)
        if uid is not None:
            os.setgroups(())
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        os.setpgid(0, 0)  # by which what it leaves is known to be its own
        _LIBC.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
        if narrow is not None:
            narrow()
        if os.getppid() == parent:
            os.execve(path, argv, {})  # noqa: S606
    finally:
        os._exit(127)


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


def _limits(ceilings: Ceilings) -> list[tuple[int, tuple[int, int]]]:
    """What to set, never above what this process may have itself."""
    wanted = (
        # 1, not 0: the kernel hands no crash to the host's handler then, pipe or file (core(5)).
        (resource.RLIMIT_CORE, 1),
        (resource.RLIMIT_NOFILE, ceilings.open_files),
        (resource.RLIMIT_FSIZE, ceilings.file_bytes),
        (resource.RLIMIT_AS, ceilings.memory_bytes),
        (resource.RLIMIT_NPROC, ceilings.processes),
        (resource.RLIMIT_CPU, ceilings.cpu_seconds),
    )
    limits = []
    for kind, value in wanted:
        if value is not None:
            hard = resource.getrlimit(kind)[1]
            limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
            limits.append((kind, (limit, limit)))
    return limits


def _fork_into(cgroup: str) -> int:
    """Fork straight into a cgroup2 group; -1 where `clone3` is refused.

    Entering by a write to `cgroup.procs` waits for an RCU grace period, 5 ms and more; being born
    inside does not. Python does not see this fork, which is sound for a process of one thread
    whose child only makes system calls and then execs.
    """
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    given = _CloneArguments(flags=_CLONE_INTO_CGROUP, exit_signal=17, cgroup=directory)
    pid = int(_LIBC_HOLDING_GIL.syscall(_SYS_CLONE3, ctypes.byref(given), ctypes.sizeof(given)))
    if pid:
        os.close(directory)
    return pid
