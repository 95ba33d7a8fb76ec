"""What was seen to be gone after a run's end, and when: the evidence of its destruction.

Imported by the spawner: standard library only.
"""

from __future__ import annotations

import os
import time
from typing import Any

from remit.runners.wire import read_file

KINDS = ("processes", "cgroup", "mounts", "directory")


class Seen:
    """Microseconds from the end to when each kind of thing was first seen gone."""

    def __init__(self) -> None:
        self._ended_at = 0.0
        self._gone: dict[str, int] = {}

    def end(self, at: float) -> None:
        """The end, on the monotonic clock."""
        self._ended_at = at

    def gone(self, kind: str) -> None:
        """This kind is gone now; the first time counts."""
        self._gone.setdefault(kind, self._since())

    def _since(self) -> int:
        return round((time.monotonic() - self._ended_at) * 1e6)

    def evidence(
        self, *, processes_left: int, cgroup_removed: bool, mounts_left: int, directory: bool
    ) -> dict[str, Any]:
        """The evidence, of what was just looked at; what is not gone has no time."""
        left = dict(
            zip(
                KINDS,
                (processes_left > 0, not cgroup_removed, mounts_left > 0, not directory),
                strict=True,
            )
        )
        for kind, still in left.items():
            if not still:
                self.gone(kind)
        return {
            "processes_left": processes_left,
            "cgroup_removed": cgroup_removed,
            "mounts_left": mounts_left,
            "directory_removed": directory,
            "took_us": self._since(),
            "seen_us": {kind: None if left[kind] else self._gone[kind] for kind in KINDS},
        }


def mounts_naming(lease: str) -> int:
    """How many mounts of the host name this lease."""
    return mount_table().count(lease.encode("ascii"))


def mount_table() -> bytes:
    """The mounts this process sees, as the kernel lists them."""
    fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_file(fd, 1 << 22)
    finally:
        os.close(fd)
