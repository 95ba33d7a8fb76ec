"""What the reaper does: it looks for what this gateway's runs leave, and ends what is of no live
lease: control groups with their processes, mounts, and directories of slots.

It trusts only what it finds, never a record of what should be there, and looks again after it
acted. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from remit.runners.group import Group
from remit.runners.mounts import IDENTIFIER
from remit.runners.removal import Seen, mount_table

_PATIENCE_S = 2.0
_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where to look: control group directories of this gateway, and its state directory, in which
    `slots/<lease>` are directories of runs that need one."""

    roots: Collection[str]
    state: str | None = None

    @property
    def slots(self) -> str | None:
        return None if self.state is None else os.path.join(self.state, "slots")


def sweep(
    ground: Ground,
    *,
    live: frozenset[str] = frozenset(),
    also: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
) -> list[dict[str, Any]]:
    """End and remove every run found that is not in `live`; give the evidence.

    `also` are reported whether or not something was found; with `only`, nothing else is touched.
    """
    names = only if only is not None else (_found(ground) | also) - live
    started = time.monotonic()
    left = [_Left(ground, name, started) for name in sorted(names)]
    for each in left:
        each.kill()
    return [each.evidence() for each in left]


class _Left:
    """Whatever there may be of one lease."""

    def __init__(self, ground: Ground, name: str, started: float) -> None:
        self._name, self._started = name, started
        self._groups = [Group({_kind(root): root}, name) for root in ground.roots]
        self._directory = None if ground.slots is None else os.path.join(ground.slots, name)
        self._seen = Seen()
        self._seen.end(started)

    def kill(self) -> None:
        for group in self._groups:
            group.kill()

    def evidence(self) -> dict[str, Any]:
        """Act until nothing is left, or for as long as it is worth."""
        until = self._started + _PATIENCE_S
        while not self._gone() and time.monotonic() < until:
            self.kill()
            time.sleep(0.001)
        found = self._seen.evidence(
            processes_left=sum(len(each.pids()) for each in self._groups if each.exists),
            cgroup_removed=not any(each.exists for each in self._groups),
            mounts_left=len(self._mounts()),
            directory=not self._has_directory(),
        )
        return {"lease": self._name, **found}

    def _gone(self) -> bool:
        removed = [each.remove() for each in self._groups]
        if not all(removed):
            return False
        self._seen.gone("processes")
        self._seen.gone("cgroup")
        for target in reversed(self._mounts()):
            _LIBC.umount2(os.fsencode(target), _MNT_DETACH)
        if self._has_directory() and not self._mounts():
            shutil.rmtree(str(self._directory), ignore_errors=True)
        return not self._has_directory()

    def _has_directory(self) -> bool:
        return self._directory is not None and os.path.lexists(self._directory)

    def _mounts(self) -> list[str]:
        """Mounts in the slot's directory, in the order they were made."""
        if self._directory is None:
            return []
        points = [line.split()[4].decode("unicode_escape") for line in mount_table().splitlines()]
        inside = self._directory + "/"
        return [point for point in points if (point + "/").startswith(inside)]


def _kind(root: str) -> str:
    """A directory with `cgroup.kill` below it is cgroup2's; the v1 ones have `tasks`."""
    return "pids" if os.path.exists(f"{root}/tasks") else "unified"


def _found(ground: Ground) -> frozenset[str]:
    names: set[str] = set()
    for root in (*ground.roots, *([] if ground.slots is None else [ground.slots])):
        with contextlib.suppress(OSError), os.scandir(root) as entries:
            names |= {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    return frozenset(name for name in names if IDENTIFIER.fullmatch(name))
