"""What the reaper does: it looks for control groups of this gateway, and ends those without a
live lease.

It trusts only what it finds in the cgroup tree, never a record of what should be there, and looks
again after it acted. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import Any

from remit.runners.group import Group
from remit.runners.mounts import IDENTIFIER

_PATIENCE_S = 2.0


def sweep(
    roots: Iterable[str],
    *,
    live: frozenset[str] = frozenset(),
    also: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
) -> list[dict[str, Any]]:
    """End and remove every run found under `roots` that is not in `live`; give the evidence.

    `also` are reported whether or not something was found; with `only`, nothing else is touched.
    """
    roots = list(roots)
    names = only if only is not None else (_found(roots) | also) - live
    groups = {name: [Group({_kind(root): root}, name) for root in roots] for name in sorted(names)}
    started = time.monotonic()
    for parts in groups.values():
        for part in parts:
            part.kill()
    return [_evidence(name, parts, started) for name, parts in groups.items()]


def _kind(root: str) -> str:
    """A directory with `cgroup.kill` below it is cgroup2's; the v1 ones have `tasks`."""
    return "pids" if os.path.exists(f"{root}/tasks") else "unified"


def _found(roots: Iterable[str]) -> frozenset[str]:
    names: set[str] = set()
    for root in roots:
        with contextlib.suppress(OSError), os.scandir(root) as entries:
            names |= {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    return frozenset(name for name in names if IDENTIFIER.fullmatch(name))


def _removed(parts: list[Group]) -> bool:
    gone = [part.remove() for part in parts]
    return all(gone)


def _evidence(name: str, parts: list[Group], started: float) -> dict[str, Any]:
    until = started + _PATIENCE_S
    while not _removed(parts) and time.monotonic() < until:
        for part in parts:
            part.kill()
        time.sleep(0.001)
    return {
        "lease": name,
        "processes_left": sum(len(part.pids()) for part in parts if part.exists),
        "cgroup_removed": not any(part.exists for part in parts),
        "mounts_left": 0,
        "took_us": round((time.monotonic() - started) * 1e6),
    }
