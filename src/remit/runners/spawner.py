"""The spawner: the small process that makes sandboxes, so that the gateway need not.

It is started before the gateway holds secrets or threads, with an empty environment and one
control socket. It has one thread (bubblewrap's `--die-with-parent` is per thread), holds no
secret, and kills everything it made when the gateway's end of the socket closes or the gateway's
process ends, whichever it sees first. Standard library only; started as a file, never imported by
the gateway.

    python -I -S spawner.py CONTROL_FD

It has no parent-death signal of its own: it must outlive the gateway by the moment it takes to
clean up. If it is killed itself, the kernel takes its sandboxes (`--die-with-parent`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

if __name__ == "__main__":  # `-I -S` leaves out every path but the standard library's
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from remit.runners import request as requests
from remit.runners import seccomp
from remit.runners.cell import Cell
from remit.runners.cgroups import Layout, find_layout
from remit.runners.group import Group
from remit.runners.jail import SYSTEM_FILES, base_options, packed
from remit.runners.launch import become_subreaper, catch_signals
from remit.runners.leftovers import sweep
from remit.runners.wire import close_all, receive, sealed_file, send

_LAST_SECONDS = 5.0


class Spawner:
    """Messages in, cells, reports out; one `epoll` and one thread."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._unsent: list[tuple[dict[str, Any], list[int]]] = []
        self._cells: dict[str, Cell] = {}
        self._free: list[int] = []
        self._gone = False
        self._gateway = ""
        self._uid_base: int | None = None
        self._layout = Layout(mode="none")
        self.bwrap = ""
        self.base = b""
        self.seccomp = -1
        self.system_files: Sequence[int] = ()

    # ----------------------------------------------------------------------------- the loop

    def run(self, gateway_pid: int) -> None:
        """Until the gateway is gone and everything it asked for is dead."""
        self._control.setblocking(False)
        self._poll.register(self._control.fileno(), select.EPOLLIN)
        self.watch(os.pidfd_open(gateway_pid), self._leave)
        while not self._gone:
            self._turn()
        until = time.monotonic() + _LAST_SECONDS
        for cell in self._cells.values():
            cell.kill("gateway_gone")
        while self._cells and time.monotonic() < until:
            self._turn()
            self._drop_removed()
        for root in self._layout.roots.values():
            with contextlib.suppress(OSError):
                os.rmdir(root)

    def _turn(self) -> None:
        due = min((cell.due() for cell in self._cells.values()), default=float("inf"))
        left = due - time.monotonic()
        timeout = -1 if due == float("inf") else max(0.0, left)
        for fd, events in self._poll.poll(timeout):
            if fd == self._control.fileno():
                self._on_control(events)
            elif (call := self._calls.get(fd)) is not None:
                call()
        now = time.monotonic()
        for cell in list(self._cells.values()):
            if now >= cell.due():
                cell.tick(now)

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        self._calls[fd] = call
        self._poll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        del self._calls[fd]
        self._poll.unregister(fd)

    def _leave(self) -> None:
        self._gone = True

    # -------------------------------------------------------------------------- the control

    def _on_control(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if not events & ~select.EPOLLOUT or self._gone:
            return
        try:
            received = receive(self._control)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self._leave()
            return
        message, fds = received
        try:
            self._obey(message, fds)
        finally:
            close_all(fds)

    def report(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send, or keep until the gateway reads: deadlines must not wait for it."""
        if self._gone:
            return
        self._unsent.append((message, [os.dup(fd) for fd in fds]))
        self._flush()

    def _flush(self) -> None:
        while self._unsent:
            message, fds = self._unsent[0]
            try:
                send(self._control, message, fds)
            except BlockingIOError:
                break
            except OSError:
                self._leave()
            close_all(fds)
            del self._unsent[0]
        wanted = select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)
        self._poll.modify(self._control.fileno(), wanted)

    def _obey(self, message: dict[str, Any], fds: list[int]) -> None:
        match message.get("op"):
            case "hello":
                self._hello(message)
            case "provision":
                self._provision(message, fds)
            case "sweep":
                self._sweep(message)
            case "start" | "stop" | "kill" | "destroy" as op:
                self._command(op, message)
            case _:
                self._leave()

    def _hello(self, message: dict[str, Any]) -> None:
        self._gateway = requests.identifier(message["gateway"])
        self._layout = find_layout(self._gateway, os.getppid())
        base, most = int(message["uid_base"]), int(message["max_runs"])
        if os.geteuid() == 0 and _exist_here(base, base + most):
            self._uid_base = base
        self._free = list(range(int(message["max_runs"]), 0, -1))
        self.bwrap = str(message["bwrap"])
        self.base = packed(base_options())
        arch = seccomp.ARCHITECTURES.get(platform.machine())
        self.seccomp = sealed_file("seccomp", seccomp.program(arch) if arch else b"")
        self.system_files = tuple(sealed_file(path, data) for path, data in SYSTEM_FILES)
        gc.collect()
        gc.freeze()  # what is allocated by now is shared with each child, not copied
        self.report(
            {
                "ev": "ready",
                "mode": self._layout.mode,
                "roots": dict(self._layout.roots),
                "missing": self._layout.missing,
                "own_uid": self._uid_base is not None,
            }
        )

    # ---------------------------------------------------------------------------- the cells

    def _provision(self, message: dict[str, Any], fds: list[int]) -> None:
        lease = str(message.get("lease"))
        self._drop_removed()
        try:
            request = requests.read(message, mount_uid=self._uid_base)
            if len(fds) != 3 + len(request.files):
                raise ValueError("the descriptors do not match the files")
            if lease in self._cells:
                raise ValueError("this lease has a sandbox already")
            if not self._free:
                raise ValueError("all places for runs are taken")
            slot = self._free.pop()
        except (ValueError, KeyError, TypeError) as exc:
            fault = str(exc) if isinstance(exc, ValueError) else "the request is incomplete"
            self.report({"ev": "refused", "lease": lease, "op": "provision", "fault": fault})
            return
        group = Group(self._layout.roots, lease) if self._layout.roots else None
        cell = Cell(self, request, group, self._uid(slot, mounted=bool(request.mounts)))
        cell.slot = slot
        try:
            cell.launch(self, fds)
        except OSError as exc:
            self._free.append(slot)
            fault = f"a sandbox could not be made ({exc.strerror})"
            self.report({"ev": "refused", "lease": lease, "op": "provision", "fault": fault})
            return
        self._cells[lease] = cell

    def _uid(self, slot: int, *, mounted: bool) -> int | None:
        """Each run its own user; runs with the operator's mounts share one, to which those
        directories can be given."""
        if self._uid_base is None:
            return None
        return self._uid_base if mounted else self._uid_base + slot

    def _command(self, op: str, message: dict[str, Any]) -> None:
        lease = str(message.get("lease"))
        self._drop_removed()
        cell = self._cells.get(lease)
        if cell is None:
            if op == "destroy":
                self._destroy_found(lease)
            else:
                self.report({"ev": "refused", "lease": lease, "op": op})
            return
        match op:
            case "start":
                cell.release()
            case "stop":
                cell.stop(float(message["grace_s"]))
            case "kill":
                cell.kill(str(message["why"]))
            case _:
                cell.destroy()

    def _drop_removed(self) -> None:
        for lease in [lease for lease, cell in self._cells.items() if cell.state == "removed"]:
            self._free.append(self._cells.pop(lease).slot)

    def _destroy_found(self, lease: str) -> None:
        """A lease this process did not make: an earlier spawner's, found by its name."""
        found = sweep(self._layout.roots.values(), only=frozenset({requests.identifier(lease)}))
        self.report({"ev": "destroyed", **found[0]})

    def _sweep(self, message: dict[str, Any]) -> None:
        roots = set(self._layout.roots.values())
        roots |= {str(root) for root in message["roots"] if _ours(str(root), self._gateway)}
        live = frozenset(str(lease) for lease in message["live"]) | frozenset(self._cells)
        also = frozenset(requests.identifier(lease) for lease in message["leases"])
        self.report({"ev": "swept", "found": sweep(roots, live=live, also=also)})


def _ours(root: str, gateway: str) -> bool:
    plain = os.path.normpath(root) == root and root.startswith("/sys/fs/cgroup/")
    return plain and root.endswith(f"/remit-{gateway}")


def _exist_here(first: int, last: int) -> bool:
    """Whether these users and groups exist in this process's user namespace: root of a rootless
    container has few (user_namespaces(7))."""
    return all(
        any(
            int(inside) <= first and last < int(inside) + int(count)
            for inside, _, count in (line.split() for line in open(path))
        )
        for path in ("/proc/self/uid_map", "/proc/self/gid_map")
    )


def main() -> None:
    os.umask(0o077)
    gc.disable()  # few objects, no cycles, and collecting would unshare pages with each child
    catch_signals()
    parent = os.getppid()
    become_subreaper()
    Spawner(socket.socket(fileno=int(sys.argv[1]))).run(parent)


if __name__ == "__main__":
    main()
