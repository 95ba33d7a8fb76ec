"""The machine: interpreter, what a durable write costs, and the clock."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from remit.ledger.storage import NETWORK, file_system
from remit.runners.check import Check
from remit.runners.hints import distribution
from remit.runners.seccomp import ARCHITECTURES

SLOW_FSYNC_MS = 5.0
WRITES = 50
PAGE = 4096
"""What the ledger's write-ahead log is written in: SQLite's page, then a flush."""

DRIFT_S = 0.05
"""How far wall clock and monotonic clock may part while they are watched."""

EARLIEST = 1_735_689_600
"""2025-01-01: a clock before this was never set."""

_MEMORY = frozenset({"tmpfs", "ramfs"})
_CLOCK_ERROR = 5  # TIME_ERROR of adjtimex(2): nothing keeps this clock


def python() -> Check:
    """The interpreter and the operating system."""
    version = platform.python_version()
    names = "/".join(sorted(distribution())) or "unknown distribution"
    found = f"{version} on {platform.system()} {platform.release()} ({platform.machine()}, {names})"
    if not sys.platform.startswith("linux") or platform.machine() not in ARCHITECTURES:
        known = " or ".join(sorted(ARCHITECTURES))
        return Check(name="python", status="fail", found=f"{found}; runs need Linux on {known}")
    return Check(name="python", status="ok", found=found)


def durable_write(directory: Path) -> Check:
    """What the ledger will wait for at each commit, measured where its file lies or would lie."""
    where = existing(directory)
    kind = file_system(where) or "unknown file system"
    if kind in NETWORK:
        found = f"{where} is on {kind}, where the ledger refuses to be"
        return Check(name="fsync", status="fail", found=found, fix=_MOVE)
    try:
        typical_ms = 1000 * statistics.median(_append(where))
    except OSError as error:
        found = f"could not be measured in {where}: {error.strerror}"
        return Check(name="fsync", status="unknown", found=found)
    found = f"{typical_ms:.2f} ms to append and flush a page on {kind}, p50 of {WRITES}"
    if kind in _MEMORY:
        return Check(
            name="fsync", status="warn", found=f"{found}; nothing there outlives a restart",
            fix=_MOVE,
        )  # fmt: skip
    if typical_ms > SLOW_FSYNC_MS:
        return Check(
            name="fsync", status="warn", found=f"{found}; each call waits for two of these",
            fix=_MOVE,
        )  # fmt: skip
    return Check(name="fsync", status="ok", found=found)


_MOVE = "set server.data_dir in remit.yaml to a directory on a fast local disk"


def existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if os.path.isdir(each))


def _append(where: Path) -> list[float]:
    page = os.urandom(PAGE)
    taken = []
    with tempfile.TemporaryFile(dir=where) as file:
        for _ in range(WRITES):
            began = time.perf_counter()
            os.write(file.fileno(), page)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return taken


def clock() -> Check:
    """Whether the wall clock, by which approvals and keys expire, can be relied on."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(DRIFT_S)
    parted = abs((time.time() - wall) - (time.monotonic() - steady))
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall))
    if wall < EARLIEST:
        found = f"it says {now}, so it was never set"
        return Check(name="clock", status="fail", found=found, fix=_set_clock())
    if parted > DRIFT_S:
        found = f"it moved by {parted:.2f} s against the monotonic clock while it was watched"
        return Check(name="clock", status="warn", found=found, fix=_set_clock())
    synchronised = kernel_keeps_time()
    if synchronised is None:
        return Check(name="clock", status="ok", found=f"{now}; the kernel does not tell its source")
    if not synchronised:
        found = f"{now}, and nothing keeps it: approvals and keys expire by it"
        return Check(name="clock", status="warn", found=found, fix=_set_clock())
    return Check(name="clock", status="ok", found=f"{now}, synchronised")


def kernel_keeps_time() -> bool | None:
    """Whether the kernel says that something synchronises its clock (adjtimex(2)); None: unsaid."""
    try:
        answer = ctypes.CDLL(None).adjtimex(ctypes.byref((ctypes.c_byte * 512)()))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else answer != _CLOCK_ERROR


def _set_clock() -> str:
    if shutil.which("timedatectl") and Path("/run/systemd/system").is_dir():
        return "sudo timedatectl set-ntp true"
    return "run an NTP client, such as chrony; in a container or a guest, on its host"
