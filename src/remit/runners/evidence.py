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
    "directory_removed": False,
    "took_us": 0,
    "note": "the spawner was lost; the next sweep looks again",
}
"""For a sandbox that nobody saw end: not evidence of anything, so never complete."""

CAME_MS = "came_ms"
"""Where the gateway writes when an evidence reached it: the spawner's times are relative."""


def came(evidence: dict[str, Any]) -> dict[str, Any]:
    """The same evidence, marked with the time at which it came."""
    evidence.setdefault(CAME_MS, now_ms())
    return evidence


def destruction(
    found: Mapping[str, Any],
    lease_id: str,
    *,
    lease_left: bool,
    proxy_closed: bool = True,
    proxy_ms: int | None = None,
    note: str | None = None,
) -> Destruction:
    """The evidence for one lease.

    Args:
        found: an evidence as `messages` describes it, which `came` has marked.
        lease_left: its lease file is still there.
        proxy_closed: its way out is closed, or it had none.
        proxy_ms: when its way out was closed; None if it had none.
        note: said where the spawner says nothing.
    """
    now = now_ms()
    gone = bool(found["directory_removed"]) and not lease_left
    seen = _times(found)
    if gone:
        seen["directory"] = now
    else:
        seen.pop("directory", None)
    if proxy_closed and proxy_ms is not None:
        seen["proxy"] = proxy_ms
    return Destruction(
        lease_id=lease_id,
        processes_left=found["processes_left"],
        cgroup_removed=found["cgroup_removed"],
        directory_removed=gone,
        mounts_left=found["mounts_left"],
        destroyed_ms=now,
        took_us=found["took_us"],
        note=found.get("note", note),
        proxy_closed=proxy_closed,
        seen_ms=seen,
    )


def _times(found: Mapping[str, Any]) -> dict[str, int]:
    """Milliseconds since the epoch, from microseconds since the end."""
    ended_ms = found.get(CAME_MS, 0) - found["took_us"] / 1000
    return {
        name: round(ended_ms + after_us / 1000)
        for name, after_us in found.get("seen_us", {}).items()
        if after_us is not None
    }


def now_ms() -> int:
    return time.time_ns() // 1_000_000
