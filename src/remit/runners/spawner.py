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
import functools
import gc
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

if __name__ == "__main__":  # `-I -S` leaves out every path but the standard library's
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from remit.runners import landlock, seccomp, stdio
from remit.runners import request as requests
from remit.runners.bases import Base, Bases
from remit.runners.cell import Cell
from remit.runners.cgroups import Layout, find_layout
from remit.runners.control import FAULTS, Control
from remit.runners.group import Group
from remit.runners.images import unmountable
from remit.runners.jail import SYSTEM_FILES
from remit.runners.launch import become_subreaper, catch_signals
from remit.runners.leftovers import Ground, sweep
from remit.runners.mounts import NAME
from remit.runners.recipe import Recipe
from remit.runners.recipe_bwrap import Bubble
from remit.runners.recipe_gvisor import Gvisor
from remit.runners.request import BaseWanted, Request
from remit.runners.slot import Slot
from remit.runners.users import Users, find_users
from remit.runners.wire import close_all, have_descriptors, sealed_file

_LAST_SECONDS = 5.0


_C = TypeVar("_C", bound=Cell)


class Spawner(Control):
    """Messages in, cells, reports out; one `epoll` and one thread."""

    def __init__(self, control: socket.socket) -> None:
        super().__init__(control)
        self._cells: dict[str, Cell] = {}
        self._free: list[int] = []
        self._gateway = ""
        self._users = Users()
        self._layout = Layout(mode="none")
        self._state: str | None = None
        self._bwrap = ""
        self._runsc: tuple[str, str] | None = None
        self._seccomp = self._modes = -1
        self._system_files: Sequence[int] = ()
        self._bases = Bases(self)
        self._recipes: dict[tuple[str, BaseWanted], Recipe] = {}

    # ----------------------------------------------------------------------------- the loop

    def run(self, gateway_pid: int) -> None:
        """Until the gateway is gone and everything it asked for is dead."""
        self.listen(gateway_pid)
        while not self._gone:
            self._turn()
        until = time.monotonic() + _LAST_SECONDS
        for cell in self._cells.values():
            cell.kill("gateway_gone")
        self._drop_removed()
        while self._cells and time.monotonic() < until:
            self._turn(until=until)
            self._drop_removed()
        for root in self._layout.roots.values():
            with contextlib.suppress(OSError):
                os.rmdir(root)

    def _turn(self, *, until: float = float("inf")) -> None:
        self.turn(self._cells.values(), until=until)
        now = time.monotonic()
        for cell in list(self._cells.values()):
            if now >= cell.due():
                cell.tick(now)

    def obey(self, message: dict[str, Any], fds: list[int]) -> None:
        match message.get("op"):
            case "hello":
                self._hello(message)
            case "provision":
                self._provision(message, fds)
            case "park":
                self._park(message, fds)
            case "claim":
                self._claim(message, fds)
            case "sweep":
                self._sweep(message)
            case "start" | "stop" | "kill" | "destroy" as op:
                self._command(op, message, fds)
            case _:
                self.leave()

    def _hello(self, message: dict[str, Any]) -> None:
        self._gateway = requests.identifier(message["gateway"])
        self._layout = find_layout(self._gateway, os.getppid())
        self._state = None if message.get("state") is None else str(message["state"])
        most = int(message["max_runs"]) + int(message.get("max_slots", 0))
        self._users = find_users(int(message["uid_base"]), most)
        self._free = list(range(most, 0, -1))
        self._bwrap = str(message["bwrap"])
        if (runsc := message.get("runsc")) is not None:
            self._runsc = str(runsc["path"]), str(runsc["platform"])
        arch = seccomp.ARCHITECTURES.get(platform.machine())
        self._seccomp = sealed_file("seccomp", seccomp.program(arch) if arch else b"")
        modes = seccomp.program_of_modes(arch) if arch else b""
        self._modes = sealed_file("modes", modes)
        self._system_files = tuple(sealed_file(path, data) for path, data in SYSTEM_FILES)
        fault = unmountable()
        gc.collect()
        gc.freeze()  # what is allocated by now is shared with each child, not copied
        self.report(
            {
                "ev": "ready",
                "mode": self._layout.mode,
                "io": self._layout.io,
                "roots": dict(self._layout.roots),
                "missing": self._layout.missing,
                "own_uid": self._users.kind != "one",
                "uids": self._users.kind,
                "images": fault is None,
                "image_fault": fault,
                "landlock": list(landlock.holding()),
            }
        )

    def _recipe(self, request: Request, base: Base) -> Recipe:
        """What makes this run's environment; one object for all runs of a runner and base.

        Raises:
            ValueError: there is no such runner.
        """
        key = (request.runner, request.base)
        if (known := self._recipes.get(key)) is None:
            known = self._recipes[key] = self._new_recipe(request.runner, base)
        return known

    def _new_recipe(self, runner: str, base: Base) -> Recipe:
        if runner == "gvisor" and self._runsc is not None:
            path, system = self._runsc
            return Gvisor(
                bwrap=self._bwrap, runsc=path, platform=system, base=base, modes=self._modes
            )
        if runner != "sandbox":
            raise ValueError("there is no such runner")
        return Bubble(
            bwrap=self._bwrap,
            base=base,
            seccomp=self._seccomp,
            system_files=self._system_files,
        )

    # ---------------------------------------------------------------------------- the cells

    def _provision(self, message: dict[str, Any], fds: list[int]) -> None:
        def stand_up(request: Request, base: Base, given: Sequence[int]) -> None:
            if len(given) != request.streams + len(request.files) + request.egress:
                raise ValueError("the descriptors do not match the files")
            cell = self._new(Cell, request, base)
            self._keep(cell, lambda: self._launch(cell, given))

        read = functools.partial(requests.read, message, **self._around())
        self._make(message, fds, read, stand_up)

    def _launch(self, cell: Cell, given: Sequence[int]) -> None:
        """Have a run made with the streams that were given, or that are made for it alone."""
        if not cell.request.dialogue:
            stdio.check_input(given[0])
            stdio.check_outputs(given[1:3])
            cell.launch(given)
            return
        stdio.check_outputs(given[:1])
        made = stdio.make()
        try:
            try:
                self.report({"ev": "piped", "lease": cell.id}, made.speaker)
            finally:  # before anything is forked that would have them too
                close_all(made.speaker)
            cell.launch((*made.run, *given))
        finally:
            close_all(made.run)

    def _park(self, message: dict[str, Any], fds: list[int]) -> None:
        def stand_up(request: Request, base: Base, given: Sequence[int]) -> None:
            if len(given) != 2 + request.egress:
                raise ValueError("the descriptors do not match")
            stdio.check_outputs(given[:2])
            slot = self._new(Slot, request, base)
            self._keep(slot, lambda: slot.park(str(message.get("kind")), given))

        read = functools.partial(requests.read_park, message, **self._around())
        self._make(message, fds, read, stand_up)

    def _around(self) -> dict[str, Any]:
        """What mounts are judged by."""
        return {"mount_uid": self._users.mounting, "state": self._state}

    def _make(
        self,
        message: dict[str, Any],
        fds: Sequence[int],
        read: Callable[[], Request],
        stand_up: Callable[[Request, Base, Sequence[int]], None],
    ) -> None:
        """Make a cell now, or once its base was checked; or refuse."""
        self._drop_removed()
        op, lease = str(message["op"]), str(message.get("lease"))
        try:
            request = read()
            if (base := self._bases.find(request.base)) is not None:
                stand_up(request, base, fds)
                return
            kept = [os.dup(fd) for fd in fds]
        except FAULTS as exc:
            self._refuse(op, lease, exc)
            return

        def checked(found: Base | str) -> None:
            try:
                if isinstance(found, Base):
                    stand_up(request, found, kept)
                else:
                    self._refuse(op, lease, ValueError(found))
            except FAULTS as exc:
                self._refuse(op, lease, exc)
            finally:
                close_all(kept)

        self._bases.check(request.base, self._users.of(1, mounted=False), checked)

    def _new(self, kind: type[_C], request: Request, base: Base) -> _C:
        """A cell in a place that was free; nothing of it exists yet."""
        if request.lease in self._cells:
            raise ValueError("this lease has a sandbox already")
        if not self._free:
            raise ValueError("all places for runs are taken")
        recipe = self._recipe(request, base)
        group = Group(self._layout.roots, request.lease) if self._layout.roots else None
        place = self._free.pop()
        uid = self._users.of(place, mounted=bool(request.mounts))
        cell = kind(self, request, recipe, group, uid, privileged=self._users.privileged)
        cell.place = place
        return cell

    def _keep(self, cell: Cell, made: Callable[[], None]) -> None:
        try:
            made()
        except (OSError, ValueError):
            self._free.append(cell.place)
            raise
        self._cells[cell.name] = cell

    def _refuse(self, op: str, lease: str, exc: Exception) -> None:
        """Refuse with a reason that names no value of the message."""
        if isinstance(exc, OSError):
            fault = f"a sandbox could not be made ({exc.strerror})"
        else:
            fault = str(exc) if isinstance(exc, ValueError) else "the request is incomplete"
        self.report({"ev": "refused", "lease": lease, "op": op, "fault": fault})

    def _claim(self, message: dict[str, Any], fds: list[int]) -> None:
        self._drop_removed()
        lease, name = str(message.get("lease")), str(message.get("slot"))
        slot = self._cells.get(name)
        try:
            if not isinstance(slot, Slot):
                raise ValueError("there is no such slot")  # noqa: TRY004
            if lease in self._cells:
                raise ValueError("this lease has a sandbox already")
            request = requests.read_claim(message, slot.request)
            if len(fds) != 1 + len(request.files):
                raise ValueError("the descriptors do not match the files")
            slot.claim(request, fds)
        except FAULTS as exc:
            if isinstance(slot, Slot):
                slot.kill("claim")
            self._refuse("claim", lease, exc)
            return
        self._cells[lease] = self._cells.pop(name)

    def _command(self, op: str, message: dict[str, Any], fds: list[int]) -> None:
        lease = str(message.get("lease"))
        self._drop_removed()
        cell = self._cells.get(lease)
        if cell is None:
            if op == "destroy":
                self._destroy_found(lease)
            else:
                self.report({"ev": "refused", "lease": lease, "op": op, "fault": "no sandbox"})
            return
        match op:
            case "start":
                names = [str(name) for name in message.get("credentials", [])]
                if len(names) != len(fds) or not all(map(NAME.fullmatch, names)):
                    cell.refuse("start", "the credentials do not match their descriptors")
                    return
                cell.start(names, fds)
            case "stop":
                cell.stop(float(message["grace_s"]))
            case "kill":
                cell.kill(str(message["why"]))
            case _:
                cell.destroy()

    def _drop_removed(self) -> None:
        for lease in [lease for lease, cell in self._cells.items() if cell.state == "removed"]:
            self._free.append(self._cells.pop(lease).place)

    def _ground(self, roots: Sequence[str] = ()) -> Ground:
        ours = [root for root in roots if _ours(root, self._gateway)]
        return Ground(roots={*self._layout.roots.values(), *ours}, state=self._state)

    def _destroy_found(self, lease: str) -> None:
        """A lease this process did not make: an earlier spawner's, found by its name."""
        try:
            only = frozenset({requests.identifier(lease)})
        except ValueError as exc:
            self._refuse("destroy", lease, exc)
            return
        found = sweep(self._ground(), only=only)
        self.report({"ev": "destroyed", **found[0]})

    def _sweep(self, message: dict[str, Any]) -> None:
        held = {name for cell in self._cells.values() for name in (cell.id, cell.name)}
        live = frozenset(str(lease) for lease in message["live"]) | held
        also = frozenset(requests.identifier(lease) for lease in message["leases"])
        ground = self._ground([str(root) for root in message["roots"]])
        self.report({"ev": "swept", "found": sweep(ground, live=live, also=also)})


def _ours(root: str, gateway: str) -> bool:
    plain = os.path.normpath(root) == root and root.startswith("/sys/fs/cgroup/")
    return plain and root.endswith(f"/remit-{gateway}")


def main() -> None:
    os.umask(0o077)
    have_descriptors()
    gc.disable()  # few objects, no cycles, and collecting would unshare pages with each child
    catch_signals()
    parent = os.getppid()
    become_subreaper()
    Spawner(socket.socket(fileno=int(sys.argv[1]))).run(parent)


if __name__ == "__main__":
    main()
