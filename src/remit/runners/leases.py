"""Lease files: written before anything of a run exists, removed after everything of it is gone.

They let the next gateway know, after a crash, which runs there were and where their control
groups were put. They are hints for the reaper, never proof that something does not exist.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from remit.model import Lease


class Leases:
    """The directory `<state>/leases`, one small file for each lease."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = str(state_dir / "leases")
        os.makedirs(self._directory, mode=0o700, exist_ok=True)

    def write(self, lease: Lease, roots: Mapping[str, str]) -> None:
        """Write a new lease.

        Raises:
            FileExistsError: there is one of this id.
        """
        text = json.dumps(
            {
                "lease": lease.id,
                "gateway": lease.gateway,
                "fence": lease.fence,
                "deadline_ms": lease.deadline_ms,
                "roots": sorted(roots.values()),
            }
        )
        fd = os.open(
            self._path(lease.id), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        try:
            os.write(fd, text.encode("ascii"))
        finally:
            os.close(fd)

    def remove(self, lease_id: str) -> bool:
        """Remove it; whether it is gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(lease_id))
        return not self.exists(lease_id)

    def exists(self, lease_id: str) -> bool:
        return os.path.lexists(self._path(lease_id))

    def found(self) -> dict[str, list[str]]:
        """Every lease there is a file of, with the cgroup directories it names.

        A file cut short by a crash still names its lease.
        """
        result: dict[str, list[str]] = {}
        for name in os.listdir(self._directory):
            result[name] = []
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                roots = json.loads(Path(self._path(name)).read_bytes())["roots"]
                result[name] = [str(root) for root in roots]
        return result

    def _path(self, lease_id: str) -> str:
        return os.path.join(self._directory, lease_id)
