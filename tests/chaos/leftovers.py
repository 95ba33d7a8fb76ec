"""Looks for all that a gateway and its runs could leave: it believes nothing but the machine.

Only what is of one gateway is found: by its id (control groups), by its data directory (files, mounts,
sockets, open files), and by users that only its runs, its keeper and its proxy have (processes,
namespaces, connections). Whatever else goes on on the machine is nobody's business here.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import namespaces

_LISTENS, _TIME_WAIT = "0A", "06"


def no_credentials() -> Collection[str]:
    """For gateways that lend nothing."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What things of one gateway are known by.

    Args:
        data: its data directory, in one whose name nothing else on this machine has.
        gateway: its id.
        users: host users that nobody else has; empty where runs have the gateway's own, which are
            then known by their control groups and by whose children they are.
        lent: what the lending system says is still out.
        ours: children of this process that are none of the gateway's.
    """

    data: Path
    gateway: str
    users: range = range(0)
    lent: Callable[[], Collection[str]] = no_credentials
    ours: frozenset[int] = field(default_factory=frozenset)


def left(
    own: Own,
    *,
    alive: int | None = None,
    slots: int = 0,
    notes: bool = True,
    within_s: float = 15.0,
) -> list[str]:
    """What is still there after so long; empty as soon as there is nothing.

    Args:
        alive: the gateway's process, if it lives: it and its own children may be there.
        slots: how many slots may wait.
        notes: whether lease files count, which a killed gateway leaves for the next to read.
    """
    until = time.monotonic() + within_s
    while (found := find(own, alive=alive, slots=slots, notes=notes)) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def find(own: Own, *, alive: int | None = None, slots: int = 0, notes: bool = True) -> list[str]:
    """One look: a line for each thing that should not be there, its sort first."""
    look = _Look(own, alive, slots)
    return [
        *look.groups(),
        *look.processes(),
        *look.mounts(),
        *look.namespaces(),
        *look.directories(("slots", "leases", "bases") if notes else ("slots", "bases")),
        *look.loans(),
        *look.sockets(),
        *(f"credential still lent: {each}" for each in own.lent()),
    ]


class _Look:
    """One look at the machine: what may be there is decided first."""

    def __init__(self, own: Own, alive: int | None, slots: int) -> None:
        self._own = own
        self._alive = alive
        self._slots = slots
        self._groups = sorted(_groups(own.gateway))
        waiting = sorted({path.name for path in self._groups if path.name.startswith("slot-")})
        self._waiting = frozenset(waiting[:slots])
        self._inside = {path: _processes(path) for path in self._groups}
        self._family = set() if alive is None else {alive, *children_of(alive)}
        waits = [pids for path, pids in self._inside.items() if path.name in self._waiting]
        self._waits = frozenset(pid for pids in waits for pid in pids)

    def groups(self) -> Iterator[str]:
        for path in self._groups:
            if path.name not in self._waiting and (self._alive is None or not _is_root(path)):
                yield f"control group {path}"

    def processes(self) -> Iterator[str]:
        inside = {pid for pids in self._inside.values() for pid in pids}
        strays = adopted(self._own.ours | self._family)
        for pid in _pids() - self._family - self._waits - {os.getpid()}:
            why = [
                word
                for word, holds in (
                    ("adopted", pid in strays),
                    ("in a control group", pid in inside),
                    ("of a run's user", bool(self._own.users) and _user(pid) in self._own.users),
                    ("in the data directory", _opens(pid, self._own.data)),
                )
                if holds
            ]
            if why:
                yield f"process {pid} ({', '.join(why)}): {about(pid)}"

    def mounts(self) -> Iterator[str]:
        """In the mount table of every process that is none of a waiting slot's."""
        named = (self._own.data.parent.name, f"remit-{self._own.gateway}")
        seen: set[int] = set()
        for pid in _pids() - self._waits:
            with contextlib.suppress(OSError):
                table = os.stat(f"/proc/{pid}/ns/mnt").st_ino
                if table in seen:
                    continue
                seen.add(table)
                for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
                    if any(word in line for word in named):
                        yield f"mount, seen by process {pid}: {line}"

    def namespaces(self) -> Iterator[str]:
        if not self._own.users:
            return
        allowed = namespaces.members(self._waits)
        made = namespaces.made_by(self._own.users, self._family)
        for inode, holders in made.items():
            if inode not in allowed:
                yield from (f"namespace {inode} {each}" for each in sorted(holders))

    def directories(self, folders: Sequence[str]) -> Iterator[str]:
        for folder in folders:
            for path in _inside(self._own.data / "runners" / folder):
                if path.name not in self._waiting:
                    yield f"directory: {path}"

    def loans(self) -> Iterator[str]:
        for path in _inside(self._own.data / "keeper" / "loans"):
            yield f"credential in the keeper's journal: {path.name}"

    def sockets(self) -> Iterator[str]:
        for line in Path("/proc/net/unix").read_text().splitlines():
            if str(self._own.data) in line:
                yield f"socket: {line}"
        for kind in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
                fields = line.split()
                if self._theirs(state=fields[3], user=int(fields[7])):
                    yield f"socket: {kind} {line.strip()}"

    def _theirs(self, *, state: str, user: int) -> bool:
        """While the gateway lives, its keeper may keep a connection to a lending system open."""
        keeps = self._alive is not None and state != _LISTENS
        keeper = self._own.users.start + 1
        return user in self._own.users and state != _TIME_WAIT and not (keeps and user == keeper)


def _groups(gateway: str) -> Iterator[Path]:
    for folder, below, _ in os.walk("/sys/fs/cgroup"):
        if Path(folder).name == f"remit-{gateway}":
            yield Path(folder)
            yield from (Path(folder) / name for name in below)


def _is_root(path: Path) -> bool:
    return path.name.startswith("remit-")


def _processes(group: Path) -> frozenset[int]:
    with contextlib.suppress(OSError):
        return frozenset(map(int, (group / "cgroup.procs").read_text().split()))
    return frozenset()


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def children_of(pid: int) -> set[int]:
    """The processes that one started and that live, or are not reaped."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that ended has left its children
                found |= set(map(int, (task / "children").read_text().split()))
    return found


def children() -> frozenset[int]:
    """This process's own."""
    return frozenset(children_of(os.getpid()))


def adopted(known: Collection[int]) -> set[int]:
    """Children of this process that it did not start, and that live; dead ones are reaped."""
    found: set[int] = set()
    for pid in children() - frozenset(known):
        with contextlib.suppress(OSError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                found.add(pid)
    return found


def _user(pid: int) -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Uid:")).split()[2])
    return -1


def _opens(pid: int, data: Path) -> bool:
    """Whether it has something below the data directory open, or stands in it."""
    links = [link for _, link in namespaces.descriptors(pid)]
    for name in ("cwd", "root"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/{pid}/{name}"))
    return any((link + "/").startswith(f"{data}/") for link in links)


def about(pid: int) -> str:
    """What it is and whose child, as far as it is still there."""
    with contextlib.suppress(OSError, IndexError):
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        state, parent = rest.split()[:2]
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        return f"{name} {words}(state {state}, child of {parent})"
    return "gone meanwhile"
