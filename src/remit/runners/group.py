"""The control group of one run: made with its limits, joined before exec, killed whole, removed.

Imported by the spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from remit.runners.cgroups import DISKS, UNIFIED, write
from remit.runners.disks import disks_behind

_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """`io_bytes_per_s` is of reads and of writes each, on the disks behind `io_paths`; `io_writes`
    says that there is something on a disk that can be written to. `own_processes` are those that
    a run needs beside its command's, which its limit must not count."""

    memory_bytes: int
    pids: int
    cpu_percent: int
    io_bytes_per_s: int | None = None
    io_paths: tuple[str, ...] = ()
    io_writes: bool = False
    own_processes: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the kernel counted for a run; None where this mode does not count it."""

    oom_kills: int = 0
    pids_refused: int = 0
    throttled: int = 0
    cpu_us: int | None = None
    peak_bytes: int | None = None


class Group:
    """One run's directories, one in each hierarchy of the layout."""

    def __init__(self, roots: Mapping[str, str], lease: str) -> None:
        self._second = "memory" not in roots
        self._paths = {name: f"{root}/{lease}" for name, root in roots.items()}
        self._disks = self._paths.pop(DISKS, None)
        self._events: int | None = None

    @property
    def exists(self) -> bool:
        return any(os.path.isdir(path) for path in self._all())

    def _all(self) -> list[str]:
        return [*self._paths.values(), *([] if self._disks is None else [self._disks])]

    def create(self, limits: GroupLimits) -> None:
        """Make the directories and write the limits.

        Raises:
            OSError: a directory is there already, or a limit cannot be written.
            ValueError: reads and writes cannot be limited here as they are to be.
        """
        if limits.io_bytes_per_s is None:
            self._disks = None  # one hierarchy less to enter and to leave
        for path in self._all():
            os.mkdir(path, 0o755)
        if limits.io_bytes_per_s is not None:
            self._limit_disks(limits, str(limits.io_bytes_per_s))
        self.limit(limits)

    def _limit_disks(self, limits: GroupLimits, rate: str) -> None:
        """For a group's whole life: what has begun to be written is not slowed afterwards."""
        disks = disks_behind(limits.io_paths)
        if self._second:
            for disk in disks:
                write(f"{self._paths[UNIFIED]}/io.max", f"{disk} rbps={rate} wbps={rate}")
            return
        if self._disks is None:
            raise ValueError("there is no control group in which reads of disks can be limited")
        if limits.io_writes:
            raise ValueError("cgroup v1 cannot limit writes that go by the page cache")
        for disk in disks:
            write(f"{self._disks}/blkio.throttle.read_bps_device", f"{disk} {rate}")
            write(f"{self._disks}/blkio.throttle.write_bps_device", f"{disk} {rate}")

    def limit(self, limits: GroupLimits) -> None:
        """Write the limits, of a group that may have processes already.

        Raises:
            OSError: one cannot be written, for example below what is in use.
        """
        pids = str(limits.pids + limits.own_processes)
        quota = str(limits.cpu_percent * _PERIOD_US // 100)
        memory = str(limits.memory_bytes)
        if self._second:
            own = self._paths[UNIFIED]
            write(f"{own}/memory.max", memory)
            self._optional(f"{own}/memory.swap.max", "0")
            self._optional(f"{own}/memory.oom.group", "1")
            write(f"{own}/pids.max", pids)
            write(f"{own}/cpu.max", f"{quota} {_PERIOD_US}")
            return
        self._limit_memory(self._paths["memory"], memory)
        write(f"{self._paths['pids']}/pids.max", pids)
        write(f"{self._paths['cpu']}/cpu.cfs_quota_us", quota)

    def _limit_memory(self, own: str, memory: str) -> None:
        """Memory, swap with it, and apart from both what waits in sockets of TCP and UDP, which
        version 1 does not even count before it is limited."""
        both = f"{own}/memory.memsw.limit_in_bytes"
        try:
            write(f"{own}/memory.limit_in_bytes", memory)
        except OSError:
            # Not above what was allowed with swap until now: that has to be raised first.
            self._optional(both, memory)
            write(f"{own}/memory.limit_in_bytes", memory)
        self._optional(both, memory)
        self._optional(f"{own}/memory.kmem.tcp.limit_in_bytes", memory)

    @staticmethod
    def _optional(path: str, text: str) -> None:
        """A file that kernels without swap accounting lack; then there is no swap to limit."""
        with contextlib.suppress(FileNotFoundError):
            write(path, text)

    @property
    def unified(self) -> str | None:
        """The cgroup2 directory, which a process enters by being forked into it."""
        return self._paths.get(UNIFIED)

    def entrances(self) -> list[str]:
        """The files of v1 groups to write `0` to, from the single-threaded process that is to enter.

        v1's `tasks` moves one thread without waiting for an RCU grace period, as `cgroup.procs`
        may; for a process of one thread they do the same.
        """
        own = self._paths.get(UNIFIED)
        return [f"{path}/tasks" for path in self._all() if path != own]

    def pids(self) -> list[int]:
        """The processes in the group now."""
        path = self._paths.get(UNIFIED) or self._paths["pids"]
        return [int(pid) for pid in _lines(f"{path}/cgroup.procs")]

    def kill(self) -> None:
        """SIGKILL everything in it; without `cgroup.kill` this must be repeated until empty."""
        if UNIFIED in self._paths:
            with contextlib.suppress(FileNotFoundError):
                write(f"{self._paths[UNIFIED]}/cgroup.kill", "1")
            return
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def events_fd(self) -> int | None:
        """A descriptor that polls POLLPRI when the group becomes empty; None in mode v1."""
        if UNIFIED in self._paths and self._events is None:
            with contextlib.suppress(OSError):
                path = f"{self._paths[UNIFIED]}/cgroup.events"
                self._events = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._events

    def populated(self) -> bool:
        """Whether anything lives in it; reading also arms `events_fd` again."""
        if (fd := self.events_fd()) is not None:
            with contextlib.suppress(OSError):
                return b"populated 1" in os.pread(fd, 4096, 0)
            return False
        return bool(self.pids())

    def counters(self) -> Counters:
        own = self._paths.get(UNIFIED)
        stat = _table(f"{own}/cpu.stat") if own else {}
        if self._second:
            return Counters(
                oom_kills=_table(f"{own}/memory.events").get("oom_kill", 0),
                pids_refused=_table(f"{own}/pids.events").get("max", 0),
                throttled=stat.get("nr_throttled", 0),
                cpu_us=stat.get("usage_usec"),
                peak_bytes=_number(f"{own}/memory.peak"),
            )
        memory = self._paths["memory"]
        return Counters(
            oom_kills=_table(f"{memory}/memory.oom_control").get("oom_kill", 0),
            pids_refused=_table(f"{self._paths['pids']}/pids.events").get("max", 0),
            throttled=_table(f"{self._paths['cpu']}/cpu.stat").get("nr_throttled", 0),
            cpu_us=stat.get("usage_usec"),
            peak_bytes=_number(f"{memory}/memory.max_usage_in_bytes"),
        )

    def remove(self) -> bool:
        """Remove the directories, and whatever groups are below; whether all are gone."""
        if self._events is not None:
            os.close(self._events)
            self._events = None
        gone = [_remove(path) for path in self._all()]
        return all(gone)


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        for entry in _directories(path):
            _remove(entry)
        with contextlib.suppress(OSError):
            os.rmdir(path)
    return not os.path.isdir(path)


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _lines(path: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return os.read(fd, 1 << 20).decode("ascii").split("\n")[:-1]
    except OSError:
        return []
    finally:
        os.close(fd)


def _table(path: str) -> dict[str, int]:
    pairs = (line.split(None, 1) for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: str) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None
