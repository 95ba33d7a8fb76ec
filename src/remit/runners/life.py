"""One run inside the spawner, from the moment it has processes: killed, seen dead, read back,
removed, and reported with the evidence that nothing is left.

Imported by the spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import struct
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from remit.runners import collected
from remit.runners.group import Counters, Group
from remit.runners.holding import Pipe
from remit.runners.recipe import Recipe
from remit.runners.removal import Seen, mounts_naming
from remit.runners.request import Request
from remit.runners.wire import close_all, read_file

HELD_S = 120.0
"""How long a sandbox may wait for its release."""

_RECHECK_S = 0.002
_PATIENCE_S = 2.0


class Loop(Protocol):
    """What a cell needs of the spawner."""

    def watch(self, fd: int, call: Callable[[], None]) -> None: ...
    def forget(self, fd: int) -> None: ...
    def report(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None: ...


class Life:
    """What a cell is after its making; `cell.Cell` makes and starts it."""

    def __init__(
        self,
        loop: Loop,
        request: Request,
        recipe: Recipe,
        group: Group | None,
        uid: int | None,
        *,
        privileged: bool,
    ) -> None:
        self.id = request.lease
        self.name = request.lease
        self.request = request
        self.group = group
        self.uid = uid
        self.place = 0
        self.state = "launched"
        self.why: str | None = None
        self._loop = loop
        self._recipe = recipe
        self._privileged = privileged
        self._deadline = time.monotonic() + min(HELD_S, request.left_s)
        self._kill_at: float | None = None
        self._recheck_at: float | None = None
        self._later: tuple[float, Callable[[], None]] | None = None
        self._end: dict[str, Any] = {}
        self._monitor = self._monitor_fd = self._init = self._init_fd = -1
        self._info = self._block = self._namespace = self._worker_fd = self._orphan = -1
        self._output: Pipe = (-1, -1)
        self._said = b""
        self._informed = False
        self._status: int | None = None
        self._released_at: float | None = None
        self._ended_at = 0.0
        self._seen = Seen()
        self._took: list[int] = []
        self._cpu_before = 0

    def _work(self, child: int, done: Callable[[int], None]) -> None:
        """Wait for a child of this process that works inside the run; one at a time."""
        self._worker_fd = os.pidfd_open(child)

        def ended() -> None:
            _, status = os.waitpid(child, 0)
            self._close_watched("_worker_fd")
            done(status)
            if self.state not in {"ended", "removed"}:
                self._finish_when_dead()

        self._loop.watch(self._worker_fd, ended)

    def refuse(self, op: str, fault: str) -> None:
        self._loop.report({"ev": "refused", "lease": self.id, "op": op, "fault": fault})

    def stop(self, grace_s: float) -> None:
        """TERM to the command's processes now, KILL to all after the grace."""
        if self.state != "running" or grace_s <= 0:
            self.kill("stop")
            return
        if self.why is None:
            self.why = "stop"
            self._kill_at = time.monotonic() + grace_s
            self._terminate()

    def command(self) -> list[int]:
        """The processes of the run that do not make its sandbox."""
        pids = self.group.pids() if self.group is not None else children(self._init)
        return [pid for pid in pids if pid not in {self._monitor, self._init}]

    def _terminate(self) -> None:
        for pid in self._recipe.told_to_end(self.command()):
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(pid)
                try:
                    # The number may be another's by now: look again, with the process pinned.
                    if self.group is None or pid in self.group.pids():
                        signal.pidfd_send_signal(fd, signal.SIGTERM)
                finally:
                    os.close(fd)

    def kill(self, why: str) -> None:
        """KILL everything of this run; the first reason given is the one that is kept."""
        if self.why is None:
            self.why = why
        self._kill_all()

    def _kill_all(self) -> None:
        if self.group is not None:
            self.group.kill()
        for fd in (self._init_fd, self._monitor_fd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)

    # -------------------------------------------------------------------------------- ended

    def _on_monitor_exit(self) -> None:
        if self._init < 0:
            self._find_init()
        _, self._status, _ = os.wait4(self._monitor, 0)
        self._ended_at = time.monotonic()
        self._seen.end(self._ended_at)
        self._close_watched("_monitor_fd")
        if self._orphan >= 0:
            reap(self._orphan)
            os.close(self._orphan)
            self._orphan = -1
        self._finish_when_dead()

    def _find_init(self) -> None:
        """A monitor that died before it was heard of PID 1 has left it to this process: the one
        child of its process group, whose number is not given anew before the monitor is reaped."""
        if not self._informed:
            self._loop.forget(self._info)
            self._informed = True
        self.kill("setup")
        for pid in children_of(os.getpid()):
            with contextlib.suppress(OSError):
                if pid != self._monitor and os.getpgid(pid) == self._monitor:
                    self._init, self._init_fd = pid, os.pidfd_open(pid)
                    self._loop.watch(self._init_fd, self._on_init_exit)
                    return

    def _on_init_exit(self) -> None:
        """PID 1 becomes waitable only when every process of its namespace is gone.

        It comes to this process once the monitor is dead: where that dies after it without having
        waited for it, it is reaped then.
        """
        if not reap(self._init_fd) and self._status is None:
            self._orphan = os.dup(self._init_fd)
        self._close_watched("_init_fd")
        self._finish_when_dead()

    def _finish_when_dead(self) -> None:
        if self._status is None:
            return
        if self._init_fd >= 0 or (self.group is not None and self.group.populated()):
            self._kill_all()
            self._recheck_at = time.monotonic() + _RECHECK_S
            return
        self._recheck_at = None
        self._seen.gone("processes")
        if self._worker_fd >= 0:  # it ends soon, and is in nobody's way: it comes back here
            return
        if self.state not in {"ended", "removed"}:
            self._finish()

    def _finish(self) -> None:
        began, self.state = self._consumed(), "ended"
        self._call_later()
        self._deadline = float("inf")
        self._kill_at = None
        if not self._informed:
            self._loop.forget(self._info)
            self._informed = True
        if began and self.request.collect and self._namespace >= 0:
            with contextlib.suppress(OSError):
                self._read_back()
                return
        self._report_end(began=began, findings=[])

    def _consumed(self) -> bool:
        """Whether bubblewrap took the release byte: if not, the command certainly never ran."""
        return self._released_at is not None and emptied(self._block)

    def _read_back(self) -> None:
        paths, where = self.request.collect, self._recipe.inside(self.name)
        self._took = [os.memfd_create("file", os.MFD_CLOEXEC) for _ in (*paths, "findings")]
        reader = collected.start(
            None if where.shared else self._namespace,
            paths,
            self._took,
            self.uid,
            privileged=self._privileged,
            job=where.job,
        )

        def done(status: int) -> None:
            findings = read_file(self._took[-1], 65_536) if status == 0 else b"[]"
            self._report_end(began=True, findings=json.loads(findings))

        self._work(reader, done)

    def _report_end(self, *, began: bool, findings: list[str]) -> None:
        counters = self.group.counters() if self.group is not None else Counters()
        status = self._status or 0
        signalled = os.WIFSIGNALED(status)
        cpu_us = counters.cpu_us
        self._end = {
            "ev": "ended",
            "lease": self.id,
            "slot": self.slot,
            "began": began,
            "why": self.why,
            "code": None if signalled else os.WEXITSTATUS(status),
            "signal": os.WTERMSIG(status) if signalled else None,
            "wall_us": round((self._ended_at - (self._released_at or self._ended_at)) * 1e6),
            "cpu_us": None if cpu_us is None else max(0, cpu_us - self._cpu_before),
            "peak_bytes": counters.peak_bytes,
            "oom_kills": counters.oom_kills,
            "pids_refused": counters.pids_refused,
            "throttled": counters.throttled,
            "files": [[p, f] for p, f in zip(self.request.collect, findings, strict=False)],
        }
        self._remove()

    # ---------------------------------------------------------------------------- destroyed

    @property
    def slot(self) -> str | None:
        """The slot this run was given, whose name its control group has."""
        return None

    def _remove(self) -> None:
        """Give back what the run held, look that it is gone, and report the end with that."""
        for name in ("_block", "_info", "_namespace"):
            if (fd := getattr(self, name)) >= 0:
                os.close(fd)
                setattr(self, name, -1)
        now = time.monotonic()
        if gone := self.group is None or self.group.remove():
            self._seen.gone("cgroup")
        if cleaned := self._recipe.clean(self.name):
            self._seen.gone("directory")
        if not (gone and cleaned) and now < self._ended_at + _PATIENCE_S:
            self._recheck_at = now + _RECHECK_S
            return
        self.state = "removed"
        message = {**self._end, "evidence": self._evidence(cleaned=cleaned)}
        self._loop.report(message, self._took[: len(self._end["files"])])
        close_all(self._took)

    def _evidence(self, *, cleaned: bool) -> dict[str, Any]:
        left = len(self.group.pids()) if self.group is not None else 0
        return self._seen.evidence(
            processes_left=left + (1 if self._init_fd >= 0 or self._status is None else 0),
            cgroup_removed=self.group is None or not self.group.exists,
            mounts_left=mounts_naming(self.name) + (1 if self._namespace >= 0 else 0),
            directory=cleaned,
        )

    def destroy(self) -> None:
        """Kill what lives; the report of the end carries the evidence."""
        if self.state not in {"ended", "removed"}:
            self.kill("destroy")

    # ------------------------------------------------------------------------------- timers

    def due(self) -> float:
        """When `tick` has something to do next, on the monotonic clock."""
        later = None if self._later is None else self._later[0]
        times = (self._deadline, self._kill_at, self._recheck_at, later)
        return min(when for when in times if when is not None)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, after a while; one at a time, and at the latest at the end."""
        self._later = time.monotonic() + seconds, call

    def _call_later(self) -> None:
        if self._later is not None:
            _, call = self._later
            self._later = None
            call()

    def tick(self, now: float) -> None:
        if self._later is not None and now >= self._later[0]:
            self._call_later()
        if self._recheck_at is not None and now >= self._recheck_at:
            self._recheck_at = None
            if self.state == "ended" and self._worker_fd < 0:
                self._remove()
            else:
                self._finish_when_dead()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._kill_all()
        if now >= self._deadline:
            self._deadline = float("inf")
            self.kill("wall" if self.state == "running" else "held")

    def _close_watched(self, name: str) -> None:
        fd = getattr(self, name)
        self._loop.forget(fd)
        os.close(fd)
        setattr(self, name, -1)


def reap(process: int) -> bool:
    """Take a dead process off the kernel's table; false where it is another's child, or gone."""
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_PIDFD, process, os.WEXITED | os.WNOHANG) is not None
    return False


def children(pid: int) -> list[int]:
    """All processes below one, by the kernel's own list."""
    return [each for child in children_of(pid) for each in (child, *children(child))]


def children_of(pid: int) -> list[int]:
    """The children of a process of one thread, by the kernel's own list; dead ones too."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(each) for each in file.read().split()]
    return []


def emptied(pipe: int) -> bool:
    """Whether all that was written to a pipe or socket was read; of a socket, its reading end."""
    waiting = fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4)
    return bool(struct.unpack("i", waiting)[0] == 0)
