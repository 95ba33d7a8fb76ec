"""One run inside the spawner, from its control group to the evidence that nothing is left.

    launched ──info──▶ held ──release──▶ running ──all dead──▶ ended ──▶ removed

`held` is the sandbox with every namespace made and the command not begun: bubblewrap waits on
`--block-fd`. It takes the end of that pipe for a release, so the pipe's write end also goes in as
`--sync-fd`: the sandbox holds it open itself, and the death of spawner and gateway can never be
read as a start. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from remit.runners import collected
from remit.runners.group import Counters, Group
from remit.runners.jail import packed, run_options
from remit.runners.launch import Ceilings, Launch, launch, tasks_of
from remit.runners.request import Request
from remit.runners.wire import close_all, read_file, reopen, sealed_file

_CHILD_PID = re.compile(rb'"child-pid": *([0-9]+)[^0-9]')

HELD_S = 120.0
"""How long a sandbox may wait for its release."""

_RECHECK_S = 0.002
_PATIENCE_S = 2.0


class Loop(Protocol):
    """What a cell needs of the spawner."""

    def watch(self, fd: int, call: Callable[[], None]) -> None: ...
    def forget(self, fd: int) -> None: ...
    def report(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None: ...


class Shared(Protocol):
    """What all cells use: made once when the spawner starts."""

    bwrap: str
    base: bytes
    seccomp: int
    system_files: Sequence[int]


class Cell:
    """One run. Every transition is caused by a message, a descriptor or a timer; none blocks."""

    def __init__(self, loop: Loop, request: Request, group: Group | None, uid: int | None) -> None:
        self.id = request.lease
        self.request = request
        self.group = group
        self.uid = uid
        self.slot = 0
        self.state = "launched"
        self.why: str | None = None
        self._loop = loop
        self._deadline = time.monotonic() + min(HELD_S, request.left_s)
        self._kill_at: float | None = None
        self._recheck_at: float | None = None
        self._end: dict[str, Any] = {}
        self._monitor = self._monitor_fd = self._init = self._init_fd = -1
        self._info = self._block = self._namespace = self._reader_fd = -1
        self._said = b""
        self._informed = False
        self._status: int | None = None
        self._released_at: float | None = None
        self._ended_at = 0.0
        self._took: list[int] = []

    # ------------------------------------------------------------------------------- set up

    def launch(self, shared: Shared, fds: Sequence[int]) -> None:
        """Make the group and start bubblewrap up to its block; `fds` are stdio and the files.

        Raises:
            OSError: a limit could not be set or a process not made; nothing is left.
        """
        own: list[int] = []
        try:
            if self.group is not None:
                self.group.create(self.request.group_limits())
            block_r, self._block = os.pipe()
            own.append(block_r)
            self._info, info_w = os.pipe()
            own.append(info_w)
            options = shared.base + packed(run_options(self.request.jail()))
            own.append(sealed_file("options", options))
            own += [reopen(fd) for fd in (shared.seccomp, *shared.system_files)]
            # The order is that of the numbers in `jail`: block, sync, info, args, seccomp, files.
            inside = (*fds[:3], own[0], self._block, *own[1:], *fds[3:])
            self._monitor = launch(self._launch(shared.bwrap, inside))
        except OSError:
            close_all([fd for fd in (self._block, self._info) if fd >= 0])
            if self.group is not None:
                self.group.remove()
            raise
        finally:
            close_all(own)
        self._monitor_fd = os.pidfd_open(self._monitor)
        os.set_blocking(self._info, False)
        self._loop.watch(self._info, self._on_info)
        self._loop.watch(self._monitor_fd, self._on_monitor_exit)

    def _launch(self, bwrap: str, inside: tuple[int, ...]) -> Launch:
        return Launch(
            bwrap=bwrap,
            argv=self.request.argv,
            fds=inside,
            entrances=self.group.entrances() if self.group else (),
            cgroup=self.group.unified if self.group else None,
            ceilings=self._ceilings(),
            uid=self.uid,
        )

    def _ceilings(self) -> Ceilings:
        request, held = self.request, self.group is not None
        return Ceilings(
            open_files=request.open_files,
            file_bytes=2 * request.tmp_bytes,  # above the tmpfs, which is to say ENOSPC first
            memory_bytes=None if held else request.memory_bytes,
            processes=None if held else tasks_of(self.uid) + request.pids + 2,
            cpu_seconds=None if held else request.wall_s,
        )

    def _on_info(self) -> None:
        """bubblewrap tells PID 1's number once the namespaces exist; it comes in pieces.

        The number is whole once something follows it. The pipe stays open, unread: closing it
        would kill bubblewrap by SIGPIPE.
        """
        part = os.read(self._info, 4096)
        self._said += part
        told = _CHILD_PID.search(self._said)
        if part and told is None:
            return
        self._loop.forget(self._info)
        self._informed = True
        try:
            if told is None:
                raise ValueError("bubblewrap ended before it told its child")
            self._init = int(told[1])
            self._init_fd = os.pidfd_open(self._init)
            if self.request.collect:
                self._namespace = os.open(f"/proc/{self._init}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except (ValueError, OSError):
            self.kill("setup")
            return
        self._loop.watch(self._init_fd, self._on_init_exit)
        if self.state == "launched":
            self.state = "held"
            self._loop.report({"ev": "provisioned", "lease": self.id})

    # --------------------------------------------------------------------------------- run

    def release(self) -> None:
        """Let the command go, once."""
        if self.state != "held" or self.why is not None:
            self._loop.report({"ev": "refused", "lease": self.id, "op": "start"})
            return
        try:
            os.write(self._block, b"1")
        except OSError:  # nobody is left to read it; the end is about to be reported
            self._loop.report({"ev": "refused", "lease": self.id, "op": "start"})
            return
        self.state = "running"
        self._released_at = time.monotonic()
        self._deadline = self._released_at + min(float(self.request.wall_s), self.request.left_s)
        self._loop.report({"ev": "started", "lease": self.id})

    def stop(self, grace_s: float) -> None:
        """TERM to the command's processes now, KILL to all after the grace."""
        if self.state != "running" or grace_s <= 0:
            self.kill("stop")
            return
        if self.why is None:
            self.why = "stop"
            self._kill_at = time.monotonic() + grace_s
            self._terminate()

    def _terminate(self) -> None:
        pids = self.group.pids() if self.group is not None else _children(self._init)
        for pid in pids:
            if pid in {self._monitor, self._init}:
                continue
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
        _, self._status, _ = os.wait4(self._monitor, 0)
        self._ended_at = time.monotonic()
        self._close_watched("_monitor_fd")
        self._finish_when_dead()

    def _on_init_exit(self) -> None:
        """PID 1 becomes waitable only when every process of its namespace is gone."""
        self._close_watched("_init_fd")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._init, os.WNOHANG)
        self._finish_when_dead()

    def _finish_when_dead(self) -> None:
        if self._status is None:
            return
        if self._init_fd >= 0 or (self.group is not None and self.group.populated()):
            self._kill_all()
            self._recheck_at = time.monotonic() + _RECHECK_S
            return
        self._recheck_at = None
        if self.state in {"launched", "held", "running"}:
            self._finish()

    def _finish(self) -> None:
        began, self.state = self._consumed(), "ended"
        self._deadline = float("inf")
        self._kill_at = None
        if not self._informed:
            self._loop.forget(self._info)
            self._informed = True
        if began and self._namespace >= 0:
            with contextlib.suppress(OSError):
                self._read_back()
                return
        self._report_end(began=began, findings=[])

    def _consumed(self) -> bool:
        """Whether bubblewrap took the release byte: if not, the command certainly never ran."""
        if self._released_at is None:
            return False
        waiting = fcntl.ioctl(self._block, termios.FIONREAD, b"\0" * 4)
        return bool(struct.unpack("i", waiting)[0] == 0)

    def _read_back(self) -> None:
        paths = self.request.collect
        self._took = [os.memfd_create("file", os.MFD_CLOEXEC) for _ in (*paths, "findings")]
        reader = collected.start(self._namespace, paths, self._took, self.uid)
        self._reader_fd = os.pidfd_open(reader)

        def done() -> None:
            _, status = os.waitpid(reader, 0)
            self._close_watched("_reader_fd")
            findings = read_file(self._took[-1], 65_536) if status == 0 else b"[]"
            self._report_end(began=True, findings=json.loads(findings))

        self._loop.watch(self._reader_fd, done)

    def _report_end(self, *, began: bool, findings: list[str]) -> None:
        counters = self.group.counters() if self.group is not None else Counters()
        status = self._status or 0
        signalled = os.WIFSIGNALED(status)
        self._end = {
            "ev": "ended",
            "lease": self.id,
            "began": began,
            "why": self.why,
            "code": None if signalled else os.WEXITSTATUS(status),
            "signal": os.WTERMSIG(status) if signalled else None,
            "wall_us": round((self._ended_at - (self._released_at or self._ended_at)) * 1e6),
            "cpu_us": counters.cpu_us,
            "peak_bytes": counters.peak_bytes,
            "oom_kills": counters.oom_kills,
            "pids_refused": counters.pids_refused,
            "throttled": counters.throttled,
            "files": [[p, f] for p, f in zip(self.request.collect, findings, strict=False)],
        }
        self._remove()

    # ---------------------------------------------------------------------------- destroyed

    def _remove(self) -> None:
        """Give back what the run held, look that it is gone, and report the end with that."""
        for name in ("_block", "_info", "_namespace"):
            if (fd := getattr(self, name)) >= 0:
                os.close(fd)
                setattr(self, name, -1)
        now = time.monotonic()
        gone = self.group is None or self.group.remove()
        if not gone and now < self._ended_at + _PATIENCE_S:
            self._recheck_at = now + _RECHECK_S
            return
        self.state = "removed"
        message = {**self._end, "evidence": self._evidence()}
        self._loop.report(message, self._took[: len(self._end["files"])])
        close_all(self._took)

    def _evidence(self) -> dict[str, Any]:
        left = len(self.group.pids()) if self.group is not None else 0
        return {
            "processes_left": left + (1 if self._init_fd >= 0 or self._status is None else 0),
            "cgroup_removed": self.group is None or not self.group.exists,
            "mounts_left": mounts_naming(self.id) + (1 if self._namespace >= 0 else 0),
            "took_us": round((time.monotonic() - self._ended_at) * 1e6),
        }

    def destroy(self) -> None:
        """Kill what lives; the report of the end carries the evidence."""
        if self.state not in {"ended", "removed"}:
            self.kill("destroy")

    # ------------------------------------------------------------------------------- timers

    def due(self) -> float:
        """When `tick` has something to do next, on the monotonic clock."""
        times = (self._deadline, self._kill_at, self._recheck_at)
        return min(when for when in times if when is not None)

    def tick(self, now: float) -> None:
        if self._recheck_at is not None and now >= self._recheck_at:
            self._recheck_at = None
            if self.state == "ended" and self._reader_fd < 0:
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


def _children(pid: int) -> list[int]:
    """All processes below one, by the kernel's own list."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            direct = [int(each) for each in file.read().split()]
        for child in direct:
            found += [child, *_children(child)]
    return found


def mounts_naming(lease: str) -> int:
    """How many mounts of the host name this lease."""
    fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_file(fd, 1 << 22).count(lease.encode("ascii"))
    finally:
        os.close(fd)
