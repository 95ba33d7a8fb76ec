"""Finds gVisor's `runsc`, and the platform by which its kernel gets at what a run does."""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from remit.runners.bubblewrap import open_to_others
from remit.runners.hints import on_system_path

PREFERRED = ("systrap", "ptrace")
"""What is used if the operator names none; `kvm` only on request, since it hangs on some guests."""

OLD = 2023
"""Builds of an earlier year know no systrap, and not all of what current programs ask for."""

_YEAR = re.compile(r"(20\d\d)\d{4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runsc:
    """A `runsc` that can be executed. Whether runs work in it, only a probe says."""

    path: str
    version: str
    platform: str
    digest: str

    @property
    def old(self) -> bool:
        """Whether it is of before `OLD`, as far as its version tells a date."""
        found = _YEAR.search(self.version)
        return found is not None and int(found[1]) < OLD


def find(
    explicit: Path | None = None, platform: str | None = None, *, for_others: bool
) -> Runsc | None:
    """The `runsc` to use, or None.

    Args:
        explicit: this one or none at all; else the system's.
        platform: this one, whether or not it works; else the first that the build knows.
        for_others: it must be executable by users other than this one (the runs' own).
    """
    path = str(explicit) if explicit is not None else on_system_path("runsc")
    if path is None:
        return None
    real = str(Path(path).resolve())
    if for_others and not open_to_others(real):
        return None
    try:
        said = _said(real, "--version")
        known = _said(real, "flags") if platform is None else ""
        digest = hashlib.sha256(Path(real).read_bytes()).hexdigest()
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"version (\S+)", said)
    if version is None:
        return None
    chosen = platform or next((each for each in PREFERRED if each in known), PREFERRED[-1])
    return Runsc(path=real, version=version[1], platform=chosen, digest=digest)


def told(runsc: Runsc) -> dict[str, str]:
    """What the spawner is told of it."""
    return {"path": runsc.path, "platform": runsc.platform}


def _said(path: str, word: str) -> str:
    done = subprocess.run([path, word], env={}, capture_output=True, timeout=5, check=True)
    return (done.stdout + done.stderr).decode("utf-8", "replace")
