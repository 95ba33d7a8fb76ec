"""The disks behind directories, as control groups name them: a limit is one of a whole disk.

Imported by the spawner: standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

_SYS = "/sys/dev/block"


def disks_behind(paths: Iterable[str], sys: str = _SYS) -> tuple[str, ...]:
    """`major:minor` of each disk that files at these paths are on, sorted.

    A file system in memory has none. One that hides its disks (btrfs, ZFS, overlay, network)
    cannot be limited.

    Raises:
        ValueError: at least one path's disk cannot be told.
    """
    found = {disk for path in paths if (disk := _disk(path, sys)) is not None}
    return tuple(sorted(found))


def _disk(path: str, sys: str) -> str | None:
    device = os.stat(path).st_dev
    if os.major(device) == 0:
        if _in_memory(path):
            return None
        raise ValueError("a file system's disk cannot be told, so its use cannot be limited")
    name = f"{os.major(device)}:{os.minor(device)}"
    if not os.path.exists(f"{sys}/{name}/partition"):
        return name
    with open(f"{sys}/{name}/../dev") as file:  # the kernel resolves the link before `..`
        return file.read().strip()


def _in_memory(path: str) -> bool:
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split(" - ") for line in file]
    device = os.stat(path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    kinds = {right.split()[0] for left, right in mounts if left.split()[2] == name}
    return bool(kinds) and kinds <= {"tmpfs", "ramfs"}
