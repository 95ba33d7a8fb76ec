"""From what the spawner saw of an end to the evidence that goes into a record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from remit.model import Destruction

UNSEEN: Mapping[str, Any] = {
    "processes_left": 0,
    "cgroup_removed": False,
    "mounts_left": 0,
    "took_us": 0,
    "note": "the spawner was lost; the next sweep looks again",
}
"""For a sandbox that nobody saw end: not evidence of anything, so never complete."""


def destruction(found: Mapping[str, Any], lease_id: str, *, lease_left: bool) -> Destruction:
    """The evidence for one lease; `lease_left` says that its lease file is still there."""
    now = round(time.time() * 1000)
    seen = found.get("seen_us") or {}
    return Destruction(
        lease_id=lease_id,
        processes_left=found["processes_left"],
        cgroup_removed=found["cgroup_removed"],
        directory_removed=not lease_left and found.get("directory_removed", True),
        mounts_left=found["mounts_left"],
        destroyed_ms=now,
        took_us=found["took_us"],
        note=found.get("note"),
        seen_ms={
            name: now - max(0, round((found["took_us"] - at) / 1000))
            for name, at in seen.items()
            if at is not None
        },
    )
