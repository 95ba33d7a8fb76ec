"""Where control groups can be had on this machine, and how this gateway's part of it is laid out.

Three modes hold limits: `v2` (a delegated cgroup2 subtree), `hybrid` (limits from the v1
hierarchies, `cgroup.kill` from cgroup2 beside them) and `v1`. `none` holds nothing. All of this
gateway's groups are directories named `remit-<gateway>/<lease>` below its own group, so that
whoever finds one knows whose it is. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

LIMITED = ("memory", "pids", "cpu")
DISKS = "blkio"
"""The v1 hierarchy for disks; cgroup2's controller is `io`."""

UNIFIED = "unified"
_LEAF = "remit-gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The directories `remit-<gateway>` by hierarchy, and what is missing where there are none.

    `io` says that reads and writes of disks can be limited too, which no run is refused for that
    does not ask for it.
    """

    mode: str
    roots: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None
    io: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One mounted hierarchy: its controllers, where, and this process's own group in it."""

    controllers: frozenset[str]
    own: str


def hierarchies(mountinfo: str, own: str) -> list[Hierarchy]:
    """The hierarchies in `/proc/self/mountinfo`, joined with `/proc/self/cgroup`.

    A hierarchy whose own group lies outside what is mounted (a container) is taken at its mount.
    """
    groups: dict[str, str] = {}
    for line in own.splitlines():
        _, named, path = line.split(":", 2)
        groups.update(dict.fromkeys(named.split(",") if named else [UNIFIED], path))
    found: list[Hierarchy] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if not kind or kind[0] not in {"cgroup", "cgroup2"}:
            continue
        mounted = [UNIFIED] if kind[0] == "cgroup2" else kind[-1].split(",")
        group = next((groups[name] for name in mounted if name in groups), None)
        if group is not None:
            known = frozenset(name for name in mounted if name in groups)
            found.append(Hierarchy(controllers=known, own=_below(fields[4], fields[3], group)))
    return found


def _below(mount: str, root: str, group: str) -> str:
    if root != "/":
        group = group[len(root) :] if (group + "/").startswith(root + "/") else "/"
    return os.path.normpath(mount + "/" + group)


def find_layout(gateway: str, gateway_pid: int) -> Layout:
    """Find what mode this machine gives, and make this gateway's directories in it.

    Under cgroup2 a group that delegates controllers may hold no process of its own (kernel
    documentation, "No Internal Process Constraint"), so the gateway and this process move into a
    leaf beside the runs; nobody else's process is ever moved.
    """
    with open("/proc/self/mountinfo") as mounts, open("/proc/self/cgroup") as own:
        found = hierarchies(mounts.read(), own.read())
    by_name = {name: each.own for each in found for name in each.controllers}
    unified = by_name.pop(UNIFIED, None)
    name = f"remit-{gateway}"
    try:
        if all(controller in by_name for controller in LIMITED):
            return _first(name, by_name, unified)
        if unified is not None:
            return _second(name, unified, gateway_pid)
    except OSError as exc:
        return Layout(mode="none", missing=f"cgroups cannot be written ({exc.strerror})")
    return Layout(mode="none", missing="the memory, pids and cpu controllers are not all there")


def _first(name: str, by_name: Mapping[str, str], unified: str | None) -> Layout:
    roots = {controller: f"{by_name[controller]}/{name}" for controller in LIMITED}
    for path in roots.values():
        os.makedirs(path, mode=0o755, exist_ok=True)
    if DISKS in by_name:
        with contextlib.suppress(OSError):
            os.makedirs(f"{by_name[DISKS]}/{name}", mode=0o755, exist_ok=True)
            roots[DISKS] = f"{by_name[DISKS]}/{name}"
    io = DISKS in roots
    if unified is not None and _can_enter(unified):
        root = f"{unified}/{name}"
        os.makedirs(root, mode=0o755, exist_ok=True)
        if os.path.exists(f"{root}/cgroup.kill"):
            return Layout(mode="hybrid", roots={**roots, UNIFIED: root}, io=io)
    return Layout(mode="v1", roots=roots, io=io)


def _can_enter(own: str) -> bool:
    """Moving a child down needs write access to `cgroup.procs` of the common ancestor."""
    return os.access(own, os.W_OK) and os.access(f"{own}/cgroup.procs", os.W_OK)


def _second(name: str, own: str, gateway_pid: int) -> Layout:
    if os.path.basename(own) == _LEAF:  # an earlier spawner of this gateway moved it here
        own = os.path.dirname(own)
    there = _read(f"{own}/cgroup.controllers").split()
    lacking = [each for each in LIMITED if each not in there]
    if lacking:
        return Layout(mode="none", missing=f"cgroup2 delegates no {', '.join(lacking)}")
    root = f"{own}/{name}"
    os.makedirs(root, mode=0o755, exist_ok=True)
    if own_processes := _read(f"{own}/cgroup.procs").split():
        ours = {str(gateway_pid), str(os.getpid())}
        if _read(f"{own}/cgroup.type", "root") != "root" and not set(own_processes) <= ours:
            return Layout(mode="none", missing="this cgroup also holds others' processes")
        _move(own, [pid for pid in own_processes if pid in ours])
    for directory in (own, root):
        wanted = " ".join(f"+{controller}" for controller in LIMITED)
        write(f"{directory}/cgroup.subtree_control", wanted)
    return Layout(mode="v2", roots={UNIFIED: root}, io="io" in there and _with_io(own, root))


def _with_io(own: str, root: str) -> bool:
    try:
        for directory in (own, root):
            write(f"{directory}/cgroup.subtree_control", "+io")
    except OSError:
        return False
    return True


def _move(own: str, pids: list[str]) -> None:
    if _read(f"{own}/cgroup.type", "root") == "root":
        return  # the root group may hold processes beside children
    os.makedirs(f"{own}/{_LEAF}", exist_ok=True)
    for pid in pids:
        write(f"{own}/{_LEAF}/cgroup.procs", pid)


def _read(path: str, default: str = "") -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return default


def write(path: str, text: str) -> None:
    """Write a control file in one `write`, as the kernel reads it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)
